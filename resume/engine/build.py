"""Configuration or source -> live objects: custom objects, model, optimizer, data functions, callbacks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
from hydra.errors import HydraException
from hydra.utils import instantiate

from resume.engine.callbacks import without_double_board
from resume.engine.loop import Built
from resume.errors import SourceError, UsageError
from resume.settings import Settings
from resume.state import TrainState

# Keras resolves these short names for losses and metrics when compiling, but not when it reads a legacy file.
_SHORT = {
    "mse": "mean_squared_error", "mae": "mean_absolute_error", "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error", "kld": "kl_divergence", "kullback_leibler_divergence": "kl_divergence",
    "bce": "binary_crossentropy", "logcosh": "log_cosh",
    "MSE": "mean_squared_error", "MAE": "mean_absolute_error", "MAPE": "mean_absolute_percentage_error",
    "MSLE": "mean_squared_logarithmic_error", "KLD": "kl_divergence", "BCE": "binary_crossentropy",
}  # fmt: skip


# Where Keras's own classes and functions are found by name, when a file gives no module.
_PLACES = (
    keras, keras.layers, keras.models, keras.optimizers, keras.losses, keras.metrics, keras.initializers,
    keras.regularizers, keras.constraints, keras.activations, keras.optimizers.schedules, keras.dtype_policies,
    keras.ops,
)  # fmt: skip


def custom_objects(paths: Mapping[str, str | None]) -> dict[str, Any]:
    """Objects by the name that a file calls them. Raises UsageError that lists every path that leads nowhere."""
    found: dict[str, Any] = {}
    problems = []
    for name, path in paths.items():
        try:
            if path is not None:
                found[name] = _located(path)
        except (ImportError, AttributeError, ValueError) as error:
            problems.append(f"  custom_objects.{name}: {path}: {error}")
    if problems:
        raise UsageError("custom objects that cannot be imported:\n" + "\n".join(problems))
    return found


def _located(path: str) -> Any:
    module, _, attribute = path.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def node(config: Any, name: str, *, partial: bool = False) -> Any:
    """What a configuration node describes. Raises UsageError with the user's own error as its cause."""
    try:
        return instantiate({**config, "_partial_": True} if partial else config, _convert_="all")
    except HydraException as error:
        cause = error.__cause__ or error
        root = cause.__cause__ or cause
        raise UsageError(f"{name}: {config.get('_target_')}: {type(root).__name__}: {root}") from error


def callbacks(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Callbacks by their names in the configuration."""
    made = {name: node(config, f"callbacks.{name}") for name, config in nodes.items() if config is not None}
    return without_double_board(made, shipped="tensorboard")


def model_builder(settings: Settings, custom: Mapping[str, Any]) -> Callable[[TrainState | None], Built]:
    """A function that builds and compiles the model, from the configuration where it names one, else from the source.

    With `checkpoint.prefer=checkpoint`, the source's model and optimizer hold wherever it has them.
    """

    def build(state: TrainState | None) -> Built:
        if settings.dtype_policy:
            keras.config.set_dtype_policy(settings.dtype_policy)
        keras.utils.set_random_seed(settings.seed)
        overruled = settings.checkpoint.prefer == "checkpoint" and state is not None
        with keras.saving.custom_object_scope(dict(custom)):
            from_source = settings.model is None or (
                overruled and state is not None and state.model_config is not None
            )
            model = model_of(state, custom) if from_source else node(settings.model, "model")
            if not isinstance(model, keras.Model):
                raise UsageError(f"model: {type(model).__name__} is not a keras.Model.")
            given = {} if overruled else _given(settings.compile)
            return Built(model, from_source, compile_model(model, given, state))

    return build


def _given(compile_settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: node(value, f"compile.{name}")
        if isinstance(value, Mapping) and "_target_" in value
        else _nested(value)
        for name, value in compile_settings.items()
        if value is not None
    }


def _nested(value: Any) -> Any:
    """Lists and dictionaries of metrics or losses may hold nodes themselves."""
    if isinstance(value, Mapping):
        return node(value, "compile") if "_target_" in value else {k: _nested(v) for k, v in value.items()}
    return [_nested(item) for item in value] if isinstance(value, list) else value


def model_of(state: TrainState | None, custom: Mapping[str, Any]) -> keras.Model:
    """The model as the source's own config describes it, built, not compiled, its weights not yet the source's."""
    if state is None:
        raise UsageError("no model: name one (model=...), or a source that has one (+ckpt=...).")
    if state.model_config is None:
        raise SourceError(f"{state.path}: holds no model. Name the one it was trained with (model=...).")
    demand_objects(state, custom)
    try:
        if state.format == "h5":
            return keras.models.load_model(str(state.path), custom_objects=dict(custom), compile=False)
        config = {k: v for k, v in state.model_config.items() if k != "compile_config"}
        return keras.saving.deserialize_keras_object(config, custom_objects=dict(custom))
    except (TypeError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise _unbuildable(state, error) from error


def _unbuildable(state: TrainState, error: Exception) -> UsageError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return UsageError(
        f"{state.path}: its model cannot be rebuilt: {lines[0] if lines else type(error).__name__}"
    )


def demand_objects(state: TrainState, custom: Mapping[str, Any]) -> None:
    """Raises UsageError that lists all custom objects that the source needs and nobody has named.

    Keras would import whatever module the file names for them: what runs is the configuration's to say, never a file's.
    """
    configs = (
        state.model_config,
        state.compile_config,
        state.optimizer and {"config": dict(state.optimizer.config)},
    )
    _demand(state, configs, custom)


def _demand(state: TrainState, configs: Iterable[Any], custom: Mapping[str, Any]) -> None:
    missing = sorted({name for config in configs for name in unknown_objects(config, custom)})
    if missing:
        lines = "\n".join(f"  '+custom_objects.{name}=YOUR.MODULE.{name}'" for name in missing)
        raise UsageError(
            f"{state.path}: needs custom objects that the configuration does not name. Add:\n{lines}"
        )


def unknown_objects(config: Any, custom: Mapping[str, Any]) -> set[str]:
    """Class and function names in a serialised config that neither Keras nor the configuration knows."""
    if isinstance(config, list | tuple):
        return {name for item in config for name in unknown_objects(item, custom)}
    if not isinstance(config, Mapping):
        return set()
    found = {name for item in config.values() for name in unknown_objects(item, custom)}
    kind = config.get("class_name")
    name = config.get("config") if kind == "function" else kind
    if isinstance(name, str) and "config" in config and not _known(name, config, custom):
        found.add(name)
    return found


def _known(name: str, config: Mapping[str, Any], custom: Mapping[str, Any]) -> bool:
    registered = config.get("registered_name")
    if name in custom or registered in custom or name in keras.saving.get_custom_objects():
        return True
    spelled = [n for n in (name, registered) if isinstance(n, str)]
    if any(keras.saving.get_registered_object(n) is not None for n in spelled):
        return True
    module = str(config.get("module") or "").split(".")[0]
    if config.get("class_name") == "function" or not module:
        return any(hasattr(place, name) for place in _PLACES)
    return module in ("keras", "builtins")


def compile_model(model: keras.Model, given: Mapping[str, Any], state: TrainState | None) -> bool:
    """Compile; what is not given stays as the model or the source has it. True when the optimizer is the source's."""
    if model.compiled and not given:
        return False
    base = source_arguments(state, given) if state is not None else {}
    if model.compiled and "optimizer" not in base and "optimizer" not in given:
        base = {"optimizer": model.optimizer, **base}
    arguments = {**base, **given}
    if arguments.get("optimizer") is None:
        raise UsageError(
            "the model is not compiled: set compile.optimizer (optimizer=adam) and compile.loss."
        )
    if state is not None and any(n.startswith("optimizer/loss_scale/") for n in state.specs):
        arguments["optimizer"] = _scaled(arguments["optimizer"], from_source="optimizer" not in given)
    model.compile(**arguments)
    return "optimizer" not in given and "optimizer" in base


def _scaled(optimizer: Any, *, from_source: bool) -> Any:
    """Keras wraps an optimizer for mixed_float16 by the policy of the moment; the source says that it was wrapped."""
    wrapped = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer if wrapped or not from_source else keras.optimizers.LossScaleOptimizer(optimizer)


def source_arguments(state: TrainState, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` that the source's own config has and the configuration does not give."""
    config = {name: item for name, item in (state.compile_config or {}).items() if name not in given}
    _demand(state, [config], {})
    try:
        if state.format == "h5":
            return _legacy_arguments(config, state, fresh="optimizer" not in given)
        arguments: dict[str, Any] = keras.saving.deserialize_keras_object(config)
        return arguments
    except (TypeError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise _unbuildable(state, error) from error


def _legacy_arguments(config: Mapping[str, Any], state: TrainState, *, fresh: bool) -> dict[str, Any]:
    """From the `training_config` of an `.h5` file."""
    kept = ("loss", "metrics", "weighted_metrics", "loss_weights", "run_eagerly", "steps_per_execution", "jit_compile",
            "auto_scale_loss")  # fmt: skip
    arguments = {
        name: keras.saving.deserialize_keras_object(_long_names(config[name]))
        for name in kept
        if config.get(name) is not None
    }
    if fresh and state.optimizer is not None:
        arguments["optimizer"] = optimizer_of(state.optimizer.class_name, state.optimizer.config)
    return arguments


def optimizer_of(class_name: str, config: Mapping[str, Any]) -> Any:
    """A fresh optimizer of this class and with these hyperparameters (its state comes from the arrays)."""
    settings = dict(config)
    if class_name == "LossScaleOptimizer" and isinstance(settings.get("inner_optimizer"), Mapping):
        inner = settings["inner_optimizer"]
        settings["inner_optimizer"] = optimizer_of(inner["class_name"], inner["config"])
        return keras.optimizers.LossScaleOptimizer(**settings)
    # By attribute: Keras's own table of optimizers forgets Lamb.
    kind = keras.saving.get_custom_objects().get(class_name) or getattr(keras.optimizers, class_name, None)
    if kind is None:
        return keras.optimizers.deserialize({"class_name": class_name, "config": settings})
    return kind.from_config(settings)


def _long_names(value: Any) -> Any:
    """Strings as Keras reads them back: short names of losses and metrics written out."""
    if isinstance(value, str):
        return _SHORT.get(value, value)
    if isinstance(value, list | tuple):
        return [_long_names(item) for item in value]
    if isinstance(value, Mapping) and "class_name" not in value:
        return {key: _long_names(item) for key, item in value.items()}
    return value
