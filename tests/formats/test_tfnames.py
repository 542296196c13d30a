"""What variables are called: models of both generations, in a process that built others before."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.formats import savedmodel, tfcheckpoint

X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)


def names(state: Any) -> set[str]:
    return {name.removeprefix("model/") for name in state.weights}


def dense(*layers: str) -> set[str]:
    return {f"{layer}/{part}" for layer in layers for part in ("kernel", "bias")}


def norm(layer: str) -> set[str]:
    return {f"{layer}/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")}


def cell(layer: str) -> set[str]:
    return {f"{layer}/lstm_cell/{part}" for part in ("kernel", "recurrent_kernel", "bias")}


def nested(keras: Any) -> Any:
    layers = keras.layers
    inputs = layers.Input((3,))
    inner = keras.Sequential([layers.Input((3,)), layers.Dense(3), layers.BatchNormalization()], name="enc")
    hidden = layers.Dense(3, name="mid", trainable=False)(inner(inputs))
    return keras.Model(inputs, layers.Dense(2, name="head")(hidden))


def both_ways(keras: Any) -> Any:
    layers = keras.layers
    wrapped = layers.Bidirectional(layers.LSTM(2, name="seq"), name="both")
    return keras.Sequential(
        [layers.Input((3,)), layers.Reshape((3, 1)), wrapped, layers.Dense(2, name="head")]
    )


def recurrent(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([layers.Input((3,)), layers.Reshape((3, 1)), layers.LSTM(2)])


def subclassed(keras: Any) -> Any:
    layers = keras.layers

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = layers.Dense(4), layers.BatchNormalization()
            self.rest = [layers.Dense(3), layers.Dense(2)]
            self.shift = self.add_weight(shape=(2,), name="shift")

        def call(self, x: Any, training: bool = False) -> Any:
            x = self.norm(self.first(x), training=training)
            for layer in self.rest:
                x = layer(x)
            return x + self.shift

    return Net()


@pytest.fixture(params=["tf_keras", "keras"])
def library(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def saved(library: Any, make: Callable[[Any], Any], folder: Path) -> tuple[Any, Any]:
    import tensorflow as tf

    (
        library.layers.Dense(1),
        library.layers.BatchNormalization(),
        library.layers.LSTM(1),
    )  # takes the first numbers
    model = make(library)
    model.compile(optimizer="adam", loss="mean_squared_error", run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train_on_batch(X, Y)
    tf.train.Checkpoint(model=model).write(str(folder / "ck"))
    return model, tfcheckpoint.read(folder / "ck")


def check(model: Any, state: Any) -> None:
    """Each place leads to the live variable that the array was taken from."""
    from tensorflow.python.checkpoint.graph_view import ObjectGraphView

    view = ObjectGraphView(model)
    for name, place in state.places.items():
        here = model
        for edge in place.split("/"):
            here = {child.name: child.ref for child in view.list_children(here)}[edge]
        assert state.arrays[name].tobytes() == here.numpy().tobytes(), name


def test_a_nested_model_without_its_architecture(library: Any, tmp_path: Path) -> None:
    model, state = saved(library, nested, tmp_path)
    inner = "enc/" if library.__name__ == "keras" else ""  # Keras 2's names do not tell what is inside what
    assert names(state) == dense(f"{inner}dense", "mid", "head") | norm(f"{inner}batch_normalization")
    assert len(state.places) == len(state.weights)
    check(model, state)


def test_a_nested_model_with_its_architecture(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    model, _ = saved(keras, nested, tmp_path)
    model.save(tmp_path / "sm", save_format="tf")
    state = savedmodel.read(tmp_path / "sm")
    assert names(state) == dense("enc/dense", "mid", "head") | norm("enc/batch_normalization")
    check(model, state)


def test_a_layer_in_both_directions(library: Any, tmp_path: Path) -> None:
    model, state = saved(library, both_ways, tmp_path)
    assert names(state) == dense("head") | cell("both/forward_seq") | cell("both/backward_seq")
    check(model, state)


def test_a_model_of_one_layer_keeps_the_layers_name(library: Any, tmp_path: Path) -> None:
    model, state = saved(library, recurrent, tmp_path)
    assert names(state) == cell("lstm")
    check(model, state)


def test_a_subclassed_model_loses_its_own_name(library: Any, tmp_path: Path) -> None:
    model, state = saved(library, subclassed, tmp_path)
    assert names(state) == {*dense("dense", "dense_1", "dense_2"), *norm("batch_normalization"), "shift"}
    check(model, state)
    slots = {name.split("/", 2)[2] for name in state.slots}
    assert slots == names(state) - {f"batch_normalization/moving_{part}" for part in ("mean", "variance")}


def test_variables_without_a_scope_belong_to_their_layer(tmp_path: Path) -> None:
    import tensorflow as tf

    keras = pytest.importorskip("tf_keras")

    class Scale(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.factor = tf.Variable(tf.ones(shape[-1]))
            self.add_weight(name="offset", shape=(shape[-1],))
            super().build(shape)

        def call(self, x: Any) -> Any:
            return x * self.factor

    def make(library: Any) -> Any:
        return library.Sequential(
            [library.layers.Dense(2, input_shape=(3,)), Scale(name="one"), Scale(name="two")]
        )

    model, state = saved(keras, make, tmp_path)
    scales = {f"{layer}/{part}" for layer in ("one", "two") for part in ("Variable", "offset")}
    assert names(state) == dense("dense") | scales
    check(model, state)


def test_seeds_are_told_from_weights(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    keras.backend.experimental.enable_tf_random_generator()
    model = keras.Sequential(
        [keras.layers.Dropout(0.5, input_shape=(3,), name="drop"), keras.layers.Dense(2)]
    )
    model.compile(optimizer="sgd", loss="mean_squared_error", run_eagerly=True)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "sm", save_format="tf")
    state = savedmodel.read(tmp_path / "sm")
    assert names(state) == dense("dense")
    assert state.specs["seeds/drop/seed"].dtype == "int64"
    live = model.layers[0]._random_generator._generator.state.numpy()
    assert state.arrays["seeds/drop/seed"].tobytes() == live.tobytes()
