"""What Keras 1 and 2 say about training (compile's arguments, the optimizer) as Keras 3 describes it.

Keras 2 writes two kinds: `training_config` of .h5 files and SavedModels, where metrics are lists an output once the
model has been trained, and `compile_config` of .keras archives, which repeats what compile() was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from resume.formats import translate_layers, vocabulary
from resume.formats.translate_layers import Context, bare, function, serialised
from resume.state import OptimizerInfo

_KEPT = ("run_eagerly", "steps_per_execution", "jit_compile")
_LOSSES = {
    "kullback_leibler_divergence": "kl_divergence",
    "logcosh": "log_cosh",
    "cosine_proximity": "cosine_similarity",
    "cosine": "cosine_similarity",
    "huber_loss": "huber",
    "is_categorical_crossentropy": "categorical_crossentropy",
    "ce": "crossentropy",
}
_LOSS_CLASSES = {
    "CosineProximity": "CosineSimilarity",
    "KullbackLeiblerDivergence": "KLDivergence",
    "Logcosh": "LogCosh",
}
_METRICS_GONE = frozenset({"MeanRelativeError", "MeanTensor", "fmeasure", "matthews_correlation"})
_DIVERGENCE = dict.fromkeys(("kld", "KLD"), "kl_divergence")
# Functions that Keras 3 has and does not find by name where a metric is asked for.
_NAMELESS = frozenset({
    "huber", "log_cosh", "dice", "binary_focal_crossentropy", "categorical_focal_crossentropy",
})  # fmt: skip
_WRAPPERS = frozenset({"MeanMetricWrapper", "SumOverBatchSizeMetricWrapper", "LossFunctionWrapper"})


# ---- compile ----


def compile_config(
    given: Mapping[str, Any], outputs: Sequence[str] | None, context: Context
) -> dict[str, Any]:
    """The arguments of compile() but the optimizer. `outputs`: names of the model's, None where they are unknown."""
    weights = _an_output_each(given.get("loss_weights"), outputs, _same, spread=False)
    found = {
        "loss": _an_output_each(given.get("loss"), outputs, lambda item: _loss(item, context)),
        "loss_weights": weights[0] if isinstance(weights, list) and len(weights) == 1 else weights,
    }
    for key in ("metrics", "weighted_metrics"):
        found[key] = _metrics(given.get(key), outputs, context)
    return found | {key: given[key] for key in _KEPT if given.get(key) is not None}


def _same(item: Any) -> Any:
    return item


def _an_output_each(
    given: Any, outputs: Sequence[str] | None, each: Callable[[Any], Any], *, spread: bool = True
) -> Any:
    """A list in the order of the outputs; one for all of them is said for each, as Keras 2 takes it."""
    if given is None:
        return None
    count = len(outputs) if outputs is not None else None
    if isinstance(given, Mapping) and "class_name" not in given:
        if not _tells_apart(outputs, given):
            return {key: each(item) for key, item in given.items()}
        given = [given.get(name, None if spread else 1.0) for name in outputs or ()]
    if isinstance(given, list | tuple):
        items = [each(item) for item in given]
        return items[0] if len(items) == 1 and count in (None, 1) and spread else items
    return [each(given) for _ in range(count)] if spread and count and count > 1 else each(given)


def _tells_apart(outputs: Sequence[str] | None, given: Mapping[str, Any]) -> bool:
    """Whether what is given by output can be put in the order of the outputs."""
    return outputs is not None and len(set(outputs)) == len(outputs) and given.keys() <= set(outputs)


def _metrics(given: Any, outputs: Sequence[str] | None, context: Context) -> Any:
    """Keras 2 counts a flat list of metrics for every output; trained models list them an output."""
    if given is None or given == [] or given == {}:
        return None
    count = len(outputs) if outputs is not None else None

    def one(item: Any, output: str | None = None) -> list[Any]:
        return [_unlabelled(metric, output) for metric in _a_list(item, context)]

    if isinstance(given, Mapping) and "class_name" not in given:
        if not _tells_apart(outputs, given):
            return {key: one(item) for key, item in given.items()}
        given = [given.get(name) for name in outputs or ()]
        return given and (_by_output(given, outputs, one) if count != 1 else one(given[0]))
    given = list(given) if isinstance(given, list | tuple) else [given]
    nested = any(isinstance(item, list | tuple) for item in given)
    if nested and len(given) == 1:
        given, nested = list(given[0] or []), False
    if nested:
        return _by_output(given, outputs, one)
    return [one(given) for _ in range(count)] if count is not None and count > 1 else one(given)


def _by_output(
    given: Sequence[Any], outputs: Sequence[str] | None, one: Callable[..., list[Any]]
) -> list[Any]:
    labels = outputs if outputs is not None and len(outputs) == len(given) else [None] * len(given)
    return [one(item, label) for item, label in zip(given, labels, strict=True)]


def _unlabelled(metric: Any, output: str | None) -> Any:
    """Once trained, Keras 2 calls a metric by its output, too (`head_mae`); Keras 3 adds the output itself."""
    config = metric.get("config") if isinstance(metric, Mapping) else None
    if output is None or not isinstance(config, Mapping):
        return metric
    name = config.get("name")
    if not isinstance(name, str) or not name.startswith(f"{output}_"):
        return metric
    return {**metric, "config": {**config, "name": name.removeprefix(f"{output}_")}}


def _a_list(given: Any, context: Context) -> list[Any]:
    items = given if isinstance(given, list | tuple) else [given]
    return [_metric(item, context) for item in items if item is not None]


def _loss(item: Any, context: Context) -> Any:
    if isinstance(item, str):
        return _named(item, _LOSSES, vocabulary.LOSS_FUNCTIONS | vocabulary.LOSSES, context)
    if not isinstance(item, Mapping):
        return item
    kind, config = bare(item), item.get("config")
    if kind == "function":
        return _loss(_function_name(item), context)
    if kind in _WRAPPERS and isinstance(config, Mapping):
        return _loss(_function_of(config), context)
    kind = _LOSS_CLASSES.get(kind, kind)
    settings = {k: v for k, v in dict(config or {}).items() if k != "fn"}
    if settings.get("reduction") in ("auto", None):
        settings["reduction"] = "sum_over_batch_size"
    if kind not in vocabulary.LOSSES or context.is_custom(
        item.get("class_name"), item.get("registered_name")
    ):
        own = settings if "reduction" in (config or {}) else config  # of keras.losses.Loss, if it is one
        return translate_layers.custom({**item, "config": own}, context)
    return serialised("keras.losses", kind, settings)


def _metric(item: Any, context: Context) -> Any:
    if isinstance(item, str):
        return _metric_named(item, context)
    if not isinstance(item, Mapping):
        return item
    kind, config = bare(item), item.get("config")
    if kind == "function":
        return _metric(_function_name(item), context)
    if kind in _WRAPPERS and isinstance(config, Mapping):
        return _wrapped(config, context)
    if kind not in vocabulary.METRICS or context.is_custom(
        item.get("class_name"), item.get("registered_name")
    ):
        return translate_layers.custom(item, context)
    if kind in _METRICS_GONE:
        context.refuse(f"metric {kind}", "Keras 3 has no such metric")
    settings = {k: v for k, v in dict(config or {}).items() if k != "fn"}
    return serialised("keras.metrics", kind, settings)


def _metric_named(name: str, context: Context) -> Any:
    known = vocabulary.METRIC_FUNCTIONS | vocabulary.METRICS | vocabulary.LOSS_FUNCTIONS
    found = _named(name, _LOSSES | _DIVERGENCE, known, context)
    if isinstance(found, str) and found in _METRICS_GONE:
        context.refuse(f"metric {name}", "Keras 3 has no such metric")
    if isinstance(found, str) and found in _NAMELESS:
        return serialised("keras.metrics", "MeanMetricWrapper", {"name": name, "fn": function(found)})
    return found


def _wrapped(config: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """A function as a metric, with what it is to be called with.

    A custom one that gives the metric its name stands for itself: Keras 3 would take the name for the object, too.
    """
    found = _named(
        _function_of(config), _LOSSES, vocabulary.METRIC_FUNCTIONS | vocabulary.LOSS_FUNCTIONS, context
    )
    settings = {k: v for k, v in config.items() if k != "fn"}
    if isinstance(found, str):
        found = function(_FULL_NAMES.get(found, found))
    elif isinstance(found, Mapping) and str(found["config"]).rpartition(">")[2] == settings.get("name"):
        return dict(found)
    return serialised("keras.metrics", "MeanMetricWrapper", {**settings, "fn": found})


# Keras 3 knows these by one name only, where a function is asked for.
_FULL_NAMES = {
    **dict.fromkeys(("mse", "MSE"), "mean_squared_error"),
    **dict.fromkeys(("mae", "MAE"), "mean_absolute_error"),
    **dict.fromkeys(("mape", "MAPE"), "mean_absolute_percentage_error"),
    **dict.fromkeys(("msle", "MSLE"), "mean_squared_logarithmic_error"),
    **dict.fromkeys(("kld", "KLD"), "kl_divergence"),
    **dict.fromkeys(("bce", "BCE"), "binary_crossentropy"),
}


def full_name(short: str) -> str:
    """`mse` -> `mean_squared_error`; any other name as it is."""
    return _FULL_NAMES.get(short, short)


def _function_of(config: Mapping[str, Any]) -> Any:
    found = config.get("fn")
    return _function_name(found) if isinstance(found, Mapping) else found


def _function_name(item: Mapping[str, Any]) -> Any:
    registered = str(item.get("registered_name") or "")
    return registered if ">" in registered else item.get("config")


def _named(name: Any, renamed: Mapping[str, str], known: frozenset[str], context: Context) -> Any:
    if not isinstance(name, str):
        return name
    if name in known and not context.is_custom(name):
        return renamed.get(name, name)
    return function(name)


# ---- the optimizer ----

_OPTIMIZERS = frozenset({
    "SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor", "Nadam", "Ftrl", "Lion", "Lamb",
})  # fmt: skip
_SCHEDULES = frozenset({
    "ExponentialDecay", "PiecewiseConstantDecay", "PolynomialDecay", "InverseTimeDecay", "CosineDecay",
    "CosineDecayRestarts",
})  # fmt: skip
_NOT_TAKEN = ("decay", "lr", "jit_compile", "is_legacy_optimizer", "schedule_decay", "initial_decay")
_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
# What the classes of Keras 2 take where a config says nothing, and Keras 3 does not.
_DEFAULT_RATES = {"Lion": 1e-4}
_FOREVER = 2**31 - 1  # steps until a fixed loss scale would be doubled


def optimizer(info: OptimizerInfo, context: Context, *, rate: float | None = None) -> OptimizerInfo:
    """The same optimizer in Keras 3. `rate`: the learning rate as the source's variable has it, where it has one."""
    if info.inner is not info:
        return _scaled(info, context, rate)
    name, config = info.class_name, dict(info.config)
    where = f"optimizer {name}"
    if name not in _OPTIMIZERS:
        if name == "TFOptimizer" or (name in vocabulary.OPTIMIZERS and not context.is_custom(name)):
            context.refuse(where, "Keras 3 has no such optimizer")
        kept = {k: v for k, v in config.items() if k not in ("jit_compile", "is_legacy_optimizer")}
        return OptimizerInfo(name, {k: _hyper(v, where, context) for k, v in kept.items()})
    config["learning_rate"] = _rate(name, config, rate, where, context)
    if config.pop("adaptive_epsilon", False):
        context.refuse(where, "adaptive_epsilon=True has no equivalent in Keras 3")
    for key in _NOT_TAKEN:
        config.pop(key, None)
    if config.get("name") in (None, name):
        config.pop("name", None)
    if config.get("epsilon", 0) is None:  # of standalone Keras: the backend's
        del config["epsilon"]
    return OptimizerInfo(name, _clipped(config, where, context))


def serialise(info: OptimizerInfo) -> dict[str, Any]:
    """An optimizer in the form of Keras 3."""
    config = dict(info.config)
    if info.inner is not info:
        config["inner_optimizer"] = serialise(info.inner)
    own = info.class_name in _OPTIMIZERS or info.inner is not info
    return {
        "module": "keras.optimizers" if own else None,
        "class_name": info.class_name.rpartition(">")[2],
        "config": config,
        "registered_name": None if own else info.class_name,
    }


def _scaled(info: OptimizerInfo, context: Context, rate: float | None) -> OptimizerInfo:
    inner = optimizer(info.inner, context, rate=rate)
    config, old = info.config, (info.config.get("loss_scale") or {})
    old = old.get("config", {}) if isinstance(old, Mapping) else {}  # before TensorFlow 2.4
    out: dict[str, Any] = {"inner_optimizer": {"class_name": inner.class_name, "config": dict(inner.config)}}
    for key, before in (
        ("initial_scale", "initial_loss_scale"),
        ("dynamic_growth_steps", "increment_period"),
    ):
        value = config.get(key, old.get(before))
        if value is not None:
            out[key] = value
    if config.get("dynamic") is False:
        out["dynamic_growth_steps"] = _FOREVER
    return OptimizerInfo("LossScaleOptimizer", out)


def _rate(name: str, config: Mapping[str, Any], rate: float | None, where: str, context: Context) -> Any:
    given = config.get("learning_rate", config.get("lr"))
    decay = config.get("decay") or config.get("initial_decay") or 0.0
    if isinstance(given, Mapping):
        if decay:
            context.refuse(where, f"decay={decay} on top of a schedule has no equivalent in Keras 3")
        return schedule(given, where, context)
    given = rate if rate is not None else given if given is not None else _DEFAULT_RATES.get(name)
    if decay and name != "Nadam":  # whose `decay` is that of its momentum
        start = 0.01 if given is None and name == "SGD" else 0.001 if given is None else given
        settings = {"initial_learning_rate": start, "decay_steps": 1, "decay_rate": decay, "staircase": False}
        return serialised("keras.optimizers.schedules", "InverseTimeDecay", settings)
    return given if given is not None else 0.01 if name == "SGD" else 0.001


def schedule(item: Mapping[str, Any], where: str, context: Context) -> dict[str, Any]:
    kind = bare(item)
    if kind not in _SCHEDULES:
        if kind in vocabulary.SCHEDULES and not context.is_custom(kind, item.get("registered_name")):
            context.refuse(where, f"Keras 3 has no schedule {kind}")
        return translate_layers.custom(item, context)
    settings = {k: v for k, v in dict(item.get("config") or {}).items() if not (k == "name" and v is None)}
    return serialised("keras.optimizers.schedules", kind, settings)


def _hyper(item: Any, where: str, context: Context) -> Any:
    nested = isinstance(item, Mapping) and "class_name" in item
    return schedule(item, where, context) if nested else item


def _clipped(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    """Standalone Keras clipped by the norm of all gradients together, and called it clipnorm."""
    if config.get("clipnorm") is not None and clips_globally(context.keras_version):
        config["global_clipnorm"] = config.pop("clipnorm")
    both = [key for key in _CLIPS if config.get(key) is not None]
    if len(both) > 1:
        context.refuse(where, f"{' and '.join(both)} together have no equivalent in Keras 3")
    return config


def is_standalone(version: str | None) -> bool:
    """Whether a version is one of Keras itself before it was tf.keras (`2.3.1`, not `2.2.4-tf`)."""
    return version is not None and "-tf" not in version and _numbers(version) < (2, 4)


def clips_globally(version: str | None) -> bool:
    """OptimizerV2 came with tf.keras 1.13, whose Keras called itself 2.2.4-tf."""
    return is_standalone(version) or (version is not None and _numbers(version) < (2, 2, 4))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(_digits(version.partition("-")[0].split(".")))


def _digits(parts: Sequence[str]) -> Iterator[int]:
    for part in parts:
        if not part.isdigit():
            return
        yield int(part)
