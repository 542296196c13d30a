"""Every optimizer class of tf_keras, both kinds, through every format that it writes: all slots those of the saving
process, and the next five steps those of the unbroken run."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

import resume
from resume.engine import flavour, keras2, live

flavour.library(flavour.TF_KERAS)

NEW, LEGACY = keras.optimizers, keras.optimizers.legacy
X = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(96, 2)).astype("float32")


def _classes(space: Any, kind: type) -> list[str]:
    return sorted(
        name for name, item in vars(space).items()
        if isinstance(item, type) and issubclass(item, kind) and name != "Optimizer"
    )  # fmt: skip


CASES: dict[str, Callable[[], Any]] = (
    {f"new {name}": getattr(NEW, name) for name in _classes(NEW, NEW.Optimizer)}
    | {f"legacy {name}": getattr(LEGACY, name) for name in _classes(LEGACY, LEGACY.Optimizer)}
    | {
        "new Adam average amsgrad": lambda: NEW.Adam(use_ema=True, amsgrad=True),
        "new SGD schedule": lambda: NEW.SGD(NEW.schedules.CosineDecay(0.1, 50), momentum=0.9),
        "new RMSprop centered": lambda: NEW.RMSprop(momentum=0.9, centered=True),
        "legacy SGD decay": lambda: LEGACY.SGD(0.1, momentum=0.9, nesterov=True, decay=0.01),
        "legacy RMSprop centered": lambda: LEGACY.RMSprop(momentum=0.9, centered=True),
        "legacy Adam schedule": lambda: LEGACY.Adam(NEW.schedules.ExponentialDecay(0.1, 50, 0.5)),
        "new LossScaleOptimizer": lambda: keras.mixed_precision.LossScaleOptimizer(NEW.Adam()),
        "legacy LossScaleOptimizer": lambda: keras.mixed_precision.LossScaleOptimizer(LEGACY.Adam()),
    }
)


def model_with(optimizer: Any) -> Any:
    """Nested, partly frozen, normalised, with layers of equal shape; another model was built before it."""
    layers = keras.layers
    keras.Sequential([keras.Input((2,)), layers.Dense(5), layers.BatchNormalization()])
    inputs = keras.Input((6,))
    block = keras.Sequential(
        [layers.Dense(5, activation="relu"), layers.BatchNormalization(), layers.Dense(5)], name="block"
    )
    x = layers.Dense(5)(block(layers.Dense(5)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(5, trainable=False)(x)))
    model.compile(optimizer, "mse", run_eagerly=True)  # nothing to trace
    return model


def trained(model: Any, steps: range) -> Any:
    for step in steps:
        model.train_on_batch(X[8 * step : 8 * step + 8], Y[8 * step : 8 * step + 8])
    return model


def state_of(model: Any) -> dict[str, Any]:
    named = live.of(model).variables.items()
    return {name: live.value(v) for name, v in named if name.startswith(("model/", "optimizer/"))}


def unequal(found: dict[str, Any], truth: dict[str, Any]) -> list[str]:
    names = found.keys() | truth.keys()
    unheld = ("optimizer/loss_scale/", "optimizer/u_product")  # no file of Keras 2 holds them
    return sorted(
        n for n in names
        if not n.startswith(unheld) and not (n in found and n in truth and np.array_equal(found[n], truth[n]))
    )  # fmt: skip


def saved(model: Any, folder: Path) -> dict[str, Path]:
    """One file or folder a format that holds the whole state."""
    legacy = keras2.is_legacy(model.optimizer)
    files = {
        "h5": folder / "a.h5",
        "savedmodel": folder / "a",
        **({} if legacy else {"keras": folder / "a.keras"}),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for form, file in files.items():
            model.save(file, save_format={"h5": "h5", "savedmodel": "tf", "keras": "keras"}[form])
    return files


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_all_slots_and_the_next_five_steps(tmp_path: Path, case: str) -> None:
    keras.utils.set_random_seed(1)
    model = trained(model_with(CASES[case]()), range(7))
    truth, files = state_of(model), saved(model, tmp_path)
    after = state_of(trained(model, range(7, 12)))
    for form, file in files.items():
        loaded, proof = resume.load(file)
        assert flavour.of(loaded) == flavour.TF_KERAS, form
        assert proof.iterations_restored == 7, form
        found = {finding.name for finding in proof.findings}
        scaled = "LossScale" in case and form != "savedmodel"
        assert ("optimizer/loss_scale/good_steps" in found) == scaled, form
        loaded.run_eagerly = True  # no file says so; a graph may round otherwise
        assert unequal(state_of(loaded), truth) == [], form
        lost = "optimizer/u_product" in found
        assert lost == (case == "new Nadam" and form != "savedmodel"), form
        if case != "new Nadam":  # it counts its eager steps in an attribute that no format holds
            assert unequal(state_of(trained(loaded, range(7, 12))), after) == [], form


@pytest.mark.parametrize("optimizer", [NEW.Adam, LEGACY.Adam])
def test_completing_a_model_runs_no_step_and_leaves_nothing_to_build(optimizer: Any) -> None:
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model = model_with(optimizer())
    model.compile(optimizer(), "mse", metrics=["mae"])
    before = [v.numpy() for v in model.weights]
    spec = (tf.TensorSpec((None, 6), tf.float32), tf.TensorSpec((None, 2), tf.float32))
    keras2.complete(model, spec, tf.distribute.get_strategy())
    built = set(live.of(model).variables)
    assert all(np.array_equal(a, b) for a, b in zip(before, (v.numpy() for v in model.weights), strict=True))
    assert int(model.optimizer.iterations) == 0
    model.fit(X[:8], Y[:8], verbose=0)
    assert set(live.of(model).variables) == built
    assert {n for n in built if n.startswith("metrics/")} == {
        "metrics/loss/total", "metrics/loss/count",
        "metrics/mae/total", "metrics/mae/count",
    }  # fmt: skip


def test_names_do_not_depend_on_what_was_built_before() -> None:
    first, second = model_with(NEW.Adam()), model_with(NEW.Adam())
    for model in (first, second):
        trained(model, range(1))
    assert list(state_of(first)) == list(state_of(second))
    assert "model/block/batch_normalization/moving_mean" in state_of(first)
    assert "optimizer/momentum/block/dense/kernel" in state_of(first)


def test_a_layers_generator_is_part_of_the_state() -> None:
    model = keras.Sequential([keras.layers.Dense(2, input_shape=(6,)), keras.layers.Dropout(0.5)])
    (name,) = [n for n in live.of(model).variables if n.startswith("seeds/")]
    assert name == "seeds/dropout/seed"
    seed = live.of(model).variables[name]
    before = live.value(seed)
    drawn = np.array(model(X[:8], training=True))
    seed.assign(before)
    assert np.array_equal(np.array(model(X[:8], training=True)), drawn)


# ---- stateful layers ----


def carrying(library: Any) -> Any:
    layers = library.layers
    inputs = library.Input(batch_shape=(2, 3, 4))
    hidden = layers.GRU(3, stateful=True, return_sequences=True)(inputs)
    hidden = layers.Bidirectional(layers.LSTM(2, stateful=True, return_sequences=True))(hidden)
    hidden = layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)], stateful=True)(hidden)
    model = library.Model(inputs, layers.Dense(2)(hidden))
    model.compile(library.optimizers.SGD(0.1), "mean_squared_error", run_eagerly=True)
    model.train_on_batch(SERIES, np.ones((2, 2), "float32"))
    return model


SERIES = np.random.default_rng(2).normal(size=(2, 3, 4)).astype("float32")
STATES = [
    "states/bidirectional/backward_lstm/0", "states/bidirectional/backward_lstm/1",
    "states/bidirectional/forward_lstm/0", "states/bidirectional/forward_lstm/1",
    "states/gru/0", "states/rnn/0", "states/rnn/1", "states/rnn/2",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_what_stateful_layers_hand_on_is_restored_where_a_format_holds_it(tmp_path: Path) -> None:
    carrying(keras)
    model = carrying(keras)  # names do not depend on what was built before
    for form, file in saved(model, tmp_path).items():
        loaded, proof = resume.load(file)
        fresh = sorted(f.name for f in proof.findings if f.name.startswith("states/"))
        assert fresh == ([] if form == "savedmodel" else STATES), form
        assert proof.verdict == ("exact" if form == "savedmodel" else "partial"), form
    before = {name: live.value(v) for name, v in live.of(model).variables.items() if name in STATES}
    loaded, _ = resume.load(tmp_path / "a")
    found = {name: live.value(v) for name, v in live.of(loaded).variables.items() if name in STATES}
    assert list(found) == list(before)
    assert all(np.array_equal(found[name], before[name]) and before[name].any() for name in STATES)
    assert np.array_equal(np.asarray(loaded(SERIES)), np.asarray(model(SERIES)))
    model.reset_states()
    assert np.array_equal(np.asarray(resume.load(tmp_path / "a.h5")[0](SERIES)), np.asarray(model(SERIES)))


class Namesakes(keras.layers.Layer):
    """Its own weight comes after its sublayer's of the same name, and before it in TensorFlow's object graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = keras.layers.Dense(6, use_bias=False)

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        self.kernel = self.add_weight(shape=(6, 6), name="kernel")
        self.built = True

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs) + inputs @ self.kernel


def test_slots_of_namesakes_within_a_layer_are_not_guessed(tmp_path: Path) -> None:
    def made() -> Any:
        model = keras.Sequential([keras.Input((6,)), Namesakes(), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    model = made()
    data = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    model.fit(data, data[:, :1], verbose=0)
    model.save_weights(str(tmp_path / "a"))
    with pytest.raises(resume.ContinuityError, match="optimizer/"):
        resume.load(tmp_path / "a", model=made())
