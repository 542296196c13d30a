"""What Keras 1 and 2 say about training, written by hand; then their own objects, rebuilt by Keras 3."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from resume.formats import keras2, translate_training
from resume.formats.translate_layers import Context
from resume.state import OptimizerInfo


def compiled(outputs: Any = ("out",), custom: Any = (), /, **given: Any) -> dict[str, Any]:
    context = Context(frozenset(custom))
    found = translate_training.compile_config(given, outputs, context)
    assert context.problems == []
    return found


def optimizer(
    name: str,
    /,
    *,
    rate: float | None = None,
    version: str | None = "2.15.0",
    custom: Any = (),
    **config: Any,
) -> dict[str, Any]:
    """The translated config of an optimizer that keeps its class."""
    context = Context(frozenset(custom), version)
    found = translate_training.optimizer(OptimizerInfo(name, config), context, rate=rate)
    assert (found.class_name, found.legacy, context.problems) == (name, False, [])
    return dict(found.config)


def refused(name: str, /, *, version: str = "2.15.0", **config: Any) -> list[str]:
    context = Context(keras_version=version)
    translate_training.optimizer(OptimizerInfo(name, config), context)
    return context.problems


def own(module: str, kind: str, /, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def named(name: str) -> dict[str, Any]:
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def wrapped(name: str, function: Any, /, **more: Any) -> dict[str, Any]:
    config = {"name": name, "dtype": "float32", "fn": function, **more}
    return {"class_name": "MeanMetricWrapper", "config": config}


# ---- losses ----


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("mse", "mse"),
        ("kullback_leibler_divergence", "kl_divergence"),
        ("logcosh", "log_cosh"),
        ("cosine_proximity", "cosine_similarity"),
        ("huber_loss", "huber"),
        ("gap", named("gap")),
        ("fx>gap", named("fx>gap")),
        (None, None),
        ({"class_name": "function", "config": "mse", "registered_name": "function"}, "mse"),
        ({"class_name": "function", "config": "gap", "registered_name": "fx>gap"}, named("fx>gap")),
        ({"class_name": "LossFunctionWrapper", "config": {"fn": "logcosh"}}, "log_cosh"),
        ({"class_name": "LossFunctionWrapper", "config": {"fn": {"config": "gap"}}}, named("gap")),
        (
            {"class_name": "Huber", "config": {"delta": 2.0, "reduction": "auto", "name": "huber_loss"}},
            own("keras.losses", "Huber", delta=2.0, reduction="sum_over_batch_size", name="huber_loss"),
        ),
        (
            {"class_name": "Custom>KullbackLeiblerDivergence", "config": {"reduction": "sum", "fn": "x"}},
            own("keras.losses", "KLDivergence", reduction="sum"),
        ),
        (
            {"class_name": "Logcosh", "config": {}},
            own("keras.losses", "LogCosh", reduction="sum_over_batch_size"),
        ),
        (
            {"class_name": "fx>Gap", "config": {"k": 1}},
            {"module": None, "class_name": "Gap", "config": {"k": 1}, "registered_name": "fx>Gap"},
        ),
    ],
)
def test_a_loss(given: Any, found: Any) -> None:
    assert compiled(loss=given)["loss"] == found


def test_the_reduction_of_a_loss_of_ones_own() -> None:
    """Keras 3 has no `auto`; a loss that has no reduction gets none."""
    given = {"class_name": "Mine", "config": {"reduction": "auto", "name": "mine", "w": 2}}
    assert compiled(loss=given)["loss"]["config"] == {
        "reduction": "sum_over_batch_size",
        "name": "mine",
        "w": 2,
    }
    assert compiled(loss={"class_name": "Mine", "config": {"w": 2}})["loss"]["config"] == {"w": 2}


def test_a_loss_of_ones_own_under_kerass_name() -> None:
    assert compiled(("out",), ["mse"], loss="mse")["loss"] == named("mse")
    item = {"class_name": "Huber", "config": {"reduction": "sum", "delta": 2.0}}
    found = compiled(("out",), ["Huber"], loss=item)["loss"]
    assert found == {**item, "module": None, "registered_name": "Huber"}


POISSON = own("keras.losses", "Poisson", reduction="sum")


@pytest.mark.parametrize(
    ("outputs", "given", "found"),
    [
        (("a", "b"), "mse", ["mse", "mse"]),
        (("a", "b"), ["mse", "mae"], ["mse", "mae"]),
        (("a", "b"), {"b": "mse", "a": "logcosh"}, ["log_cosh", "mse"]),
        (("a", "b"), {"b": "mse"}, [None, "mse"]),
        (("a",), {"a": "mse"}, "mse"),
        (("a",), ["mse"], "mse"),
        (None, ["mse"], "mse"),
        (None, "mse", "mse"),
        (None, {"a": "logcosh"}, {"a": "log_cosh"}),
        (("a", "b"), {"c": "mse"}, {"c": "mse"}),
        (("a", "a"), {"a": "mse"}, {"a": "mse"}),
        (("a", "b"), {"class_name": "Poisson", "config": {"reduction": "sum"}}, [POISSON, POISSON]),
    ],
)
def test_a_loss_for_each_output(outputs: Any, given: Any, found: Any) -> None:
    assert compiled(outputs, loss=given)["loss"] == found


@pytest.mark.parametrize(
    ("outputs", "given", "found"),
    [
        (("a", "b"), None, None),
        (("a", "b"), [0.5, 2], [0.5, 2]),
        (("a", "b"), {"b": 0.5}, [1.0, 0.5]),
        (("a",), [0.5], 0.5),
        (None, {"a": 0.5}, {"a": 0.5}),
    ],
)
def test_weights_of_losses(outputs: Any, given: Any, found: Any) -> None:
    assert compiled(outputs, loss_weights=given)["loss_weights"] == found


# ---- metrics ----

MAE = own("keras.metrics", "MeanMetricWrapper", name="mae", dtype="float32", fn=named("mean_absolute_error"))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("acc", "acc"),
        ("cosine_proximity", "cosine_similarity"),
        ("bias", named("bias")),
        (wrapped("mae", "mean_absolute_error"), MAE),
        (wrapped("mae", "mae"), MAE),
        (wrapped("mae", {"class_name": "function", "config": "MAE"}), MAE),
        (wrapped("bias", "bias"), named("bias")),
        (wrapped("bias", "fx>bias"), named("fx>bias")),
        (
            wrapped("other", "bias", k=2),
            own("keras.metrics", "MeanMetricWrapper", name="other", dtype="float32", k=2, fn=named("bias")),
        ),
        (
            {"class_name": "AUC", "config": {"name": "auc", "num_thresholds": 20}},
            own("keras.metrics", "AUC", name="auc", num_thresholds=20),
        ),
        (
            {"class_name": "BinaryAccuracy", "config": {"fn": "binary_accuracy", "threshold": 0.25}},
            own("keras.metrics", "BinaryAccuracy", threshold=0.25),
        ),
        (
            {"class_name": "fx>Bias", "config": {"name": "b"}},
            {"module": None, "class_name": "Bias", "config": {"name": "b"}, "registered_name": "fx>Bias"},
        ),
        ({"class_name": "function", "config": "bias"}, named("bias")),
    ],
)
def test_a_metric(given: Any, found: Any) -> None:
    assert compiled(metrics=[given])["metrics"] == [found]


@pytest.mark.parametrize("kind", ["MeanRelativeError", "MeanTensor", "fmeasure"])
def test_a_metric_that_is_gone(kind: str) -> None:
    context, given = Context(), kind if kind.islower() else {"class_name": kind, "config": {}}
    translate_training.compile_config({"metrics": [given]}, ("a",), context)
    assert context.problems == [f"metric {kind}: Keras 3 has no such metric"]


@pytest.mark.parametrize(
    ("outputs", "given", "found"),
    [
        (("a",), None, None),
        (("a",), [], None),
        (("a",), {}, None),
        (("a",), "acc", ["acc"]),
        (("a",), ["acc", "mae"], ["acc", "mae"]),
        (("a",), [["acc", None, "mae"]], ["acc", "mae"]),
        (("a", "b"), ["acc", "mae"], [["acc", "mae"], ["acc", "mae"]]),
        (("a", "b"), [["acc"], "mae"], [["acc"], ["mae"]]),
        (("a", "b"), [[None], ["acc"]], [[], ["acc"]]),
        (("a", "b"), {"b": "acc"}, [[], ["acc"]]),
        (("a",), {"a": ["acc", "mae"]}, ["acc", "mae"]),
        (("a",), {"c": ["acc"]}, {"c": ["acc"]}),
        (("a", "a"), {"a": ["acc"]}, {"a": ["acc"]}),
        (None, ["acc", "mae"], ["acc", "mae"]),
        (None, {"a": "acc"}, {"a": ["acc"]}),
    ],
)
@pytest.mark.parametrize("key", ["metrics", "weighted_metrics"])
def test_metrics_for_each_output(key: str, outputs: Any, given: Any, found: Any) -> None:
    assert compiled(outputs, **{key: given})[key] == found


def test_the_other_arguments_of_compile() -> None:
    given = {
        "loss": "mse",
        "run_eagerly": False,
        "steps_per_execution": 4,
        "jit_compile": None,
        "optimizer": {},
    }
    assert compiled(**given, sample_weight_mode=None) == {
        "loss": "mse",
        "loss_weights": None,
        "metrics": None,
        "weighted_metrics": None,
        "run_eagerly": False,
        "steps_per_execution": 4,
    }


@pytest.mark.parametrize(
    ("short", "full"), [("MSE", "mean_squared_error"), ("kld", "kl_divergence"), ("mine", "mine")]
)
def test_full_names(short: str, full: str) -> None:
    assert translate_training.full_name(short) == full


# ---- optimizers ----


def test_settings_that_keras_3_does_not_take() -> None:
    given = {
        "name": "Adam", "learning_rate": 0.25, "beta_1": 0.5, "decay": 0.0, "jit_compile": True,
        "is_legacy_optimizer": False, "epsilon": None, "weight_decay": None,
    }  # fmt: skip
    assert optimizer("Adam", **given) == {"learning_rate": 0.25, "beta_1": 0.5, "weight_decay": None}
    assert optimizer("Adam", name="mine", learning_rate=0.25) == {"name": "mine", "learning_rate": 0.25}


@pytest.mark.parametrize(
    ("name", "config", "rate", "found"),
    [
        ("Adam", {"lr": 0.25}, None, 0.25),
        ("Adam", {"learning_rate": 0.25}, 0.125, 0.125),
        ("Adam", {}, None, 0.001),
        ("SGD", {}, None, 0.01),
        ("Lion", {}, None, 1e-4),
        ("Nadam", {"learning_rate": 0.5, "decay": 0.004}, None, 0.5),
    ],
)
def test_a_learning_rate(name: str, config: dict[str, Any], rate: float | None, found: float) -> None:
    """The variable goes before the config: a callback may have set it."""
    assert optimizer(name, rate=rate, **config)["learning_rate"] == found


@pytest.mark.parametrize(
    ("name", "config", "rate", "start"),
    [
        ("Adam", {"learning_rate": 0.25, "decay": 0.5}, None, 0.25),
        ("Adam", {"learning_rate": 0.25, "decay": 0.5}, 0.125, 0.125),
        ("SGD", {"decay": 0.5}, None, 0.01),
        ("RMSprop", {"initial_decay": 0.5}, None, 0.001),
    ],
)
def test_decay_becomes_a_schedule(name: str, config: dict[str, Any], rate: Any, start: float) -> None:
    settings = {"initial_learning_rate": start, "decay_steps": 1, "decay_rate": 0.5, "staircase": False}
    schedule = own("keras.optimizers.schedules", "InverseTimeDecay", **settings)
    assert optimizer(name, rate=rate, **config) == {"learning_rate": schedule}


def test_schedules() -> None:
    settings = {"initial_learning_rate": 0.5, "decay_steps": 3, "alpha": 0.0}
    given = {"class_name": "CosineDecay", "config": {**settings, "name": None}}
    found = own("keras.optimizers.schedules", "CosineDecay", **settings)
    assert optimizer("Adam", learning_rate=given, rate=0.125) == {"learning_rate": found}
    named_one = {**given, "config": {**settings, "name": "c"}}
    assert optimizer("Adam", learning_rate=named_one)["learning_rate"]["config"]["name"] == "c"


def test_a_schedule_of_ones_own() -> None:
    given = {"class_name": "fx>Warm", "config": {"steps": 3}}
    found = {"module": None, "class_name": "Warm", "config": {"steps": 3}, "registered_name": "fx>Warm"}
    assert optimizer("Adam", learning_rate=given)["learning_rate"] == found
    cosine = {"class_name": "CosineDecay", "config": {}}
    assert optimizer("Adam", learning_rate=cosine)["learning_rate"]["module"] == "keras.optimizers.schedules"


@pytest.mark.parametrize("kind", ["LinearCosineDecay", "NoisyLinearCosineDecay"])
def test_a_schedule_that_is_gone(kind: str) -> None:
    given = {"class_name": kind, "config": {}}
    assert refused("Adam", learning_rate=given) == [f"optimizer Adam: Keras 3 has no schedule {kind}"]
    assert optimizer("Adam", learning_rate=given, custom=[kind])["learning_rate"]["module"] is None


def test_what_has_no_equivalent() -> None:
    cosine = {"class_name": "CosineDecay", "config": {}}
    assert refused("Adam", learning_rate=cosine, decay=0.5) == [
        "optimizer Adam: decay=0.5 on top of a schedule has no equivalent in Keras 3"
    ]
    assert refused("Adam", adaptive_epsilon=True) == [
        "optimizer Adam: adaptive_epsilon=True has no equivalent in Keras 3"
    ]
    assert refused("TFOptimizer") == ["optimizer TFOptimizer: Keras 3 has no such optimizer"]
    assert refused("ScheduleFreeAdamW") == ["optimizer ScheduleFreeAdamW: Keras 3 has no such optimizer"]
    assert refused("SGD", clipnorm=1.0, clipvalue=0.5, global_clipnorm=None) == [
        "optimizer SGD: clipnorm and clipvalue together have no equivalent in Keras 3"
    ]


def test_an_optimizer_of_ones_own() -> None:
    given = {"lr": 0.5, "decay": 0.5, "warm": {"class_name": "CosineDecay", "config": {"name": None}}}
    assert optimizer("fx>Mine", **given) == {
        "lr": 0.5,
        "decay": 0.5,
        "warm": own("keras.optimizers.schedules", "CosineDecay"),
    }
    assert optimizer("Muon", custom=["Muon"], lr=1) == {"lr": 1}


@pytest.mark.parametrize(
    ("version", "key"),
    [
        ("2.3.1", "global_clipnorm"),
        ("2.2.4", "global_clipnorm"),
        ("2.1.6-tf", "global_clipnorm"),
        ("2.2.4-tf", "clipnorm"),
        ("2.4.0", "clipnorm"),
        ("2.15.0", "clipnorm"),
        (None, "clipnorm"),
    ],
)
def test_clipping_by_the_norm_of_all_gradients(version: str | None, key: str) -> None:
    assert optimizer("Adam", version=version, lr=0.5, clipnorm=1.0)[key] == 1.0
    assert translate_training.clips_globally(version) is (key == "global_clipnorm")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.3.1", True), ("1.2.2", True), ("2.2.4-tf", False), ("2.4.0", False), ("2.15.0", False), (None, False)],
)  # fmt: skip
def test_versions_of_standalone_keras(version: str | None, expected: bool) -> None:
    assert translate_training.is_standalone(version) is expected


# ---- loss scales ----


def scaled(**config: Any) -> dict[str, Any]:
    inner = {"class_name": "Adam", "config": {"learning_rate": 0.5, "decay": 0.0, "name": "Adam"}}
    info = OptimizerInfo("LossScaleOptimizer", {"inner_optimizer": inner, **config}, legacy=True)
    found = translate_training.optimizer(info, Context())
    assert (found.class_name, found.inner.class_name) == ("LossScaleOptimizer", "Adam")
    assert found.inner.config == {"learning_rate": 0.5}
    return {key: item for key, item in found.config.items() if key != "inner_optimizer"}


def test_loss_scales() -> None:
    old = {
        "class_name": "DynamicLossScale",
        "config": {"initial_loss_scale": 64, "increment_period": 20, "m": 2},
    }
    assert scaled(loss_scale=old) == {"initial_scale": 64, "dynamic_growth_steps": 20}
    new = {"dynamic": True, "initial_scale": 32.0, "dynamic_growth_steps": 10, "name": "LossScaleOptimizer"}
    assert scaled(**new) == {"initial_scale": 32.0, "dynamic_growth_steps": 10}
    fixed = {"dynamic": False, "initial_scale": 32.0, "dynamic_growth_steps": None}
    assert scaled(**fixed) == {"initial_scale": 32.0, "dynamic_growth_steps": 2**31 - 1}
    assert scaled() == {}


def test_serialised() -> None:
    adam = OptimizerInfo("Adam", {"learning_rate": 0.5})
    form = own("keras.optimizers", "Adam", learning_rate=0.5)
    assert translate_training.serialise(adam) == form
    inner = {"class_name": "Adam", "config": {"learning_rate": 0.5}}
    scale = OptimizerInfo("LossScaleOptimizer", {"inner_optimizer": inner, "initial_scale": 2.0})
    expected = own("keras.optimizers", "LossScaleOptimizer", inner_optimizer=form, initial_scale=2.0)
    assert translate_training.serialise(scale) == expected
    assert translate_training.serialise(OptimizerInfo("fx>Mine", {"k": 1})) == {
        "module": None,
        "class_name": "Mine",
        "config": {"k": 1},
        "registered_name": "fx>Mine",
    }


# ---- live: tf_keras's own objects, rebuilt by Keras 3 ----


@pytest.fixture(scope="module")
def libraries() -> tuple[Any, Any]:
    import keras
    import tf_keras

    return tf_keras, keras


def _serialised(old: Any, thing: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(old.saving.serialize_keras_object(thing), default=float))
    return config


CLASSES = ("SGD", "RMSprop", "Adam", "Adadelta", "Adagrad", "Adamax", "Nadam", "Ftrl")
NEW_CLASSES = (*CLASSES, "AdamW", "Adafactor", "Lion")


@pytest.mark.parametrize(
    ("kind", "api"), [*((k, "optimizers") for k in NEW_CLASSES), *((k, "optimizers.legacy") for k in CLASSES)]
)
def test_every_optimizer_comes_back_with_its_settings(
    libraries: tuple[Any, Any], kind: str, api: str
) -> None:
    old, new = libraries
    module = old.optimizers.legacy if api.endswith("legacy") else old.optimizers
    rated = {} if kind == "Adafactor" else {"epsilon": 0.125} if kind not in ("SGD", "Ftrl", "Lion") else {}
    given = getattr(module, kind)(learning_rate=0.0625, clipvalue=0.5, **rated)
    info = keras2.optimizer_info(_serialised(old, given), keras_version="2.15.0")
    assert info is not None
    assert info.legacy is api.endswith("legacy")
    context = Context(keras_version="2.15.0")
    made = new.saving.deserialize_keras_object(
        translate_training.serialise(translate_training.optimizer(info, context))
    )
    assert context.problems == []
    before, after = given.get_config(), made.get_config()
    gone = {"name", "decay", "jit_compile", "is_legacy_optimizer"}
    common = (before.keys() - gone) | rated.keys()
    assert {key: after[key] for key in common} == {key: before[key] for key in common}
    assert (after["learning_rate"], after["clipvalue"]) == (0.0625, 0.5)


def test_every_schedule_gives_the_same_rates(libraries: tuple[Any, Any]) -> None:
    old, new = libraries
    schedules = old.optimizers.schedules
    for given in (
        schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True),
        schedules.PiecewiseConstantDecay([1, 9], [0.1, 0.2, 0.3]),
        schedules.PolynomialDecay(0.1, 10, 0.01, power=2.0, cycle=True),
        schedules.InverseTimeDecay(0.1, 3, 0.5),
        schedules.CosineDecay(0.1, 10, 0.25, warmup_target=0.5, warmup_steps=4),
        schedules.CosineDecayRestarts(0.1, 10, 1.5),
    ):
        context = Context()
        made = new.saving.deserialize_keras_object(
            translate_training.schedule(_serialised(old, given), "", context)
        )
        assert context.problems == []
        for step in (0, 2, 7, 30):
            np.testing.assert_allclose(float(made(step)), float(given(step)), rtol=1e-6)


def test_decay_gives_the_same_rates(libraries: tuple[Any, Any]) -> None:
    old, new = libraries
    legacy = old.optimizers.legacy.SGD(0.25, decay=0.5)
    info = keras2.optimizer_info(_serialised(old, legacy), keras_version="2.15.0")
    assert info is not None
    made = translate_training.optimizer(info, Context()).config["learning_rate"]
    schedule = new.saving.deserialize_keras_object(made)
    for step in (0, 1, 5, 100):
        legacy.iterations.assign(step)
        np.testing.assert_allclose(float(schedule(step)), float(legacy._decayed_lr("float32")), rtol=1e-6)


LOSSES = (
    "BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy", "CategoricalFocalCrossentropy",
    "CategoricalHinge", "CosineSimilarity", "Hinge", "Huber", "KLDivergence", "LogCosh", "MeanAbsoluteError",
    "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogarithmicError", "Poisson", "SquaredHinge",
)  # fmt: skip


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_computes_the_same(libraries: tuple[Any, Any], kind: str) -> None:
    old, new = libraries
    given = getattr(old.losses, kind)()
    made = new.saving.deserialize_keras_object(compiled(loss=_serialised(old, given))["loss"])
    truth, found = (
        np.eye(3, dtype="f4"),
        np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], "f4"),
    )
    np.testing.assert_allclose(float(made(truth, found)), float(given(truth, found)), rtol=1e-5)


METRICS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys((
        "AUC", "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy", "CosineSimilarity", "F1Score",
        "FalseNegatives", "Hinge", "KLDivergence", "LogCoshError", "MeanAbsoluteError", "Poisson", "Precision",
        "R2Score", "Recall", "RootMeanSquaredError", "TopKCategoricalAccuracy", "TruePositives",
    ), ()),
    "MeanIoU": (2,), "PrecisionAtRecall": (0.5,), "SensitivityAtSpecificity": (0.5,),
}  # fmt: skip


@pytest.mark.parametrize("kind", METRICS)
def test_every_metric_computes_the_same(libraries: tuple[Any, Any], kind: str) -> None:
    old, new = libraries
    given = getattr(old.metrics, kind)(*METRICS[kind])
    (config,) = compiled(metrics=[_serialised(old, given)])["metrics"]
    made = new.saving.deserialize_keras_object(config)
    truth, found = (
        np.eye(3, dtype="f4"),
        np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], "f4"),
    )
    given.update_state(truth, found)
    made.update_state(truth, found)
    np.testing.assert_allclose(np.asarray(made.result()), np.asarray(given.result()), rtol=1e-5)
    assert made.name == given.name


@pytest.mark.parametrize("name", ["kld", "huber", "huber_loss", "logcosh", "log_cosh", "dice", "mse"])
def test_a_metric_by_its_name_is_found(libraries: tuple[Any, Any], name: str) -> None:
    """As untrained models have them; Keras 3 does not know all names where a metric is asked for."""
    _, new = libraries
    (config,) = compiled(metrics=[name])["metrics"]
    assert new.metrics.get(config if isinstance(config, str) else new.saving.deserialize_keras_object(config))


@pytest.mark.parametrize(
    "name", ["mse", "MAE", "kld", "logcosh", "huber", "cosine_proximity", "binary_accuracy"]
)
def test_a_function_in_a_metric_is_found(libraries: tuple[Any, Any], name: str) -> None:
    """As trained models have them. Where Keras 3 is asked for a function, it knows some by their full names only."""
    _, new = libraries
    (config,) = compiled(metrics=[wrapped("called", name)])["metrics"]
    made = new.saving.deserialize_keras_object(config)
    assert made.name == "called"
    assert callable(made._fn)
