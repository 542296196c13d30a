"""Whole-model .h5 files: every array is the live variable that its name says, and damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import h5

WRITABLE = [
    "adam", "adamw_amsgrad", "sgd", "rmsprop", "lion", "nadam", "muon", "ema_accumulation", "loss_scale", "schedule",
    "mixture",
]  # fmt: skip


@pytest.mark.parametrize("name", WRITABLE)
def test_every_array_is_the_variable_it_claims_to_be(runs: dict[str, Any], name: str) -> None:
    run = runs[name]
    state = h5.read(run.h5)
    truth = dict(run.weights) | dict(run.optimizer)
    assert sorted(state.raw_names.values()) == sorted(truth)
    for canonical, raw in state.raw_names.items():
        assert state.arrays[canonical].tobytes() == truth[raw].tobytes(), (canonical, raw)
        assert state.specs[canonical].shape == truth[raw].shape
        assert state.specs[canonical].dtype == truth[raw].dtype.name


@pytest.mark.parametrize("name", WRITABLE)
def test_each_slot_names_the_variable_that_keras_made_it_for(runs: dict[str, Any], name: str) -> None:
    state = h5.read(runs[name].h5)
    for slot in state.slots:
        _, role, variable = slot.split("/", 2)
        owner = state.raw_names[f"model/{variable}"].replace("/", "_")
        assert state.raw_names[slot].rpartition("/")[2] == f"{owner}_{role}"


def test_names_do_not_depend_on_what_the_process_built_before(runs: dict[str, Any]) -> None:
    first, later = h5.read(runs["adam"].h5), h5.read(runs["schedule"].h5)
    assert first.weights == later.weights
    assert first.weights[:4] == (
        "model/dense/kernel",
        "model/dense/bias",
        "model/dense_1/kernel",
        "model/dense_1/bias",
    )
    assert "optimizer/momentum/dense/kernel" in later.specs


def test_names_of_keras_3_0_lack_the_layer(runs: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    shutil.copy(runs["adam"].h5, path)
    with h5py.File(path, "r+") as file:
        for layer in file["model_weights"].values():
            for name in list(layer.attrs["weight_names"]):
                file.copy(layer[name], layer, name.rpartition("/")[2])
            layer.attrs["weight_names"] = [name.rpartition("/")[2] for name in layer.attrs["weight_names"]]
    bare, full = h5.read(path), h5.read(runs["adam"].h5)
    assert list(bare.specs) == list(full.specs)
    assert all(bare.arrays[n].tobytes() == full.arrays[n].tobytes() for n in full.specs)
    assert bare.notes == ()


def test_what_the_file_says_of_the_run(runs: dict[str, Any]) -> None:
    state = h5.read(runs["adam"].h5)
    assert (state.format, state.iterations, state.epoch, state.batch) == ("h5", 3, None, None)
    assert state.learning_rate == pytest.approx(0.001)
    assert state.optimizer is not None
    assert state.optimizer.class_name == "Adam"
    assert state.model_config is not None
    assert state.model_config["class_name"] == "Sequential"
    assert state.compile_config is not None
    assert state.compile_config["loss"] == "mean_squared_error"
    assert state.notes == ()


def test_raw_counter_under_gradient_accumulation(runs: dict[str, Any]) -> None:
    assert h5.read(runs["ema_accumulation"].h5).iterations == 3


def test_schedule_has_no_learning_rate_variable(runs: dict[str, Any]) -> None:
    state = h5.read(runs["schedule"].h5)
    assert state.learning_rate is None
    assert "optimizer/learning_rate" not in state.specs


def test_loss_scale_stands_beside_the_inner_optimizer(runs: dict[str, Any]) -> None:
    state = h5.read(runs["loss_scale"].h5)
    scale = [name[21:] for name in state.specs if name.startswith("optimizer/loss_scale/")]
    assert scale == ["iteration", "learning_rate", "step_counter", "dynamic_scale"]
    assert state.iterations == 3
    assert state.optimizer is not None
    assert state.optimizer.inner.class_name == "Adam"


def test_nadams_nameless_product(runs: dict[str, Any]) -> None:
    assert "optimizer/u_product" in h5.read(runs["nadam"].h5).specs


def test_nested_and_shared_layers(runs: dict[str, Any]) -> None:
    state = h5.read(runs["mixture"].h5)
    assert "model/enc/dense_1/kernel" in state.specs  # the shared one was made first
    assert "model/dense/kernel" in state.specs
    assert "optimizer/velocity/bidirectional/forward_lstm/lstm_cell/kernel" in state.specs
    assert "model/frozen/kernel" in state.specs
    assert "optimizer/momentum/frozen/kernel" not in state.specs


def test_saved_without_optimizer(runs: dict[str, Any]) -> None:
    state = h5.read(runs["uncompiled"].h5)
    assert state.optimizer is None
    assert state.iterations is None
    assert state.notes == ("this file was saved without its optimizer",)


def _edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def _set(name: str, value: Any) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        group = file["optimizer_weights"]
        target = next(n for n in group.attrs["weight_names"] if n.endswith(name))
        del group[target]
        group[target] = value

    return _edit(change)


def _link(link: Any) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file["model_weights/dense"]
        file["model_weights/dense"] = link

    return _edit(change)


def _future(file: h5py.File) -> None:
    file.attrs["keras_version"] = "4.0.0"


def _no_config(file: h5py.File) -> None:
    del file.attrs["model_config"]


def _bad_json(file: h5py.File) -> None:
    file.attrs["model_config"] = "{"


def _no_optimizer(file: h5py.File) -> None:
    del file["optimizer_weights"]


def _no_slot(file: h5py.File) -> None:
    del file["optimizer_weights/adam/sequential_dense_kernel_momentum"]


def _virtual(file: h5py.File) -> None:
    address = "model_weights/dense/sequential/dense/bias"
    del file[address]
    layout = h5py.VirtualLayout(shape=(3,), dtype="float32")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(3,))
    file.create_virtual_dataset(address, layout)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "the file is empty"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "damaged or was cut off"),
    "magic": (lambda p: p.write_bytes(b"not hdf5" * 100), "not an HDF5 file"),
    "json": (_edit(_bad_json), "model_config cannot be read"),
    "future": (_edit(_future), r"written by Keras 4\.0\.0; files of Keras 1 to 3 can be read"),
    "no config": (_edit(_no_config), "not a Keras model"),
    "no optimizer": (_edit(_no_optimizer), "optimizer_weights is missing"),
    "no slot": (_edit(_no_slot), "dense_kernel_momentum is missing"),
    "negative": (_set("iteration", np.int64(-3)), "the iteration count, is -3"),
    "not a number": (_set("iteration", np.float32("nan")), "the iteration count, is nan"),
    "absurd": (_set("iteration", np.int64(2**62)), "not a number of steps"),
    "shape": (
        _set("dense_kernel_momentum", np.zeros((5, 5), "float32")),
        r"another shape .* \[3, 3\] -> \[5, 5\]",
    ),
    "external": (_link(h5py.ExternalLink("other.h5", "/x")), "model_weights/dense is a link to elsewhere"),
    "soft": (_link(h5py.SoftLink("/model_weights/dense_1")), "model_weights/dense is a link to elsewhere"),
    "virtual": (_edit(_virtual), "keeps its values in another file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(runs: dict[str, Any], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.h5"
    shutil.copy(runs["adam"].h5, path)
    damage, message = DAMAGE[kind]
    damage(path)
    with pytest.raises(SourceError, match=message) as caught:
        h5.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        h5.read(tmp_path / "none.h5")
    with pytest.raises(SourceError, match="directory"):
        h5.read(tmp_path)


def test_holds_goes_by_content(runs: dict[str, Any], tmp_path: Path) -> None:
    renamed = tmp_path / "run.keras"
    shutil.copy(runs["adam"].h5, renamed)
    assert h5.holds(renamed)
    assert not h5.holds(runs["adam"].keras)
    assert not h5.holds(tmp_path)


def _two_models(path: Path, second: float, *, slots: bool) -> Path:
    """Two nested models with a layer of the same name each, as Keras lays them out."""
    config = {"class_name": "Functional", "config": {"name": "m", "layers": []}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["model_config"] = "3.15.1", json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = ["a", "b"]
        for layer, value in (("a", 1.0), ("b", second)):
            weights.create_group(layer).attrs["weight_names"] = ["x/kernel"]
            weights[f"{layer}/x/kernel"] = np.full((2,), value, "float32")
        if slots:
            optimizer = file.create_group("optimizer_weights")
            optimizer.attrs["weight_names"] = ["adam/iteration", "adam/x_kernel_momentum"]
            optimizer["adam/iteration"] = np.int64(1)
            optimizer["adam/x_kernel_momentum"] = np.zeros((2,), "float32")
    return path


def test_a_shared_layer_is_one_variable_and_namesakes_are_two(tmp_path: Path) -> None:
    assert h5.read(_two_models(tmp_path / "shared.h5", 1.0, slots=True)).weights == ("model/x/kernel",)
    namesakes = h5.read(_two_models(tmp_path / "two.h5", 2.0, slots=False))
    assert namesakes.weights == ("model/x/kernel", "model/x/kernel~2")
    assert namesakes.arrays["model/x/kernel~2"].tolist() == [2.0, 2.0]
    with pytest.raises(SourceError, match="could belong to more than one variable called x/kernel"):
        h5.read(_two_models(tmp_path / "mixed.h5", 2.0, slots=True))


# ---- standalone Keras ----


def _keras_2_0(path: Path, version: str, kind: str, variables: list[Any]) -> Path:
    """As Keras 2.0 saved it: two layers, `b` before `a`, and an optimizer whose variables only have numbers."""
    layers = [
        {
            "class_name": "Dense",
            "config": {"name": name, "units": units, "trainable": True, "use_bias": False},
        }
        for name, units in (("b", 3), ("a", 4))
    ]
    training = {"loss": "mse", "metrics": [], "optimizer_config": {"class_name": kind, "config": {"lr": 0.5}}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers})
        file.attrs["training_config"] = json.dumps(training)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"b", b"a"]
        for name, shape in (("b", (2, 3)), ("a", (3, 4))):
            group.create_group(name).attrs["weight_names"] = [f"{name}/kernel:0".encode()]
            group[f"{name}/{name}/kernel:0"] = np.ones(shape, "float32")
        held = file.create_group("optimizer_weights")
        held.attrs["weight_names"] = [f"Variable_{n}:0".encode() for n in range(len(variables))]
        for n, array in enumerate(variables):
            held[f"Variable_{n}:0"] = array
    return path


@pytest.mark.parametrize(
    ("version", "order"), [("2.0.5", "ab"), ("2.0.6", "ba"), ("2.0.10", "ba"), ("2.2.4", "ba")]
)
def test_slots_went_by_name_until_keras_2_0_6(tmp_path: Path, version: str, order: str) -> None:
    """keras/engine/training.py sorted the trainable weights by name in 2.0.5, and no longer in 2.0.6."""
    shapes = {"a": (3, 4), "b": (2, 3)}
    slots = [np.full(shapes[name], n, "float32") for n, name in enumerate(order * 2)]
    state = h5.read(_keras_2_0(tmp_path / "old.h5", version, "Adam", [np.asarray(7.0, "float32"), *slots]))
    assert state.notes == ()
    for n, name in enumerate(order):
        for role, value in (("momentum", n), ("velocity", n + 2)):
            assert (
                state.arrays[f"optimizer/{role}/{name}/kernel"].tolist()
                == np.full(shapes[name], value).tolist()
            )


@pytest.mark.parametrize("kind", ["RMSprop", "Adagrad"])
def test_an_optimizer_that_never_had_a_counter(tmp_path: Path, kind: str) -> None:
    """keras/optimizers.py up to 2.2: RMSprop, Adagrad and Adadelta list their accumulators alone."""
    path = _keras_2_0(
        tmp_path / "old.h5", "2.2.0", kind, [np.ones((2, 3), "float32"), np.ones((3, 4), "float32")]
    )
    state = h5.read(path)
    assert state.iterations is None
    assert len(state.slots) == 2
    assert state.notes == (f"Keras 2.2.0 did not save how many steps {kind} had made",)


# ---- Keras 1 and 2 ----

LAYER = {"class_name": "Dense", "config": {"name": "dense_1", "trainable": True}}
CONFIG = {"class_name": "Sequential", "config": {"name": "sequential_1", "layers": [LAYER]}}


def _keras2(
    path: Path,
    *,
    version: str | None = "2.2.4",
    optimizer: dict[str, Any] | None = None,
    variables: dict[str, Any] | None = None,
    config: dict[str, Any] = CONFIG,
    bias: float = 0.5,
) -> Path:
    """One Dense layer, as Keras 2 lays it out."""
    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["keras_version"] = version.encode()
        file.attrs["model_config"] = json.dumps(config).encode()
        if optimizer is not None:
            file.attrs["training_config"] = json.dumps({"loss": "mse", "optimizer_config": optimizer})
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"dense_1"]
        group = weights.create_group("dense_1")
        group.attrs["weight_names"] = [b"dense_1/kernel:0", b"dense_1/bias:0"]
        group["dense_1/kernel:0"] = np.ones((2, 3), "float32")
        group["dense_1/bias:0"] = np.full((3,), bias, "float32")
        if variables is not None:
            group = file.create_group("optimizer_weights")
            group.attrs["weight_names"] = [name.encode() for name in variables]
            for name, value in variables.items():
                group[name] = value
    return path


SLOTS = {"Variable_1:0": np.ones((2, 3), "float32"), "Variable_2:0": np.ones((3,), "float32")}
RMSPROP = {"class_name": "RMSprop", "config": {"lr": 0.25, "decay": 0.0}}
ADAM = {"class_name": "Adam", "config": {"learning_rate": 0.25, "decay": 0.0}}


def test_a_file_of_keras_2(tmp_path: Path) -> None:
    variables = {"iterations:0": np.int64(7), **SLOTS}
    state = h5.read(_keras2(tmp_path / "run.h5", optimizer=RMSPROP, variables=variables))
    assert (state.format, state.flavour, state.keras_version) == ("h5", "tf_keras", "2.2.4")
    assert state.weights == ("model/dense/kernel", "model/dense/bias")
    assert state.slots == ("optimizer/velocity/dense/kernel", "optimizer/velocity/dense/bias")
    assert state.places == {"model/dense/kernel": "dense_1/0", "model/dense/bias": "dense_1/1"}
    assert state.raw_names["optimizer/velocity/dense/bias"] == "Variable_2:0"
    assert state.raw_names["optimizer/learning_rate"] == "(configuration)"
    assert (state.iterations, state.learning_rate) == (7, 0.25)
    assert state.arrays["optimizer/learning_rate"].dtype == np.float32
    assert state.notes == ()


def test_a_sequential_of_keras_1_says_neither_its_name_nor_a_version(tmp_path: Path) -> None:
    config = {"class_name": "Sequential", "config": [LAYER]}
    state = h5.read(_keras2(tmp_path / "run.h5", version=None, config=config))
    assert (state.flavour, state.keras_version) == ("tf_keras", None)
    assert state.weights == ("model/dense/kernel", "model/dense/bias")


def test_optimizers_that_did_not_save_their_count(tmp_path: Path) -> None:
    state = h5.read(_keras2(tmp_path / "run.h5", optimizer=RMSPROP, variables=SLOTS))
    assert state.iterations is None
    assert len(state.slots) == 2
    assert state.notes == ("Keras 2.2.4 did not save how many steps RMSprop had made",)


def test_a_count_that_should_be_there(tmp_path: Path) -> None:
    slots = {"Adam/dense_1/kernel/m:0": np.ones((2, 3), "float32")}
    with pytest.raises(SourceError, match="no iteration count; the file is damaged"):
        h5.read(_keras2(tmp_path / "run.h5", version="2.8.0", optimizer=ADAM, variables=slots))


def test_a_slot_of_another_shape(tmp_path: Path) -> None:
    slots = {"Adam/iter:0": np.int64(1), "Adam/dense_1/kernel/m:0": np.ones((5, 3), "float32")}
    with pytest.raises(SourceError, match=r"another shape .*\[2, 3\] -> \[5, 3\]\.\nThe file is damaged"):
        h5.read(_keras2(tmp_path / "run.h5", version="2.8.0", optimizer=ADAM, variables=slots))


def test_compiled_and_not_trained_yet(tmp_path: Path) -> None:
    """Legacy optimizers make their variables in the first step, and Keras 2 writes no group for none."""
    fresh = h5.read(_keras2(tmp_path / "fresh.h5", version="2.8.0", optimizer=ADAM, bias=0.0))
    assert (fresh.notes, fresh.unheld) == ((h5.UNBUILT,), ("optimizer",))
    other = h5.read(_keras2(tmp_path / "other.h5", version="2.8.0", optimizer=ADAM, bias=0.5))
    assert (other.notes, other.unheld) == ((h5.UNTRAINED,), ())


def test_later_optimizers_always_have_their_count(tmp_path: Path) -> None:
    optimizer = {"class_name": "Custom>Adam", "config": {"jit_compile": False, "learning_rate": 0.5}}
    with pytest.raises(SourceError, match="optimizer_weights is missing; the file is damaged"):
        h5.read(_keras2(tmp_path / "run.h5", version="2.12.0", optimizer=optimizer))


def test_settings_that_are_missing(tmp_path: Path) -> None:
    variables = {"Adam/iter:0": np.int64(3), "Adam/dense_1/kernel/m:0": np.ones((2, 3), "float32")}
    state = h5.read(_keras2(tmp_path / "run.h5", version="2.8.0", variables=variables))
    assert state.notes == (h5.NO_SETTINGS,)
    assert state.slots == ("optimizer/m/dense/kernel",)


def test_groups_that_are_not_listed(tmp_path: Path) -> None:
    path = _keras2(tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        file["model_weights"].create_group("dense_9")
    with pytest.raises(SourceError, match=r"layer_names and the groups of model_weights differ \(dense_9\)"):
        h5.read(path)
