"""What a restore has to do beside assigning variables."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from small import save

import resume
from resume.engine import capture, live, loop, restore
from resume.errors import ContinuityError, SourceError
from resume.formats import native
from resume.state import STORABLE, Spec

X = np.random.default_rng(0).normal(5, 3, (32, 3)).astype("float32")


def adapted(library: Any) -> Any:
    normal = library.layers.Normalization()
    normal.adapt(X)
    inputs = library.Input((3,))
    model = library.Model(inputs, library.layers.Dense(1)(normal(inputs)))
    model.compile("sgd", library.losses.MeanSquaredError())
    model.train_on_batch(X, X[:, :1])
    return model


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_normalization_computes_with_what_was_restored(name: str, tmp_path: Path) -> None:
    """It keeps constants made of its mean and variance, and computes with those."""
    for library in (keras, tf_keras) if name == "a.h5" else (keras,):
        model = adapted(library)
        path = save(model, tmp_path / f"{library.__name__}_{name}")
        loaded, proof = resume.load(path)
        assert proof.verdict == "exact"
        np.testing.assert_array_equal(np.array(loaded(X)), np.array(model(X)))


def test_a_weights_file_of_keras_2_holds_no_learning_rate(tmp_path: Path) -> None:
    """Keras 2 keeps it in the settings: it is the given model's, and that is said."""

    def model() -> Any:
        made = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(3,))])
        made.compile(tf_keras.optimizers.Adam(0.25), "mse")
        return made

    trained = model()
    trained.train_on_batch(X, X[:, :1])
    trained.save_weights(tmp_path / "a.weights.h5", save_format="h5")
    written = tf_keras.src.saving.saving_lib  # the newer kind of weights file
    written.save_weights_only(trained, tmp_path / "b.weights.h5")
    _, proof = resume.load(tmp_path / "b.weights.h5", model=model())
    assert proof.verdict == "partial"
    assert [f.name for f in proof.findings] == ["optimizer/learning_rate"]
    assert proof.iterations_restored == 1


def test_a_rate_of_zero_in_a_file_without_settings(tmp_path: Path) -> None:
    def model() -> keras.Model:
        made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        made.compile("adam", keras.losses.MeanSquaredError())
        return made

    trained = model()
    trained.train_on_batch(X, X[:, :1])
    trained.optimizer.learning_rate = 0.0
    trained.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(SourceError, match="learning_rate: is 0: no step would change anything"):
        resume.load(tmp_path / "a.weights.h5", model=model())
    accepted = ["optimizer/learning_rate"]
    assert resume.load(tmp_path / "a.weights.h5", model=model(), accept=accepted)[1].verdict == "exact"


def test_a_name_that_means_another_layer_in_this_process_is_refused(tmp_path: Path) -> None:
    """The user's dense_1 and dense_2 and Keras's own count, which goes on."""

    def named_like_keras() -> keras.Model:
        given = [
            keras.layers.Dense(6, name="dense_1"),
            keras.layers.Dense(6, name="dense_2"),
            keras.layers.Dense(6),
        ]
        model = keras.Sequential([keras.Input((6,)), *given])
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    keras.utils.clear_session()
    native.write(tmp_path, capture.capture(named_like_keras(), epoch=1, batch=0))
    keras.utils.clear_session()
    assert restore.restore(named_like_keras(), native.read(tmp_path)).verdict == "exact"
    for _ in range(2):
        keras.layers.Dense(6)
    with pytest.raises(
        ContinuityError, match=r"model/dense_1/kernel is \w+/dense_1/kernel there and \w+/dense_2/kernel here"
    ):
        restore.restore(named_like_keras(), native.read(tmp_path))


def large(library: Any = keras, units: int = 300) -> Any:
    """Arrays that are read into memory of their own, in several dtypes."""
    kinds = (
        ("float32", "float16", "bfloat16", "float64")
        if library is keras
        else ("float32", "float16", "float64")
    )
    layers = [library.layers.Dense(units, dtype=kind, name=f"a_{kind}") for kind in kinds]
    model = library.Sequential([library.Input((units,)), *layers])
    model.compile(library.optimizers.Adam(0.01), "mse")
    return model


NOISE = np.random.default_rng(1).normal(size=(2, 8, 300)).astype("float32")


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_large_arrays_are_the_variables_own(library: Any, tmp_path: Path) -> None:
    """They stay as they are when the checkpoint is overwritten, and a next step goes on from them."""
    trained, other = large(library), large(library)
    trained.train_on_batch(*NOISE)
    (tmp_path / "a").mkdir()
    native.write(tmp_path / "a", capture.capture(trained, epoch=1, batch=0))
    file = tmp_path / "a" / "state.safetensors"
    loop.build_optimizer(other)
    proof = restore.restore(other, native.read(tmp_path / "a"))
    assert proof.verdict == "exact", proof.lines()
    file.write_bytes(bytes(file.stat().st_size))
    for model in (trained, other):
        model.train_on_batch(*NOISE)
    ours, theirs = (capture.capture(model, epoch=0, batch=2).specs for model in (trained, other))
    assert {n: s for n, s in ours.items() if n in theirs} == theirs


def test_a_damaged_large_array_is_named(tmp_path: Path) -> None:
    trained, other = large(), large()
    trained.train_on_batch(*NOISE)
    (tmp_path / "a").mkdir()
    native.write(tmp_path / "a", capture.capture(trained, epoch=1, batch=0))
    file = tmp_path / "a" / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-300_000] ^= 1
    file.write_bytes(data)
    loop.build_optimizer(other)
    with pytest.raises(SourceError, match="is damaged, its digest does not match"):
        restore.restore(other, native.read(tmp_path / "a"))


class Scaled(keras.layers.Layer):
    """Whose variable is of the user's own kind."""

    def build(self, shape: Any) -> None:
        self.scale = Counted(np.ones((200, 200), "float32"), name="scale")

    def call(self, x: Any) -> Any:
        return x * self.scale[0, 0]


class Counted(keras.Variable):
    assigned = 0

    def assign(self, value: Any) -> Any:
        type(self).assigned += 1
        return super().assign(value)


def test_a_variable_of_the_users_own_kind_is_assigned_by_its_own_code(tmp_path: Path) -> None:
    def model() -> keras.Model:
        made = keras.Sequential([keras.Input((16,)), Scaled(), keras.layers.Dense(1, name="head")])
        made.compile("sgd", "mse")
        return made

    saved = model()
    saved.layers[0].scale.assign(np.full((200, 200), 3.0))
    (tmp_path / "a").mkdir()
    native.write(tmp_path / "a", capture.capture(saved, epoch=1, batch=0))
    other, before = model(), Counted.assigned
    loop.build_optimizer(other)
    assert restore.restore(other, native.read(tmp_path / "a")).verdict != "broken"
    assert Counted.assigned == before + 1
    assert other.layers[0].scale.numpy()[7, 9] == 3


@pytest.mark.parametrize("dtype", sorted(STORABLE))
def test_memory_of_every_dtype(dtype: str) -> None:
    spec, noise = Spec(dtype, (5, 1024)), np.random.default_rng(0).integers(0, 2, 5 * 1024 * 16, "uint8")
    bytes_of = noise[: spec.nbytes]

    def fill(memory: np.ndarray[Any, Any]) -> None:
        memory[:] = bytes_of

    found = live.on_host(live.filled(spec, fill))
    assert (found.dtype.name, found.shape) == (dtype, spec.shape)
    assert found.tobytes() == bytes_of.tobytes()


TWO_DEVICES = """
import sys
from pathlib import Path
from resume.engine import devices, live, restore, snapshot
from resume.formats import native
strategy = devices.choose("cpu", logical_cpus=2).strategy
import keras
import numpy as np

def made():
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(20_000), layers.BatchNormalization(name="large"),
                              layers.Dense(3), layers.BatchNormalization(name="small"), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    return model

with strategy.scope():
    saved, other = made(), made()
x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
saved.fit(x, x[:, :1], batch_size=8, epochs=2, verbose=0)
other.fit(x[::-1] * 3, x[:, :1], batch_size=8, epochs=1, verbose=0)
place = Path(sys.argv[1])
native.write(place, snapshot.settled(snapshot.Snapshots(saved).take(epoch=1, batch=1, progress={})))
state = native.read(place)
assert {"model/large/moving_mean@replica1", "model/small/moving_mean@replica1"} <= state.specs.keys()
for _ in range(5):
    with strategy.scope():
        proof = restore.restore(other, state)
    assert proof.verdict != "broken", proof.lines()
    found = live.of(other).variables
    for name in state.specs:
        assert np.array_equal(state.arrays[name], live.value(found[name])), name
"""


def test_each_devices_own_copy_is_put_back(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]]
) -> None:
    """Large ones are assigned by other threads than what sets all copies at once."""
    (tmp_path / "a").mkdir()
    process = python(TWO_DEVICES, tmp_path / "a")
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
