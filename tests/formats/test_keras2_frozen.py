"""An inner model that was frozen is told by what the optimizer holds, and by nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resume import formats
from resume.formats import keras2, keras2_frozen
from resume.formats.keras2 import Owner, Weight
from resume.state import OptimizerInfo

ADAM = OptimizerInfo("Adam", {"amsgrad": False}, legacy=True)


def dense(name: str, units: int = 3) -> dict[str, Any]:
    config = {"name": name, "trainable": True, "units": units, "activation": "linear", "use_bias": True}
    return {"class_name": "Dense", "config": config}


def inner(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    entry = {"class_name": "InputLayer", "config": {"name": f"{name}_in", "batch_input_shape": [None, 3]}}
    return {"class_name": "Model", "name": name, "config": {"name": name, "layers": [entry, *layers]}}


CONFIG = {
    "class_name": "Sequential",
    "config": [inner("gen", dense("g")), inner("dis", dense("d", 4)), dense("own", 1)],
}
SHAPES = {"gen/g": (3, 2), "dis/d": (2, 4), "own": (4, 1)}


def owners(frozen: str | None, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Sequence[Owner]:
    return [
        Owner(f"{path}/kernel", f"{path}/kernel:0", shape, path.partition("/")[0] != frozen)
        for path, shape in shapes.items()
    ]


def slots(*shapes: tuple[int, ...]) -> list[Weight]:
    ordered = [(), *shapes, *shapes, *[(1,)] * len(shapes)]  # counter, m, v, placeholders
    return [Weight(f"training/Adam/Variable_{n}:0", shape) for n, shape in enumerate(ordered)]


def test_nothing_frozen() -> None:
    found = keras2_frozen.explained(ADAM, slots(*SHAPES.values()), owners, CONFIG)
    assert (found.frozen, found.notes, found.is_numbered) == (None, [], False)


@pytest.mark.parametrize("name", ["gen", "dis"])
def test_the_one_inner_model_that_explains_what_is_missing(name: str) -> None:
    held = [shape for path, shape in SHAPES.items() if not path.startswith(name)]
    found = keras2_frozen.explained(ADAM, slots(*held), owners, CONFIG)
    assert found.frozen == name
    assert found.notes == [f"{name} is taken as frozen: the optimizer has variables for all but that model's"]
    assert f"optimizer/momentum/{name}" not in " ".join(found.names)
    assert "optimizer/velocity/own/kernel" in found.names


def test_two_that_would_do_are_one_too_many() -> None:
    alike = {**SHAPES, "gen/g": (2, 4)}

    def mine(frozen: str | None) -> Sequence[Owner]:
        return owners(frozen, alike)

    found = keras2_frozen.explained(ADAM, slots((2, 4), (4, 1)), mine, CONFIG)
    assert found.frozen is None
    assert found.is_numbered


def test_all_layers_of_the_model_and_no_others() -> None:
    nested = inner("gen", dense("g"), inner("deep", dense("h")))
    found = keras2_frozen.frozen({**CONFIG, "config": [nested, dense("own")]}, "gen")
    gen, own = found["config"]
    entry, g, deep = gen["config"]["layers"]
    assert "trainable" not in entry["config"]
    assert g["config"]["trainable"] is False
    assert deep["config"]["layers"][1]["config"]["trainable"] is False
    assert own["config"]["trainable"] is True
    assert nested["config"]["layers"][1]["config"]["trainable"] is True  # what was given is as it was


def gan(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """As Keras 2.2 writes a generator and a frozen discriminator; its optimizer's variables, in their order."""
    random = np.random.default_rng(0)
    shapes = {"gen": ("g", (2, 3), (3,)), "dis": ("d", (3, 4), (4,)), "own": ("own", (4, 1), (1,))}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.2.4", "tensorflow"
        file.attrs["model_config"] = json.dumps(CONFIG)
        optimizer = {"class_name": "Adam", "config": {"lr": 0.1, "amsgrad": False}}
        file.attrs["training_config"] = json.dumps({"optimizer_config": optimizer, "loss": "mse"})
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [name.encode() for name in shapes]
        held: dict[str, np.ndarray[Any, Any]] = {}
        for layer, (name, *sizes) in shapes.items():
            group, labels = weights.create_group(layer), [f"{name}/kernel:0", f"{name}/bias:0"]
            group.attrs["weight_names"] = [label.encode() for label in labels]
            for label, size in zip(labels, sizes, strict=True):
                group[label] = random.normal(size=size).astype("float32")
                if layer != "dis":
                    held[f"{layer}/{label}"] = random.uniform(0.1, 1, size).astype("float32")
        group = file.create_group("optimizer_weights")
        arrays = [
            np.array(5, "int64"),
            *held.values(),
            *(a**2 for a in held.values()),
            *[np.zeros(1, "float32")] * 4,
        ]
        labels = [f"training/Adam/Variable_{n}:0" for n in range(len(arrays))]
        group.attrs["weight_names"] = [label.encode() for label in labels]
        for label, array in zip(labels, arrays, strict=True):
            group[label] = array
    return held


def test_a_file(tmp_path: Path) -> None:
    held = gan(tmp_path / "gan.h5")
    state = formats.read(tmp_path / "gan.h5")
    assert state.iterations == 5
    assert len(state.slots) == 8
    np.testing.assert_array_equal(state.arrays["optimizer/momentum/gen/g/kernel"], held["gen/g/kernel:0"])
    np.testing.assert_array_equal(state.arrays["optimizer/velocity/own/bias"], held["own/own/bias:0"] ** 2)
    assert state.model_config == keras2_frozen.frozen(CONFIG, "dis")
    assert not any(place.startswith("dis") for place in state.places.values())
    assert keras2.trained([Weight("d/kernel:0", (3, 4), "dis")], model_config=state.model_config) == [False]
