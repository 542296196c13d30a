"""Whole states of Keras 2 moved to Keras 3: every array kept, dropped for a reason, made, or fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import formats
from resume.errors import UsageError
from resume.formats import translate
from resume.state import Arrays, OptimizerInfo, TrainState

FIXTURES = Path(__file__).parents[1] / "fixtures"
SETTING = "a setting in Keras 3, no variable"
PLACEHOLDER = "a placeholder that Keras 2 never read"
ACCUMULATOR = "accumulators of the epoch in progress, of other variables in Keras 3"
GENERATOR = "a generator of TensorFlow's, which Keras 3 does not draw from"

MODEL = {"class_name": "Sequential", "config": {"name": "s", "layers": [
    {"class_name": "Dense", "config": {"name": "dense", "units": 2, "batch_input_shape": [None, 3]}}]}}  # fmt: skip


def old(kind: str = "Adam", /, *, extra: dict[str, Any] | None = None, **facts: Any) -> TrainState:
    """A state of a legacy optimizer on one dense layer."""
    kernel = np.arange(6, dtype="f4").reshape(3, 2)
    arrays = {
        "model/dense/kernel": kernel,
        "model/dense/bias": np.ones(2, "f4"),
        "optimizer/iteration": np.asarray(7, "i8"),
        **(extra or {}),
    }
    config = {"learning_rate": 0.25, **facts.pop("config", {})}
    known: dict[str, Any] = {
        "model_config": MODEL,
        "optimizer": OptimizerInfo(kind, config, facts.pop("legacy", True)),
        "keras_version": "2.10.0",
        "flavour": "tf_keras",
    }
    return TrainState(format="h5", path=Path("a.h5"), arrays=Arrays.of(arrays), **(known | facts))


def slots(*roles: str) -> dict[str, Any]:
    return {f"optimizer/{role}/dense/kernel": np.full((3, 2), 0.5, "f4") for role in roles}


def same_values(moved: translate.Moved, source: TrainState) -> None:
    """Whatever came along is what it was, and whatever did not is accounted for."""
    renamed = {f"optimizer/loss_scale/{a}": f"optimizer/loss_scale/{b}" for a, b in (
        ("dynamic_scale", "current_loss_scale"), ("step_counter", "good_steps"))}  # fmt: skip
    came = {renamed.get(name, name): name for name in moved.state.specs if name not in moved.made}
    assert came.keys() == source.specs.keys() - moved.dropped.keys()
    for before, after in came.items():
        array = moved.state.arrays[after]
        np.testing.assert_array_equal(array, source.arrays[before])
        assert (array.dtype.name, array.shape) == (
            moved.state.specs[after].dtype,
            moved.state.specs[after].shape,
        )


# ---- states written by hand ----


def test_a_state_of_keras_3_stays_as_it_is() -> None:
    state = old(flavour="keras")
    assert translate.state(state) == translate.Moved(state)


def test_the_moved_state() -> None:
    source = old(
        extra=slots("momentum", "velocity"),
        compile_config={"loss": "mse", "metrics": ["mae"], "optimizer_config": {}},
        progress={"a": 1},
        raw_names={"model/dense/kernel": "dense/kernel:0"},
        places={"model/dense/kernel": "dense/0"},
        epoch=3,
    )
    moved = translate.state(source)
    same_values(moved, source)
    state = moved.state
    assert (state.format, state.flavour, state.path, state.epoch) == ("keras", "keras", Path("a.h5"), 3)
    assert state.raw_names == {"model/dense/kernel": "dense/kernel:0"}
    assert (state.progress, state.places) == ({}, {})
    assert state.model_config is not None
    assert [item["class_name"] for item in state.model_config["config"]["layers"]] == ["InputLayer", "Dense"]
    assert state.optimizer == OptimizerInfo("Adam", {"learning_rate": 0.25})
    serialised = {"module": "keras.optimizers", "class_name": "Adam", "config": {"learning_rate": 0.25}}
    assert state.compile_config == {
        "loss": "mse",
        "loss_weights": None,
        "metrics": ["mae"],
        "weighted_metrics": None,
        "optimizer": {**serialised, "registered_name": None},
    }


def test_all_that_has_no_equivalent_is_listed_at_once() -> None:
    layers = [
        {"class_name": "CuDNNGRU", "config": {"name": "g"}},
        {"class_name": "Merge", "config": {"name": "m"}},
    ]
    source = old(
        model_config={"class_name": "Sequential", "config": {"name": "s", "layers": layers}},
        config={"adaptive_epsilon": True},
        compile_config={"metrics": [{"class_name": "MeanTensor", "config": {}}]},
    )
    with pytest.raises(UsageError) as caught:
        translate.state(source)
    assert str(caught.value).splitlines() == [
        "a.h5: cannot be moved to Keras 3:",
        "  CuDNNGRU 'g': its two biases are one in Keras 3, and its optimizer state with them",
        "  Merge 'm': Keras 3 has no such layer",
        "  optimizer Adam: adaptive_epsilon=True has no equivalent in Keras 3",
        "  metric MeanTensor: Keras 3 has no such metric",
    ]


def test_names_of_ones_own_reach_every_part() -> None:
    source = old(
        "SGD",
        model_config={"class_name": "Sequential", "config": {"name": "s", "layers": [
            {"class_name": "Merge", "config": {"name": "m"}}]}},
        compile_config={"loss": "mse"},
    )  # fmt: skip
    state = translate.state(source, custom=["Merge", "mse"]).state
    assert state.model_config is not None
    assert state.compile_config is not None
    assert state.model_config["config"]["layers"][0]["module"] is None
    assert state.compile_config["loss"]["config"] == "mse"


def test_what_keras_3_has_no_use_for_is_dropped_with_a_reason() -> None:
    extra = {
        "optimizer/hyper/beta_1": np.float32(0.9),
        "optimizer/unused/0": np.float32(0),
        "metrics/acc/total": np.float32(3),
        "seeds/dropout/seed": np.zeros(3, "i8"),
        "rng/tensorflow": np.zeros(3, "i8"),
        "callbacks/early/best": np.float32(1),
        **slots("momentum", "velocity", "velocity_hat"),
    }
    source = old(extra=extra, raw_names={"optimizer/hyper/beta_1": "beta_1:0"})
    moved = translate.state(source)
    same_values(moved, source)
    assert moved.dropped == {
        "optimizer/hyper/beta_1": SETTING,
        "optimizer/unused/0": PLACEHOLDER,
        "metrics/acc/total": ACCUMULATOR,
        "seeds/dropout/seed": GENERATOR,
        "rng/tensorflow": GENERATOR,
        "callbacks/early/best": "state of callbacks of another library",
        "optimizer/velocity_hat/dense/kernel": "Adam keeps no velocity_hat in Keras 3 under these settings",
    }
    assert moved.state.raw_names == {}


def test_momentum_of_zero_has_no_slots_in_keras_3() -> None:
    moved = translate.state(old("SGD", extra=slots("momentum")))
    assert moved.dropped == {
        "optimizer/momentum/dense/kernel": "SGD keeps no momentum in Keras 3 under these settings"
    }
    assert translate.state(old("SGD", extra=slots("momentum"), config={"momentum": 0.5})).dropped == {}


def test_slots_that_nobody_knows_are_kept() -> None:
    """Of an optimizer of the user's own, and those that the source could only number."""
    extra = {**slots("trace", "vars"), "optimizer/mine": np.float32(2)}
    assert translate.state(old("Mine", extra=extra)).dropped == {}
    assert translate.state(old(extra=slots("vars", "inner"))).dropped == {}


def test_factors_of_what_has_none() -> None:
    extra = {f"optimizer/{role}/dense/{name}": np.float32(0) for role in "rc" for name in ("kernel", "bias")}
    moved = translate.state(old("Adafactor", extra=extra, legacy=False))
    assert moved.dropped == dict.fromkeys(("optimizer/r/dense/bias", "optimizer/c/dense/bias"), PLACEHOLDER)
    assert moved.fresh == ("optimizer/r/dense/bias", "optimizer/c/dense/bias")


def test_a_schedule_gives_the_rate() -> None:
    extra = {"optimizer/learning_rate": np.float32(0.25)}
    moved = translate.state(old("SGD", extra=extra, config={"decay": 0.5}))
    assert moved.dropped == {"optimizer/learning_rate": "a schedule gives the rate"}
    assert moved.made == {}
    assert moved.state.learning_rate is None


def test_the_rate_as_the_variable_has_it() -> None:
    extra = {"optimizer/learning_rate": np.float32(0.125)}
    stored = translate.state(old(extra=extra)).state
    assert stored.optimizer is not None
    assert (stored.optimizer.config["learning_rate"], stored.learning_rate) == (0.125, 0.125)
    raw = {"optimizer/learning_rate": "(configuration)"}
    derived = translate.state(old(extra=extra, raw_names=raw)).state
    assert derived.optimizer is not None
    assert derived.optimizer.config["learning_rate"] == 0.25


def test_a_rate_that_no_variable_held() -> None:
    moved = translate.state(old())
    assert moved.made == {"optimizer/learning_rate": "0.25, from the settings"}
    assert moved.state.arrays["optimizer/learning_rate"] == np.float32(0.25)
    assert moved.state.specs["optimizer/learning_rate"].dtype == "float32"


def test_nothing_is_made_for_a_state_without_an_optimizer() -> None:
    weights = old(optimizer=None)
    assert translate.state(weights).made == {}
    uncounted = TrainState(**{**vars(old()), "arrays": Arrays.of({"model/dense/bias": np.ones(2, "f4")})})
    assert translate.state(uncounted).made == {}


def test_counters_get_keras_3s_dtypes() -> None:
    extra = {
        "optimizer/iteration": np.asarray(7, "i4"),
        "optimizer/learning_rate": np.float64(0.5),
        "optimizer/loss_scale/current_loss_scale": np.float32(64),
        "optimizer/loss_scale/good_steps": np.asarray(3, "i4"),
    }
    raw = {"optimizer/loss_scale/good_steps": "good_steps:0"}
    source = old("LossScaleOptimizer", extra=extra, raw_names=raw, config={
        "inner_optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.5}}})  # fmt: skip
    moved = translate.state(source)
    same_values(moved, source)
    names = ("iteration", "learning_rate", "loss_scale/dynamic_scale", "loss_scale/step_counter")
    assert [moved.state.specs[f"optimizer/{n}"].dtype for n in names] == [
        "int64",
        "float32",
        "float32",
        "int64",
    ]
    assert moved.state.raw_names == {"optimizer/loss_scale/step_counter": "good_steps:0"}
    assert moved.fresh == ("optimizer/loss_scale/iteration", "optimizer/loss_scale/learning_rate")


def test_what_this_kind_of_source_never_holds_is_fresh() -> None:
    assert translate.state(old(unheld=("optimizer/u_product",))).fresh == ("optimizer/u_product",)
    assert translate.state(old(optimizer=None, unheld=("optimizer",))).fresh == ("optimizer",)


@pytest.mark.parametrize(
    ("format", "kept"), [("keras", ["model/a/vars/0"]), ("weights_h5", ["model/a/vars/0", "model/b"]), ("h5", [])]
)  # fmt: skip
def test_positions_that_both_generations_count_alike(format: str, kept: list[str]) -> None:
    state = TrainState(
        **{**vars(old()), "format": format, "places": {"model/a/vars/0": "layers/a/vars/0", "model/b": "b/0"}}
    )
    assert list(translate.state(state).state.places) == kept


# ---- Nadam's product ----


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0, 1.0), (1, 0.9 * 0.52), (2, 0.9 * 0.52 * 0.9 * (1 - 0.96**2 / 2))],
)
def test_a_product_multiplied_once_a_step(steps: int, expected: float) -> None:
    found = translate.nadam_product(steps, beta_1=0.9)
    assert (found.dtype, found.shape) == (np.dtype("f4"), ())
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_product_that_has_vanished() -> None:
    assert translate.nadam_product(10**9, beta_1=0.5) == 0  # at once


def test_who_gets_which_product() -> None:
    said = "computed from 7 iterations; no file of Keras 2 holds it"
    for legacy, variables in ((True, 0), (False, 1)):
        source = old("Nadam", legacy=legacy, extra=slots("momentum", "velocity"), config={"beta_1": 0.5})
        moved = translate.state(source)
        value = translate.nadam_product(7, beta_1=0.5, variables=variables)
        assert moved.state.arrays["optimizer/u_product"] == value
        assert moved.made["optimizer/u_product"] == f"{float(value):.6g}, {said}"
    held = old("Nadam", extra={"optimizer/u_product": np.float32(0.5)})
    assert "optimizer/u_product" not in translate.state(held).made


@pytest.mark.parametrize("layers", [1, 2])
def test_the_product_of_a_compiled_step(layers: int) -> None:
    """tf_keras multiplies once for every variable, but not while a step is traced."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(2) for _ in range(layers)])
    model.build((None, 2))
    model.compile(tf_keras.optimizers.Nadam(beta_1=0.9), "mse")
    for step in range(1, 6):
        model.train_on_batch(np.ones((2, 2)), np.ones((2, 2)))
        expected = translate.nadam_product(step, beta_1=0.9, variables=2 * layers)
        np.testing.assert_allclose(float(model.optimizer._u_product), expected, rtol=1e-5)


# ---- outputs ----


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ([], ("output",)),
        ({"layers": []}, ("output",)),
        ({"layers": [], "output_layers": [["a", 0, 0], ["b", 1, 0]]}, ("a", "b")),
        ({"layers": [], "output_layers": ["a", 0, 0]}, ("a",)),
        ({"layers": [], "output_layers": {"x": ["a", 0, 0], "y": [["b", 0, 0]]}}, ("a", "b")),
        ({"units": 3}, None),
        (None, None),
    ],
)
def test_where_outputs_come_from(config: Any, found: Any) -> None:
    assert translate.output_names({"class_name": "M", "config": config}) == found


def test_no_model_no_outputs() -> None:
    assert translate.output_names(None) is None


# ---- under the names of a model that is given ----


def test_what_a_format_leaves_out_of_the_names() -> None:
    inside = {"class_name": "Dense", "config": {"name": "dense"}}
    encoder = {"class_name": "Sequential", "config": {"name": "enc", "layers": [inside]}}
    head = {"class_name": "Dense", "config": {"name": "head"}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [encoder, head]}}
    arrays = {
        "model/dense/kernel": np.ones((3, 2), "f4"),
        "model/head/bias": np.zeros(2, "f4"),
        "optimizer/momentum/dense/kernel": np.full((3, 2), 2, "f4"),
        "optimizer/iteration": np.asarray(4, "i8"),
    }
    state = TrainState(
        format="weights_h5",
        path=Path("a"),
        arrays=Arrays.of(arrays),
        raw_names={"optimizer/momentum/dense/kernel": "m"},
        places={"model/dense/kernel": "enc/0", "model/head/bias": "head/0"},
    )
    found = translate.renested(state, config)
    assert {name: array.tobytes() for name, array in found.arrays.items()} == {
        "model/enc/dense/kernel": arrays["model/dense/kernel"].tobytes(),
        "model/head/bias": arrays["model/head/bias"].tobytes(),
        "optimizer/momentum/enc/dense/kernel": arrays["optimizer/momentum/dense/kernel"].tobytes(),
        "optimizer/iteration": arrays["optimizer/iteration"].tobytes(),
    }
    assert found.raw_names == {"optimizer/momentum/enc/dense/kernel": "m"}
    assert found.places == {"model/enc/dense/kernel": "enc/0", "model/head/bias": "head/0"}


# ---- real files ----


def moved(name: str) -> tuple[TrainState, translate.Moved]:
    source = formats.read(FIXTURES / name)
    found = translate.state(source)
    same_values(found, source)
    assert found.state.iterations == source.iterations
    return source, found


@pytest.mark.parametrize(
    "name",
    [
        "o02_e115_mlp_named_sgd/model.h5", "o05_e24_embed_lstm_adagrad/model.h5", "o07_e28_multi_out_adam/model.h5",
        "o10_e210_shared_adadelta/model.h5", "o13_e212_mlp_named_adam_amsgrad/model.keras",
        "o14_e212_custom_reg_adam/model.keras", "o22_e215_embed_lstm_rmsprop_mom_centered/model.keras",
        "o23_e215_nested_adamax/model.keras", "o28_e215_mlp_named_ftrl/model.h5",
    ],
)  # fmt: skip
def test_every_array_of_a_real_run_comes_along(name: str) -> None:
    _, found = moved(name)
    assert (dict(found.dropped), dict(found.made), found.fresh) == ({}, {}, ())


def test_standalone_keras() -> None:
    _, found = moved("o01_e115s_mlp_adam/model.h5")
    assert found.dropped == {f"optimizer/unused/{n}": PLACEHOLDER for n in range(6)}
    assert found.state.optimizer is not None
    assert "lr" not in found.state.optimizer.config


def test_decay() -> None:
    source, found = moved("o06_e28_nested_adam_decay/model.h5")
    assert found.dropped == {"optimizer/learning_rate": "a schedule gives the rate"}
    assert source.optimizer is not None
    assert found.state.optimizer is not None
    schedule = found.state.optimizer.config["learning_rate"]
    assert (schedule["class_name"], schedule["config"]) == (
        "InverseTimeDecay",
        {
            "initial_learning_rate": source.optimizer.config["learning_rate"],
            "decay_steps": 1,
            "decay_rate": source.optimizer.config["decay"],
            "staircase": False,
        },
    )


def test_a_savedmodel() -> None:
    _, found = moved("o08_e210_mlp_adam/saved_model")
    assert found.dropped == {
        **{f"metrics/{m}/{part}": ACCUMULATOR for m in ("loss", "mae") for part in ("total", "count")},
        **{f"optimizer/hyper/{name}": SETTING for name in ("beta_1", "beta_2", "decay")},
    }


def test_a_rate_that_a_callback_had_changed() -> None:
    source, found = moved("o12_e211_cnn_bn_skip_sgd_lrchange/model.h5")
    assert found.state.optimizer is not None
    assert found.state.optimizer.config["learning_rate"] == source.learning_rate


def test_mixed_precision() -> None:
    own = ("optimizer/loss_scale/iteration", "optimizer/loss_scale/learning_rate")
    _, archive = moved("o27_e215_mlp_named_adam_mixed/model.keras")
    assert archive.fresh == ("optimizer/loss_scale", *own)
    _, graph = moved("o27_e215_mlp_named_adam_mixed/saved_model")
    assert graph.fresh == own
    assert {"optimizer/loss_scale/dynamic_scale", "optimizer/loss_scale/step_counter"} <= set(
        graph.state.specs
    )
    assert graph.state.optimizer is not None
    assert (graph.state.optimizer.class_name, graph.state.optimizer.inner.class_name) == (
        "LossScaleOptimizer",
        "Adam",
    )


def test_a_model_that_was_never_trained() -> None:
    _, found = moved("o32_e215_mlp_adam_untrained/model.keras")
    assert found.fresh == ("optimizer",)
