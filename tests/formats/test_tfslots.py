"""Every optimizer of Keras 2, legacy and not, and of Keras 3: each slot goes to its owner, bit for bit.

The truth is asked of the live optimizer by its own means: `get_slot`, or its lists in the order of its variables.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.formats import savedmodel, tfcheckpoint

X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)
ROLES = {
    "m": "momentum", "v": "velocity", "vhat": "velocity_hat", "rms": "velocity", "mg": "average_gradient",
    "accum_grad": "accumulated_grad", "accum_var": "accumulated_delta_var", "momentum": "momentum",
    "accumulator": "accumulator", "linear": "linear",
    "_momentums": "momentum", "momentums": "momentum", "_velocities": "velocity", "_velocity_hats": "velocity_hat",
    "_m": "momentum",
    "_u": "norm", "_accumulators": "accumulator", "_linears": "linear", "_accumulated_grads": "accumulated_grad",
    "_accumulated_delta_vars": "accumulated_delta_var", "_average_gradients": "average_gradient", "_r": "r", "_c": "c",
    "_v": "velocity", "_model_variables_moving_average": "average", "_accumulated_gradients": "gradient_accumulator",
}  # fmt: skip
LEGACY = ("Adadelta", "Adagrad", "Adam", "Adamax", "Ftrl", "Nadam", "RMSprop", "SGD")
NEW = (*LEGACY, "Adafactor", "AdamW", "Lion")
KERAS3 = (*NEW, "Lamb", "Muon")
SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}, "Adam": {"amsgrad": True},
}  # fmt: skip


def saved(keras: Any, optimizer: Any, folder: Path) -> tuple[Any, Any]:
    """A trained model, and what the reader makes of its checkpoint."""
    import tensorflow as tf

    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    )
    model.compile(optimizer=optimizer, loss="mean_squared_error", run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            model.train_on_batch(X, Y)
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(folder / "ck"))
    return model, tfcheckpoint.read(folder / "ck")


def owners(model: Any) -> list[tuple[str, Any]]:
    """Canonical names of the trained variables: layers were built in this order."""
    names = [
        "dense/kernel",
        "dense/bias",
        "batch_normalization/gamma",
        "batch_normalization/beta",
        "dense_1/kernel",
    ]
    return list(zip([*names, "dense_1/bias"], model.trainable_variables, strict=True))


def listed(optimizer: Any, named: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Of optimizers that keep a list a role."""
    for attribute, items in vars(optimizer).items():
        if attribute in ROLES and isinstance(items, list):
            for (name, owner), item in zip(named, items, strict=True):
                if (
                    item is not None
                    and item is not owner
                    and (tuple(item.shape) or attribute not in ("_r", "_c"))
                ):
                    yield f"optimizer/{ROLES[attribute]}/{name}", item


def compare(state: Any, expected: dict[str, Any]) -> None:
    slots = {name for name in state.slots if state.specs[name].shape}
    assert slots == set(expected)
    for name, item in expected.items():
        assert state.arrays[name].tobytes() == np.asarray(item.numpy()).tobytes(), name


@pytest.mark.parametrize("kind", LEGACY)
def test_legacy_slots_are_linked_to_their_owners(kind: str, tmp_path: Path) -> None:
    import tf_keras as keras

    optimizer = getattr(keras.optimizers.legacy, kind)(**SETTINGS.get(kind, {}))
    model, state = saved(keras, optimizer, tmp_path)
    roles = {**ROLES, "v": "norm"} if kind == "Adamax" else ROLES
    expected = {
        f"optimizer/{roles[slot]}/{name}": optimizer.get_slot(variable, slot)
        for name, variable in owners(model)
        for slot in optimizer.get_slot_names()
    }
    compare(state, expected)
    assert state.optimizer.class_name == kind
    assert state.optimizer.legacy
    assert state.iterations == 3
    assert float(state.arrays["optimizer/learning_rate"]) == float(optimizer.learning_rate)
    assert "optimizer/hyper/decay" in state.specs
    assert ("optimizer/u_product" in state.specs) == (kind == "Nadam")


@pytest.mark.parametrize("kind", NEW)
def test_slots_of_keras_2_are_told_by_their_names(kind: str, tmp_path: Path) -> None:
    import tf_keras as keras

    optimizer = getattr(keras.optimizers, kind)(use_ema=True, **SETTINGS.get(kind, {}))
    model, state = saved(keras, optimizer, tmp_path)
    compare(state, dict(listed(optimizer, owners(model))))
    assert (state.optimizer.class_name, state.optimizer.legacy, state.flavour) == (kind, False, "tf_keras")
    assert state.iterations == 3
    assert ("optimizer/u_product" in state.specs) == (kind == "Nadam")


@pytest.mark.parametrize("kind", KERAS3)
def test_slots_of_keras_3_are_told_by_their_places(kind: str, tmp_path: Path) -> None:
    import keras

    if not hasattr(keras.optimizers, kind):
        pytest.skip(f"this Keras has no {kind}")
    base = (
        {} if kind == "Muon" else {"use_ema": True, "gradient_accumulation_steps": 2}
    )  # Muon cannot train so
    optimizer = getattr(keras.optimizers, kind)(**base, **SETTINGS.get(kind, {}))
    model, state = saved(keras, optimizer, tmp_path)
    named = owners(model)
    expected = dict(listed(optimizer, named))
    if kind == "Muon":  # keeps slots for some variables only
        for attribute, role in (("momentums", "momentum"), ("adam_velocities", "velocity")):
            slots = zip(named, getattr(optimizer, attribute), strict=True)
            expected |= {f"optimizer/{role}/{name}": slot for (name, _), slot in slots if slot is not None}
    compare(state, expected)
    assert (state.optimizer.class_name, state.flavour) == (kind, "keras")
    assert state.iterations == 3


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_a_loss_scale_is_kept_apart(library: str, tmp_path: Path) -> None:
    import keras
    import tf_keras

    module = {"tf_keras": tf_keras, "keras": keras}[library]
    wrapper = tf_keras.mixed_precision if module is tf_keras else keras.optimizers
    _, state = saved(module, wrapper.LossScaleOptimizer(module.optimizers.Adam()), tmp_path)
    around = {name for name in state.specs if name.startswith("optimizer/loss_scale/")}
    expected = (
        ("current_loss_scale", "good_steps") if module is tf_keras else ("dynamic_scale", "step_counter")
    )
    assert {f"optimizer/loss_scale/{name}" for name in expected} <= around
    assert len(state.slots) == 12
    if module is keras:
        assert state.optimizer.class_name == "LossScaleOptimizer"
        assert state.optimizer.inner.class_name == "Adam"


def test_an_optimizer_that_somebody_named_has_no_class(tmp_path: Path) -> None:
    import tf_keras as keras

    _, state = saved(keras, keras.optimizers.Adam(name="mine"), tmp_path)
    assert state.optimizer is None
    assert any("class is not in this kind of checkpoint" in note for note in state.notes)
    assert len(state.slots) == 12


def test_namesakes_of_which_one_is_frozen_are_not_guessed(tmp_path: Path) -> None:
    import tensorflow as tf
    import tf_keras as keras

    layers = keras.layers
    inputs = layers.Input((3,))
    parts = [keras.Sequential([layers.Dense(3, name="d", input_shape=(3,))], name=name) for name in "ab"]
    parts[0].trainable = False
    model = keras.Model(inputs, layers.Dense(2, name="out")(parts[0](inputs) + parts[1](inputs)))
    model.compile(optimizer=keras.optimizers.SGD(momentum=0.9), loss="mean_squared_error", run_eagerly=True)
    model.train_on_batch(X, Y)
    tf.train.Checkpoint(model=model).write(str(tmp_path / "ck"))
    state = tfcheckpoint.read(tmp_path / "ck")
    assert {name.split("/")[1] for name in state.slots} == {"momentum", "vars"}
    assert any("could not be derived" in note for note in state.notes)
    model.save(tmp_path / "sm", save_format="tf")
    whole = savedmodel.read(tmp_path / "sm")
    (slot,) = (name for name in whole.slots if whole.specs[name].shape == (3, 3))
    assert whole.arrays[slot].tobytes() == model.optimizer.momentums[0].numpy().tobytes()
