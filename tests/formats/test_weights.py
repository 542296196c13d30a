"""Files of weights alone: positions lead to the live variables, names as far as the file tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import h5, keras, weights

X, Y = np.ones((4, 4, 3), "float32"), np.ones((4, 1), "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    """Trained for three steps, and saved as weights and whole."""
    import keras as library

    layers = library.layers
    layers.Bidirectional(
        layers.LSTM(1)
    )  # so that automatic names have numbers, as in a process that built others
    inputs = layers.Input((4, 3))
    inner = library.Sequential([layers.Dense(3), layers.BatchNormalization()], name="enc")
    hidden = layers.MultiHeadAttention(1, 2)(
        layers.Bidirectional(layers.LSTM(2, return_sequences=True))(inputs), inputs
    )
    built = library.Model(inputs, layers.Dense(1, name="head")(layers.GRU(3)(inner(hidden))))
    built.compile("adam", "mean_squared_error")
    built.fit(X, Y, batch_size=4, epochs=3, verbose=0)
    built.save_weights(folder / "run.weights.h5")
    built.save(folder / "run.keras")
    return built


def test_layers_of_keras_are_named_as_in_an_archive(model: Any, folder: Path) -> None:
    state, whole = weights.read(folder / "run.weights.h5"), keras.read(folder / "run.keras")
    assert (state.format, state.flavour, state.model_config) == ("weights_h5", "keras", None)
    assert set(state.weights) == set(whole.weights)
    for name in state.weights:
        assert state.arrays[name].tobytes() == whole.arrays[name].tobytes(), name


def test_the_optimizer_is_numbered_but_for_its_scalars(model: Any, folder: Path) -> None:
    state = weights.read(folder / "run.weights.h5")
    for n, variable in enumerate(model.optimizer.variables):
        (name,) = (name for name, place in state.places.items() if place == f"optimizer/vars/{n}")
        assert state.arrays[name].tobytes() == variable.numpy().tobytes()
        assert name == {0: "optimizer/iteration", 1: "optimizer/learning_rate"}.get(n, f"optimizer/vars/{n}")
    assert (state.iterations, state.learning_rate) == (3, pytest.approx(0.001))
    assert state.notes == (
        weights.NO_MODEL,
        "the optimizer's variables have no names in this file: they are numbered",
    )


def test_files_of_keras_before_3_6_have_addresses_only(model: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.weights.h5"
    path.write_bytes((folder / "run.weights.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.visititems(lambda _, item: item.attrs.clear())
    state = weights.read(path)
    assert "model/layers/sequential/layers/dense/vars/0" in state.specs
    assert state.places["model/layers/dense/vars/1"] == "layers/dense/vars/1"
    assert "numbered" in state.notes[1]


def _stores(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for address, value in arrays.items():
            file[address] = value
    return path


A, B = np.ones((2,), "float32"), np.zeros((2,), "float32")


def test_keras_2_writes_metrics_and_no_learning_rate(tmp_path: Path) -> None:
    arrays = {
        "layers/dense/vars/0": A,
        "metrics/mean/vars/0": B,
        "optimizer/vars/0": 5,
        "optimizer/vars/1": np.float32(1),
    }
    state = weights.read(_stores(tmp_path / "a.weights.h5", arrays))
    assert state.flavour == "tf_keras"
    assert sorted(state.specs) == ["model/layers/dense/vars/0", "optimizer/iteration", "optimizer/vars/1"]


def test_nothing_tells_the_generation(tmp_path: Path) -> None:
    state = weights.read(_stores(tmp_path / "a.weights.h5", {"layers/dense/vars/0": A}))
    assert state.flavour is None
    assert h5.NO_OPTIMIZER in state.notes


def test_windows_put_backslashes_between_layers(tmp_path: Path) -> None:
    arrays = {
        "dec\\_layer_checkpoint_dependencies\\dense/vars/0": A,
        "dec\\_layer_checkpoint_dependencies\\dense_1/vars/0": B,
    }
    state = weights.read(_stores(tmp_path / "a.weights.h5", arrays))
    assert sorted(state.places.values()) == ["dec/layers/dense/vars/0", "dec/layers/dense_1/vars/0"]
    (second,) = (name for name, place in state.places.items() if "dense_1" in place)
    assert state.arrays[second].tolist() == B.tolist()


def test_a_loss_scale_stands_before_the_inner_optimizer(tmp_path: Path) -> None:
    scalars = {f"optimizer/vars/{n}": np.float32(n) for n in range(6)}
    inner = {f"optimizer/inner_optimizer/vars/{n}": np.float32(n + 4) for n in range(2)}
    state = weights.read(_stores(tmp_path / "a.weights.h5", {"layers/dense/vars/0": A, **scalars, **inner}))
    assert state.raw_names["optimizer/loss_scale/dynamic_scale"] == "optimizer/vars/3"
    assert (state.iterations, state.learning_rate) == (4, 5.0)


def test_scalar_weights_leave_the_learning_rate_open(tmp_path: Path) -> None:
    arrays = {"layers/mine/vars/0": np.float32(1), "optimizer/vars/0": 5, "optimizer/vars/1": np.float32(1)}
    state = weights.read(_stores(tmp_path / "a.weights.h5", arrays))
    assert "optimizer/vars/1" in state.specs
    assert state.learning_rate is None


def test_weights_of_keras_2(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"], file.attrs["keras_version"] = [b"lstm_3", b"enc"], b"2.3.1"
        for layer, names in {"lstm_3": ["lstm_3/bias:0"], "enc": ["dense_9/kernel:0"]}.items():
            file.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                file[f"{layer}/{name}"] = A
    assert weights.holds(path)
    state = weights.read(path)
    assert (state.flavour, state.keras_version) == ("tf_keras", "2.3.1")
    assert state.places == {"model/lstm/lstm_cell/bias": "lstm_3/0", "model/enc/dense_9/kernel": "enc/0"}
    assert state.notes == (weights.NO_MODEL, h5.NO_OPTIMIZER)


def test_holds_goes_by_content(model: Any, folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "run.keras"
    renamed.write_bytes((folder / "run.weights.h5").read_bytes())
    assert weights.holds(renamed)
    assert not weights.holds(folder / "run.keras")
    assert not weights.holds(_stores(tmp_path / "data.h5", {"images": A}))
    assert not weights.holds(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"layers/dense/vars/1": A}, r"layers/dense/vars holds \['1'\], which is not 0, 1, 2"),
        ({"layers/dense/vars/0": A, "optimizer/vars/0": np.float32("nan")}, "the iteration count, is nan"),
        ({"a\\b/vars/0": A, "a/b/vars/0": A}, "a/b is there twice"),
    ],
)
def test_damage_is_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        weights.read(_stores(tmp_path / "a.weights.h5", arrays))
