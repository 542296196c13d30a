"""Files of tf_keras beside the live objects that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import formats
from resume.formats import h5
from resume.state import TrainState

ROLES = {
    "m": "momentum", "v": "velocity", "vhat": "velocity_hat", "u": "norm", "rms": "velocity", "mg": "average_gradient",
    "accum_grad": "accumulated_grad", "accum_var": "accumulated_delta_var",
}  # fmt: skip


pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


@pytest.fixture(scope="module")
def old() -> Any:
    import tf_keras

    return tf_keras


# ---- architectures: the names are Keras 3's ----


def _sequential(lib: Any, name: str | None = None) -> Any:
    return lib.Sequential([lib.layers.Dense(3), lib.layers.BatchNormalization()], name=name)


def _functional(lib: Any, name: str | None = None) -> Any:
    inputs = lib.layers.Input((3,))
    return lib.Model(inputs, lib.layers.Dense(3)(lib.layers.Dense(4)(inputs)), name=name)


def _on_sequences(build: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def make(lib: Any) -> Any:
        inputs = lib.layers.Input((4, 3))
        return lib.Model(inputs, build(lib, inputs))

    return make


def _nested(lib: Any) -> Any:
    inputs = lib.layers.Input((3,))
    deep = lib.Sequential([_sequential(lib, "deep"), lib.layers.Dense(2)], name="outer")
    return lib.Model(inputs, deep(_functional(lib, "f")(_sequential(lib, "enc")(inputs))))


def _shared(lib: Any) -> Any:
    one, two, model = lib.layers.Input((3,)), lib.layers.Input((3,)), _functional(lib, "twice")
    return lib.Model([one, two], lib.layers.Dense(2)(lib.layers.Concatenate()([model(one), model(two)])))


def _images(lib: Any) -> Any:
    inputs = lib.layers.Input((6, 6, 3))
    hidden = lib.layers.SeparableConv2D(3, 2)(lib.layers.DepthwiseConv2D(2)(inputs))
    return lib.Model(inputs, lib.layers.Conv2DTranspose(2, 2)(lib.layers.PReLU()(hidden)))


def _films(lib: Any) -> Any:
    inputs = lib.layers.Input((3, 5, 5, 2))
    return lib.Model(inputs, lib.layers.ConvLSTM2D(2, 2)(inputs))


ARCHITECTURES: dict[str, Callable[[Any], Any]] = {
    "bidirectional": _on_sequences(
        lambda lib, x: lib.layers.LSTM(2)(
            lib.layers.Bidirectional(lib.layers.LSTM(2, return_sequences=True))(x)
        )
    ),
    "own backward layer": _on_sequences(
        lambda lib, x: lib.layers.Bidirectional(
            lib.layers.GRU(2), backward_layer=lib.layers.GRU(2, go_backwards=True, name="back")
        )(x)
    ),
    "cells": _on_sequences(
        lambda lib, x: lib.layers.RNN(lib.layers.SimpleRNNCell(2))(
            lib.layers.RNN([lib.layers.LSTMCell(2), lib.layers.GRUCell(3)], return_sequences=True)(x)
        )
    ),
    "time distributed": _on_sequences(
        lambda lib, x: lib.layers.TimeDistributed(_sequential(lib, "inside"))(
            lib.layers.TimeDistributed(_functional(lib))(lib.layers.TimeDistributed(lib.layers.Dense(3))(x))
        )
    ),
    "attention": _on_sequences(
        lambda lib, x: lib.layers.LayerNormalization()(lib.layers.MultiHeadAttention(2, 2)(x, x))
    ),
    "recurrent": _on_sequences(
        lambda lib, x: lib.layers.SimpleRNN(2)(lib.layers.GRU(2, return_sequences=True)(x))
    ),
    "einsum": _on_sequences(
        lambda lib, x: lib.layers.EinsumDense("abc,cd->abd", output_shape=(None, 2), bias_axes="d")(x)
    ),
    "nested": _nested,
    "shared": _shared,
    "images": _images,
    "films": _films,
}


@pytest.mark.parametrize("kind", ["h5", "keras"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_are_those_of_the_same_architecture_in_keras_3(
    old: Any, tmp_path: Path, name: str, kind: str
) -> None:
    import keras

    before, now = ARCHITECTURES[name](old), ARCHITECTURES[name](keras)
    before.save(tmp_path / f"before.{kind}")
    now.save(tmp_path / "now.keras")
    state = formats.read(tmp_path / f"before.{kind}")
    assert state.flavour == "tf_keras"
    assert set(state.weights) == set(formats.read(tmp_path / "now.keras").weights)
    _holds_the_weights(state, before)


def _holds_the_weights(state: TrainState, model: Any) -> None:
    assert sorted(state.arrays[n].tobytes() for n in state.weights) == sorted(
        v.numpy().tobytes() for v in model.weights
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_file_of_weights_alone(old: Any, tmp_path: Path, name: str) -> None:
    model = ARCHITECTURES[name](old)
    model.save_weights(tmp_path / "run.h5")
    state = formats.read(tmp_path / "run.h5")
    assert (state.format, state.flavour) == ("weights_h5", "tf_keras")
    assert h5.NO_OPTIMIZER in state.notes
    _holds_the_weights(state, model)
    for canonical, place in state.places.items():
        layer, index = place.rsplit("/", 1)
        found = model.get_layer(layer)
        variables = [*found.trainable_weights, *found.non_trainable_weights]
        assert state.arrays[canonical].tobytes() == variables[int(index)].numpy().tobytes()


def test_layers_of_layers_and_names_with_slashes(old: Any, tmp_path: Path) -> None:
    class Block(old.layers.Layer):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.first, self.second = old.layers.Dense(3, name="one"), old.layers.Dense(2, name="two")

        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

    model = old.Sequential([
        old.layers.Input((3,)), Block(name="block"), old.layers.Dense(3, name="a/b"), old.layers.Dense(1, name="a"),
    ])  # fmt: skip
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "run.h5")
    state = formats.read(tmp_path / "run.h5")
    assert state.weights == (
        "model/block/one/kernel", "model/block/one/bias", "model/block/two/kernel", "model/block/two/bias",
        "model/a/b/kernel", "model/a/b/bias", "model/a/kernel", "model/a/bias",
    )  # fmt: skip
    _holds_the_weights(state, model)
    _holds_the_optimizer(state, model)


# ---- optimizers ----


def _recurrent(lib: Any) -> Any:
    """Nested, recurrent, normalised and frozen."""
    inputs = lib.layers.Input((4, 3))
    hidden = lib.layers.Bidirectional(lib.layers.LSTM(2))(inputs)
    hidden = lib.layers.Dense(3, trainable=False, name="frozen")(hidden)
    return lib.Model(inputs, lib.layers.Dense(1, name="head")(_sequential(lib, "enc")(hidden)))


def _trained(lib: Any, optimizer: Any, model: Any = None) -> Any:
    lib.utils.set_random_seed(3)
    model = model or _recurrent(lib)
    model.compile(optimizer, "mse", run_eagerly=True)
    data = np.random.default_rng(0).normal(size=(3, 8, 4, 3)).astype("float32")
    for batch in data:
        model.train_on_batch(batch, batch[:, 0, :1])
    return model


NEW: dict[str, Callable[[Any], Any]] = {
    "Adadelta": lambda o: o.Adadelta(),
    "Adafactor": lambda o: o.Adafactor(),
    "Adagrad": lambda o: o.Adagrad(),
    "Adam": lambda o: o.Adam(),
    "Adam amsgrad": lambda o: o.Adam(amsgrad=True),
    "Adam averaged": lambda o: o.Adam(use_ema=True),
    "Adam scheduled": lambda o: o.Adam(o.schedules.ExponentialDecay(0.1, 10, 0.5)),
    "AdamW": lambda o: o.AdamW(),
    "Adamax": lambda o: o.Adamax(),
    "Ftrl": lambda o: o.Ftrl(),
    "Lion": lambda o: o.Lion(),
    "Nadam": lambda o: o.Nadam(),
    "RMSprop": lambda o: o.RMSprop(),
    "RMSprop all": lambda o: o.RMSprop(momentum=0.9, centered=True),
    "SGD": lambda o: o.SGD(),
    "SGD momentum": lambda o: o.SGD(momentum=0.9, use_ema=True),
}
LEGACY: dict[str, Callable[[Any], Any]] = {
    "Adadelta": lambda o: o.Adadelta(),
    "Adagrad": lambda o: o.Adagrad(),
    "Adam": lambda o: o.Adam(decay=0.1),
    "Adam amsgrad": lambda o: o.Adam(amsgrad=True),
    "Adamax": lambda o: o.Adamax(),
    "Ftrl": lambda o: o.Ftrl(),
    "Nadam": lambda o: o.Nadam(),
    "RMSprop": lambda o: o.RMSprop(),
    "RMSprop all": lambda o: o.RMSprop(momentum=0.9, centered=True),
    "SGD": lambda o: o.SGD(),
    "SGD momentum": lambda o: o.SGD(momentum=0.9),
}


@pytest.mark.parametrize("name", NEW)
def test_every_slot_of_the_newer_optimizers(old: Any, tmp_path: Path, name: str) -> None:
    model = _trained(old, NEW[name](old.optimizers))
    for kind in ("h5", "keras"):
        model.save(tmp_path / f"run.{kind}")
        state = formats.read(tmp_path / f"run.{kind}")
        assert state.optimizer is not None
        assert (state.optimizer.class_name, state.optimizer.legacy) == (name.split()[0], False)
        _holds_the_weights(state, model)
        _holds_the_optimizer(state, model)
        assert state.unheld == (("optimizer/u_product",) if name == "Nadam" else ())


@pytest.mark.parametrize("name", LEGACY)
def test_every_slot_of_the_legacy_optimizers(old: Any, tmp_path: Path, name: str) -> None:
    model = _trained(old, LEGACY[name](old.optimizers.legacy))
    model.save(tmp_path / "run.h5")
    state = formats.read(tmp_path / "run.h5")
    assert state.optimizer is not None
    assert (state.optimizer.class_name, state.optimizer.legacy) == (name.split()[0], True)
    _holds_the_weights(state, model)
    _holds_the_optimizer(state, model)
    assert ("optimizer/u_product" in state.specs) == (name == "Nadam")


def test_an_archive_lacks_the_state_of_legacy_optimizers(old: Any, tmp_path: Path) -> None:
    _trained(old, old.optimizers.legacy.Adam()).save(tmp_path / "run.keras")
    state = formats.read(tmp_path / "run.keras")
    assert h5.NO_OPTIMIZER in state.notes
    assert (state.slots, state.iterations, state.unheld) == ((), None, ())
    assert state.learning_rate == pytest.approx(0.001)


@pytest.mark.parametrize("kind", ["h5", "keras"])
@pytest.mark.parametrize("legacy", [False, True])
def test_mixed_precision(old: Any, tmp_path: Path, kind: str, legacy: bool) -> None:
    if legacy and kind == "keras":
        pytest.skip("an archive lacks the state of legacy optimizers")
    source = old.optimizers.legacy if legacy else old.optimizers
    old.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = _trained(old, source.Adam())
        model.save(tmp_path / f"run.{kind}")
    finally:
        old.mixed_precision.set_global_policy("float32")
    state = formats.read(tmp_path / f"run.{kind}")
    assert state.optimizer is not None
    assert state.optimizer.class_name == "LossScaleOptimizer"
    assert (state.optimizer.inner.class_name, state.optimizer.legacy) == ("Adam", legacy)
    assert state.unheld == ("optimizer/loss_scale",)
    _holds_the_weights(state, model)
    _holds_the_optimizer(state, model)


def _holds_the_optimizer(state: TrainState, model: Any) -> None:
    """Each slot under the name of the variable that the optimizer keeps it for."""
    named = {state.arrays[n].tobytes(): n.removeprefix("model/") for n in state.weights}
    assert len(named) == len(state.weights)  # every variable has a value of its own, after training
    expected = {
        f"optimizer/{role}/{named[owner.numpy().tobytes()]}": slot.numpy()
        for role, owner, slot in _slots(model)
    }
    assert set(state.slots) == set(expected)
    for name, array in expected.items():
        assert state.arrays[name].tobytes() == array.tobytes(), name
        assert state.specs[name].shape == array.shape
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert state.iterations == int(inner.iterations) > 0
    assert state.notes == ()
    assert "optimizer/vars" not in " ".join(state.specs)


def _slots(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """(role, variable, slot), as the live optimizer has them."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if hasattr(optimizer, "get_slot_names"):
        for raw in optimizer.get_slot_names():
            for variable in model.trainable_variables:
                role = "norm" if (type(optimizer).__name__, raw) == ("Adamax", "v") else ROLES.get(raw, raw)
                yield role, variable, optimizer.get_slot(variable, raw)
        return
    attributes = {
        "_momentums": "momentum", "momentums": "momentum", "_velocities": "velocity", "_velocity_hats": "velocity_hat",
        "_m": "momentum", "_u": "norm", "_average_gradients": "average_gradient", "_accumulators": "accumulator",
        "_linears": "linear", "_accumulated_grads": "accumulated_grad", "_r": "r", "_c": "c", "_v": "velocity",
        "_accumulated_delta_vars": "accumulated_delta_var", "_model_variables_moving_average": "average",
    }  # fmt: skip
    for attribute, role in attributes.items():
        for variable, slot in zip(model.trainable_variables, getattr(optimizer, attribute, ()), strict=False):
            if role not in ("r", "c") or len(variable.shape) > 1:
                yield role, variable, slot


def test_layers_inside_a_users_layer_are_numbered_in_an_archive(old: Any, tmp_path: Path) -> None:
    """An archive tells neither their names nor their order: two of one shape must not be exchanged."""

    class Block(old.layers.Layer):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.z, self.a = old.layers.Dense(3), old.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.a(self.z(x))

    model = _trained(old, "adam", old.Sequential([old.layers.Input((4, 3)), old.layers.Flatten(), Block()]))
    model.save(tmp_path / "run.keras")
    state = formats.read(tmp_path / "run.keras")
    assert {"model/layers/block/a/vars/0", "model/layers/block/z/vars/0"} < set(state.weights)
    assert [n for n in state.specs if n.startswith("optimizer/vars/")] == [
        f"optimizer/vars/{n}" for n in range(1, 9)
    ]
    assert "could not be derived" in state.notes[-1]
    for n, variable in enumerate(model.optimizer.variables):
        (name,) = (name for name, place in state.places.items() if place == f"optimizer/vars/{n}")
        assert state.arrays[name].tobytes() == variable.numpy().tobytes()
