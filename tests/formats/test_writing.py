"""`.h5` files written from arrays and read back with our own reader; targets that are there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resume.errors import UsageError
from resume.formats import h5, writing
from resume.formats.writing import WholeModel

MODEL = {"class_name": "Sequential", "config": {"name": "sequential", "layers": [
    {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 3]}},
    {"class_name": "Dense", "module": "keras.layers", "config": {"name": "dense", "units": 2}},
]}}  # fmt: skip
ADAM = {"class_name": "Adam", "config": {"learning_rate": 0.25}}
KERNEL, BIAS = np.arange(6, dtype="f4").reshape(3, 2), np.array([1, 2], "f4")


def whole(**changed: Any) -> WholeModel:
    known: dict[str, Any] = {
        "keras_version": "3.12.0",
        "backend": "tensorflow",
        "model_config": MODEL,
        "training_config": {"loss": "mse", "optimizer_config": ADAM},
        "layers": [("x", []), ("dense", [("sequential/dense/kernel", KERNEL), ("sequential/dense/bias", BIAS)])],
        "optimizer": [
            ("adam/iteration", np.asarray(4, "i8")),
            ("adam/learning_rate", np.asarray(0.25, "f4")),
            *((f"adam/sequential_dense_{n}", v / 2) for n, v in (("kernel_momentum", KERNEL), ("bias_momentum", BIAS))),
            *((f"adam/sequential_dense_{n}", v * v) for n, v in (("kernel_velocity", KERNEL), ("bias_velocity", BIAS))),
        ],
    }  # fmt: skip
    return WholeModel(**(known | changed))


# ---- the file ----


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    writing.write_h5(tmp_path / "a.h5", whole())
    state = h5.read(tmp_path / "a.h5")
    assert {name: (array.dtype.name, array.tolist()) for name, array in state.arrays.items()} == {
        "model/dense/kernel": ("float32", KERNEL.tolist()),
        "model/dense/bias": ("float32", [1.0, 2.0]),
        "optimizer/iteration": ("int64", 4),
        "optimizer/learning_rate": ("float32", 0.25),
        "optimizer/momentum/dense/kernel": ("float32", (KERNEL / 2).tolist()),
        "optimizer/momentum/dense/bias": ("float32", [0.5, 1.0]),
        "optimizer/velocity/dense/kernel": ("float32", (KERNEL * KERNEL).tolist()),
        "optimizer/velocity/dense/bias": ("float32", [1.0, 4.0]),
    }
    assert (state.keras_version, state.flavour, state.model_config) == ("3.12.0", "keras", MODEL)
    assert state.compile_config == {"loss": "mse", "optimizer_config": ADAM}
    assert state.optimizer is not None
    assert (state.optimizer.class_name, state.notes) == ("Adam", ())


def test_where_everything_is(tmp_path: Path) -> None:
    layers = [("b/c", [("b/w", BIAS)]), ("a", [])]
    writing.write_h5(tmp_path / "a.h5", whole(layers=layers, top=[("scale", np.float32(3))]))
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file.attrs) == {"keras_version", "backend", "model_config", "training_config"}
        assert (file.attrs["keras_version"], file.attrs["backend"]) == ("3.12.0", "tensorflow")
        assert json.loads(file.attrs["model_config"]) == MODEL
        weights = file["model_weights"]
        assert list(weights.attrs["layer_names"]) == ["b/c", "a"]  # the model's order
        assert (weights.attrs["backend"], weights.attrs["keras_version"]) == ("tensorflow", "3.12.0")
        assert set(weights) == {"a", "b", "top_level_model_weights"}
        assert list(weights["b/c"].attrs["weight_names"]) == ["b/w"]
        assert weights["b/c/b/w"][()].tolist() == [1, 2]
        assert list(weights["a"].attrs["weight_names"]) == []
        assert list(weights["top_level_model_weights"].attrs["weight_names"]) == ["scale"]
        assert weights["top_level_model_weights/scale"][()] == 3
        assert list(file["optimizer_weights"].attrs["weight_names"]) == [
            name for name, _ in whole().optimizer
        ]


def test_a_model_without_its_optimizer(tmp_path: Path) -> None:
    writing.write_h5(tmp_path / "a.h5", whole(optimizer=(), training_config=None))
    with h5py.File(tmp_path / "a.h5") as file:
        assert "training_config" not in file.attrs
        assert set(file) == {"model_weights"}
    state = h5.read(tmp_path / "a.h5")
    assert (state.optimizer, state.notes) == (None, (h5.NO_OPTIMIZER,))


def _contents(path: Path) -> dict[str, Any]:
    """Every group and dataset, attributes included."""
    with h5py.File(path) as file:
        found = {"": file, **{name: file[name] for name in _names(file)}}
        return {
            name: (
                {key: np.asarray(value).tolist() for key, value in item.attrs.items()},
                (item.dtype.name, item[()].tolist()) if isinstance(item, h5py.Dataset) else None,
            )
            for name, item in found.items()
        }


def _names(file: Any) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_keras_3_writes_the_same(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    )
    model.compile(keras.optimizers.Adam(), "mean_squared_error")
    model.train_on_batch(KERNEL.T, np.ones((2, 2)))
    optimizer = [(v.path, v.numpy()) for v in model.optimizer.variables]
    layers = [(item.name, [(v.path, v.numpy()) for v in item.weights]) for item in model.layers]
    model.save(tmp_path / "keras.h5")
    theirs = _contents(tmp_path / "keras.h5")
    configs = {name: json.loads(theirs[""][0][name]) for name in ("model_config", "training_config")}
    ours = whole(**configs, keras_version=keras.__version__, layers=layers, optimizer=optimizer)
    writing.write_h5(tmp_path / "ours.h5", ours)
    assert _contents(tmp_path / "ours.h5") == theirs


def test_keras_3_finds_the_weights(tmp_path: Path) -> None:
    import keras

    writing.write_h5(tmp_path / "a.h5", whole())
    model = keras.saving.load_model(tmp_path / "a.h5", compile=False)
    assert [value.tolist() for value in model.get_weights()] == [KERNEL.tolist(), BIAS.tolist()]


def test_long_lists_of_names_are_cut_into_parts(tmp_path: Path) -> None:
    """An attribute of HDF5 holds 64 KiB; Keras numbers the parts."""
    names = [f"layer_{number:03}_{'n' * 290}" for number in range(480)]  # 144000 bytes
    layers = [(name, [(f"{name}/w", np.float32(number))]) for number, name in enumerate(names)]
    optimizer = [("adam/iteration", np.asarray(0, "i8")), *((name, np.float32(1)) for name in names)]
    writing.write_h5(tmp_path / "a.h5", whole(layers=layers, optimizer=optimizer))
    with h5py.File(tmp_path / "a.h5") as file:
        for group, attribute, expected in (
            (file["model_weights"], "layer_names", names),
            (file["optimizer_weights"], "weight_names", [name for name, _ in optimizer]),
        ):
            parts = [key for key in group.attrs if key.startswith(attribute)]
            assert sorted(parts) == [f"{attribute}{number}" for number in range(3)]
            assert [n.decode() for key in sorted(parts) for n in group.attrs[key]] == expected
    state = h5.read(tmp_path / "a.h5")
    assert [float(state.arrays[f"model/{name}/w"]) for name in (names[0], names[123], names[-1])] == [
        0,
        123,
        479,
    ]


def test_configs_of_any_length(tmp_path: Path) -> None:
    long = {**MODEL, "notes": "n" * 200_000}
    writing.write_h5(tmp_path / "a.h5", whole(model_config=long))
    assert h5.read(tmp_path / "a.h5").model_config == long


def test_numpys_numbers_in_configs(tmp_path: Path) -> None:
    given = {**MODEL, "numbers": [np.float32(0.5), np.int64(3), np.bool_(True), np.arange(2)]}
    writing.write_h5(tmp_path / "a.h5", whole(model_config=given))
    assert h5.read(tmp_path / "a.h5").model_config == {**MODEL, "numbers": [0.5, 3, True, [0, 1]]}


def test_what_json_cannot_say(tmp_path: Path) -> None:
    with writing.unfinished(tmp_path / "a.h5") as begun, pytest.raises(TypeError) as caught:
        writing.write_h5(begun, whole(model_config={"a": {1}}))
    assert str(caught.value) == "set in a config cannot be written to an .h5 file"
    assert list(tmp_path.iterdir()) == []


def test_two_variables_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = [("a/w", BIAS), ("b/w", BIAS), ("b/w", BIAS), ("a/w", BIAS)]
    message = "a/w: two variables are called this, which an .h5 file cannot tell apart: write a .keras file."
    with pytest.raises(UsageError) as caught:
        writing.write_h5(tmp_path / "a.h5", whole(layers=[("dense", twice)]))
    assert str(caught.value) == message
    with pytest.raises(UsageError) as caught:
        writing.write_h5(tmp_path / "b.h5", whole(optimizer=twice))
    assert str(caught.value) == message.replace(": write", " (so it is with Adafactor): write")


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("old")
    with pytest.raises(FileExistsError):
        writing.write_h5(tmp_path / "a.h5", whole())
    assert (tmp_path / "a.h5").read_text() == "old"


# ---- whole or not at all ----


def write(path: Path, text: str, *, folder: bool) -> None:
    """A file, or a directory with a file in it."""
    if folder:
        path.mkdir()
    (path / "part" if folder else path).write_text(text)


def text(path: Path) -> str:
    return (path / "part" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True])
def test_a_finished_target_gets_its_name(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "deep" / "er" / "a.keras"
    with writing.unfinished(target) as begun:
        assert (begun.parent, begun.suffix) == (target.parent, ".keras")
        write(begun, "new", folder=folder)
        assert not target.exists()
        writing.publish(begun, target, overwrite=False)
    assert text(target) == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_keeps_the_old(
    tmp_path: Path, folder: bool, error: type[BaseException]
) -> None:
    target = tmp_path / "a.h5"
    target.write_text("old")

    def fail() -> None:
        with writing.unfinished(target) as begun:
            write(begun, "half", folder=folder)
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "old"


def test_nothing_was_begun(tmp_path: Path) -> None:
    with writing.unfinished(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("folder", "taken"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_name_that_is_taken(tmp_path: Path, folder: bool, taken: bool) -> None:
    """Also one that came to be while the file was written."""
    target = tmp_path / "a.keras"

    def attempt() -> None:
        with writing.unfinished(target) as begun:
            write(begun, "new", folder=folder)
            write(target, "old", folder=taken)
            writing.publish(begun, target, overwrite=False)

    with pytest.raises(UsageError) as caught:
        attempt()
    assert str(caught.value) == f"{target}: exists. Name another, or say --force."
    assert text(target) == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_directory_is_not_taken_either(tmp_path: Path) -> None:
    """rename(2) would replace it."""
    with writing.unfinished(tmp_path / "a") as begun:
        write(begun, "new", folder=True)
        (tmp_path / "a").mkdir()
        with pytest.raises(UsageError, match="a: exists"):
            writing.publish(begun, tmp_path / "a", overwrite=False)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_name_that_no_file_can_hold(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^aaa.*\.\.\.: a name of 70000 letters, which no \.h5 file can hold"
    ):
        writing.write_h5(tmp_path / "a.h5", whole(layers=[("a" * 70000, [])]))


@pytest.mark.parametrize(("folder", "taken"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_target_that_is_replaced(tmp_path: Path, folder: bool, taken: bool) -> None:
    target = tmp_path / "a.keras"
    write(target, "old", folder=taken)
    with writing.unfinished(target) as begun:
        write(begun, "new", folder=folder)
        writing.publish(begun, target, overwrite=True)
    assert text(target) == "new"
    assert target.is_dir() is folder
    assert list(tmp_path.iterdir()) == [target]


def test_to_replace_what_is_not_there(tmp_path: Path) -> None:
    with writing.unfinished(tmp_path / "a") as begun:
        write(begun, "new", folder=False)
        writing.publish(begun, tmp_path / "a", overwrite=True)
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_replaced_and_not_what_it_points_to(tmp_path: Path, there: bool) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "a"
    if there:
        elsewhere.write_text("old")
    target.symlink_to(elsewhere)
    with writing.unfinished(target) as begun:
        write(begun, "new", folder=False)
        writing.publish(begun, target, overwrite=True)
    assert not target.is_symlink()
    assert target.read_text() == "new"
    assert (elsewhere.read_text() if there else elsewhere.exists()) == ("old" if there else False)
    assert {path.name for path in tmp_path.iterdir()} == ({"a", "elsewhere"} if there else {"a"})


@pytest.mark.parametrize("taken", [False, True])
def test_a_replacement_that_fails_puts_the_old_back(tmp_path: Path, taken: bool) -> None:
    """What was to take the name is gone."""
    target = tmp_path / "a"
    write(target, "old", folder=taken)
    with pytest.raises(FileNotFoundError):
        writing.publish(tmp_path / "gone", target, overwrite=True)
    assert text(target) == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_was_begun_and_never_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        writing.publish(tmp_path / "gone", tmp_path / "a", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_one_name_in_the_end(tmp_path: Path) -> None:
    with writing.unfinished(tmp_path / "a") as begun:
        write(begun, "new", folder=False)
        writing.publish(begun, tmp_path / "a", overwrite=False)
    assert (tmp_path / "a").stat().st_nlink == 1
