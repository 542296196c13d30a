"""Files written by Keras 2.2 to 3.15 against what their runs really held: every array, found by its canonical name.

The expected names are derived here from what the runs recorded of their layers and slots, not by the package's mapper.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import formats
from resume.errors import SourceError
from resume.formats.h5 import NO_OPTIMIZER
from resume.state import TrainState

FIXTURES = Path(__file__).parents[1] / "fixtures"
KINDS = ("h5", "h5_noopt", "h5_named_keras", "keras", "weights_h5", "backup")
FORMATS = {"h5_noopt": "h5", "h5_named_keras": "h5"}
CELLS = {"lstm": "lstm_cell"}
CUSTOM = ("scaled", "plain")  # layers of classes that are not Keras's
# The recorded slot, by optimizer class, in Keras 3's words.
ROLES = {
    "Adamax": {"m": "momentum", "v": "norm", "u": "norm"},
    "SGD": {"m": "momentum", "momentum": "momentum"},
    "RMSprop": {"v": "velocity", "rms": "velocity", "momentum": "momentum", "mg": "average_gradient"},
    "Adagrad": {"accumulator": "accumulator"},
    "Adadelta": {"accum_grad": "accumulated_grad", "accum_var": "accumulated_delta_var"},
    "Ftrl": {"accumulator": "accumulator", "linear": "linear"},
}
COMMON = {
    "m": "momentum",
    "v": "velocity",
    "vhat": "velocity_hat",
    "ema": "average",
    "grad_acc": "gradient_accumulator",
}


def _cases() -> Iterator[Any]:
    for folder in sorted(FIXTURES.glob("o[0-9]*")):
        for entry in _case(folder.name)["files"]:
            if entry["format"] in KINDS and entry["path"]:
                yield pytest.param(folder.name, entry, id=f"{folder.name}/{entry['path']}")


@cache
def _case(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / name / "case.json").read_text())
    return found


@cache
def _truth(name: str) -> dict[str, Any]:
    with np.load(FIXTURES / name / "truth.npz") as arrays:
        return dict(arrays)


def _weights(case: dict[str, Any], *, archive: bool = False) -> dict[str, str]:
    """wNNN -> canonical name. These models' automatic layers are all called dense, built in the order of numbers."""
    layers = [weight["layer"] for weight in case["weights"]]
    automatic = list(dict.fromkeys(layer for layer in layers if re.fullmatch(r"dense(_\d+)?", layer)))
    renamed = {old: f"dense_{n}" if n else "dense" for n, old in enumerate(automatic)}
    out = {}
    for weight in case["weights"]:
        layer, variable = weight["layer"], weight["name"].removesuffix(":0").split("/")[-1]
        if archive and layer in CUSTOM:  # an archive keeps no names, and only Keras's own classes are known
            variable = f"vars/{weight['index']}"
        path = "/".join([renamed.get(layer, layer), *([CELLS[layer]] if layer in CELLS else []), variable])
        root = case["model"]["name"]
        out[weight["id"]] = path.removeprefix(f"{root}/")
    return out


def _role(case: dict[str, Any], slot: str) -> str:
    return ROLES.get(case["optimizer"]["cls"], {}).get(slot) or COMMON[slot]


def _named(state: TrainState, case: dict[str, Any]) -> bool:
    """Whether the format tells layers apart by name: files of weights of Keras before 3.6 do not."""
    return state.format not in ("weights_h5", "backup") or not any("/layers/" in n for n in state.specs)


@pytest.mark.parametrize(("name", "entry"), list(_cases()))
def test_every_array_is_what_the_run_held(name: str, entry: dict[str, Any]) -> None:
    case, truth, path = _case(name), _truth(name), FIXTURES / name / entry["path"]
    state = formats.read(path)
    assert state.format == FORMATS.get(entry["format"], entry["format"])
    assert state.flavour == ("keras" if case["generator"]["keras"].startswith("3") else "tf_keras")
    names = _weights(case, archive=entry["format"] == "keras")
    expected = {f"model/{n}": truth[f"k/{w}"] for w, n in names.items()}
    full = entry["state_in_file"] == "full"
    numbered = entry["format"] == "weights_h5" or (entry["format"] == "backup" and state.flavour == "keras")
    if full and not numbered:
        expected |= {
            f"optimizer/{_role(case, slot['slot'])}/{names[slot['weight']]}": truth[f"k/{slot['suffix']}"]
            for slot in case["optimizer"]["slots"]
        }
    if not _named(state, case):
        _same_in_order(state, expected)
    else:
        assert {n: state.arrays[n].shape for n in expected if n in state.specs} == {
            n: array.shape for n, array in expected.items()
        }
        for canonical, array in expected.items():
            assert state.arrays[canonical].dtype == array.dtype, canonical
            assert state.arrays[canonical].tobytes() == array.tobytes(), canonical
        assert set(state.weights) == {n for n in expected if n.startswith("model/")}
    if full and numbered:
        _slots_in_order(state, case, truth)
    elif full:
        assert set(state.slots) == {n for n in expected if n.startswith("optimizer/")}
    assert (NO_OPTIMIZER in state.notes) != full
    _counters(state, case, full=full)


def _same_in_order(state: TrainState, expected: dict[str, Any]) -> None:
    assert [state.arrays[n].tobytes() for n in state.weights] == [a.tobytes() for a in expected.values()]


def _slots_in_order(state: TrainState, case: dict[str, Any], truth: dict[str, Any]) -> None:
    """Numbered slots, found by the position that the run recorded for each of its optimizer's variables."""
    order = [name for name, _ in case["optimizer"]["raw_variables"]]
    at = {place: canonical for canonical, place in state.places.items()}
    assert len(state.slots) == len(case["optimizer"]["slots"])
    for slot in case["optimizer"]["slots"]:
        canonical = at[f"optimizer/vars/{order.index(slot['var_name'])}"]
        assert state.arrays[canonical].tobytes() == truth[f"k/{slot['suffix']}"].tobytes(), slot


def _counters(state: TrainState, case: dict[str, Any], *, full: bool) -> None:
    optimizer = case["optimizer"]
    raw = (optimizer.get("scalars") or {}).get("iterations_raw", optimizer["iterations"])
    assert state.iterations == (raw if full else None)
    if state.optimizer is not None:
        assert state.optimizer.inner.class_name == optimizer["cls"]
        assert state.optimizer.legacy == (optimizer["api"] in ("standalone", "legacy"))
    if full and optimizer["lr_kind"] == "constant":
        assert state.learning_rate == np.float32(optimizer["learning_rate_now"])
    if full and optimizer["lr_kind"].startswith("schedule"):
        assert state.learning_rate is None


def test_all_the_kinds_are_there() -> None:
    """So that a rename cannot empty the list above."""
    assert len(list(_cases())) == 72


DAMAGED = {
    "on1_truncated_h5": ("model.h5", "damaged or was cut off"),
    "on2_truncated_keras": ("model.keras", "damaged or was cut off"),
    "on4_h5_slot_missing": ("model.h5", "is missing; the file is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(name: str) -> None:
    file, message = DAMAGED[name]
    with pytest.raises(SourceError, match=message) as caught:
        formats.read(FIXTURES / name / file)
    assert str(FIXTURES / name / file) in str(caught.value)
