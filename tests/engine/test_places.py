"""Positions lead to the live variable that the format means, whatever the names are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from small import classifier

import resume
from resume.engine import live, places
from resume.errors import ContinuityError
from resume.state import Arrays, TrainState


def state(form: str, wanted: dict[str, str], flavour: str) -> TrainState:
    return TrainState(form, Path("a"), Arrays.of({}), flavour=flavour, places=wanted)


def shared(library: Any) -> Any:
    """A layer used twice, a nested model used twice, and a list of layers inside a layer."""
    layers = library.layers
    inner = library.Sequential(
        [layers.Dense(4, name="one"), layers.BatchNormalization(name="two")], name="inner"
    )
    x = layers.Input((4,), name="x")
    twice = layers.Dense(4, name="twice")
    out = layers.Dense(2, name="out")(inner(inner(twice(twice(x)))))
    return library.Model(x, out)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", [keras, tf_keras])
def test_every_address_of_an_archive_is_found(tmp_path: Path, library: Any) -> None:
    model = shared(library)
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 4), "float32"), np.ones((2, 2), "float32"))
    model.save(tmp_path / "a.keras")
    source = resume.read(tmp_path / "a.keras")
    found = places.of(model, source)
    assert set(found) == set(source.places.values())
    for name, place in source.places.items():
        assert np.array_equal(source.arrays[name], live.value(found[place])), name


@pytest.mark.filterwarnings("ignore")
def test_every_index_of_an_h5_of_keras_2_is_found(tmp_path: Path) -> None:
    model = shared(tf_keras)
    model.save(tmp_path / "a.h5")
    source = resume.read(tmp_path / "a.h5")
    found = places.of(model, source)
    assert set(found) == set(source.places.values())
    for name, place in source.places.items():
        assert np.array_equal(source.arrays[name], live.value(found[place])), name


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_edges_lead_where_tensorflow_would_restore(tmp_path: Path, library: Any) -> None:
    model = shared(library)
    prefix = tf.train.Checkpoint(model).save(str(tmp_path / "ckpt"))
    reader = tf.train.load_checkpoint(prefix)
    keys = [k for k in reader.get_variable_to_shape_map() if k.endswith("/.ATTRIBUTES/VARIABLE_VALUE")]
    wanted = {
        k: k.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for k in keys if not k.startswith("save_counter")
    }
    found = places.of(model, state("tf_checkpoint", wanted, "tf_keras"))
    assert len(found) == len(wanted) >= 8
    for key, place in wanted.items():
        assert np.array_equal(reader.get_tensor(key), found[place].numpy()), key


def test_a_place_that_the_model_lacks_is_left_out() -> None:
    model = classifier()
    assert places.of(model, state("keras", {"model/x": "layers/nowhere/vars/0"}, "keras")) == {}
    assert places.of(model, state("savedmodel", {"model/x": "layer_with_weights-9/kernel"}, "keras")) == {}


def by_attributes(library: Any) -> Any:
    class Net(library.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.b, self.a = library.layers.Dense(3), library.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.b(self.a(x))

    model = Net()
    model(np.ones((2, 3), "float32"))
    model.compile("adam", "mean_squared_error")
    return model


@pytest.mark.filterwarnings("ignore")
def test_a_subclassed_model_of_keras_2_moves_in_two_steps(tmp_path: Path) -> None:
    model = by_attributes(tf_keras)
    model.train_on_batch(np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    model.save(tmp_path / "a.keras")
    named = {"custom_objects": {"Net": type(model)}}
    with pytest.raises(ContinuityError) as refused:
        resume.convert(tmp_path / "a.keras", tmp_path / "b.keras", model=by_attributes(keras), **named)
    assert str(refused.value) == (
        f"{tmp_path}/a.keras: the layers of a subclassed model have no names in this kind of file of Keras 2, and"
        " Keras 3 looks for them elsewhere (layers/dense/vars/0 is nowhere in the model given).\n"
        "Move it in two steps: with the model in tf_keras to a checkpoint of ours, which has names, and that one:\n"
        f"  python -m resume convert {tmp_path}/a.keras STEP --keras 2 --model MODULE:FUNCTION_IN_TF_KERAS\n"
        "  python -m resume convert STEP TARGET.keras --model MODULE:FUNCTION_IN_KERAS_3"
    )
    step, moved = tmp_path / "step", by_attributes(keras)
    resume.convert(tmp_path / "a.keras", step, model=by_attributes(tf_keras), flavour="tf_keras", **named)
    assert resume.convert(step, tmp_path / "b.keras", model=moved, **named).proof.verdict == "exact"
    x = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
    assert np.allclose(np.asarray(moved(x)), np.asarray(model(x)), atol=1e-6)
    assert np.array_equal(moved.b.kernel.numpy(), model.b.kernel.numpy())


class Box(keras.layers.Layer):  # type: ignore[misc]
    """Variables and layers in containers of any depth, and a variable under a name of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dense = keras.layers.Dense
        self.mine = {"x": dense(3), "y": [dense(3), dense(3)]}
        self.listed = [dense(3), [dense(3)]]

    def build(self, shape: Any) -> None:
        for layer in (self.mine["x"], *self.mine["y"], self.listed[0], *self.listed[1]):
            layer.build(shape)
        self.held = {"a": self.add_weight(shape=(3,), name="w"), "b": [self.add_weight(shape=(3,), name="w")]}
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        store["first"], store["second"] = self.held["a"], self.held["b"][0]

    def load_own_variables(self, store: Any) -> None:
        raise AssertionError("the arrays are assigned by us")

    def call(self, x: Any) -> Any:
        x = self.mine["x"](x) * self.held["a"] + self.held["b"][0]
        for layer in (*self.mine["y"], self.listed[0], *self.listed[1]):
            x = layer(x)
        return x


@pytest.mark.filterwarnings("ignore")
def test_variables_in_containers_and_under_names_of_their_own(tmp_path: Path) -> None:
    def build() -> Any:
        model = keras.Sequential([keras.Input((3,)), Box(name="box"), keras.layers.Dense(3)])
        model.compile("adam", "mean_squared_error")
        model.train_on_batch(np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
        return model

    model, x = build(), np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)
    model.save(tmp_path / "a.keras")
    loaded, proof = resume.load(tmp_path / "a.keras", custom_objects={"Box": Box})
    assert (proof.verdict, proof.findings) == ("exact", ())
    assert np.array_equal(np.asarray(loaded(x)), np.asarray(model(x)))
    model.save_weights(tmp_path / "a.weights.h5")
    other = build()
    proof = resume.load(tmp_path / "a.weights.h5", model=other)[1]
    assert (proof.verdict, proof.findings) == ("exact", ())
    assert np.array_equal(np.asarray(other(x)), np.asarray(model(x)))
