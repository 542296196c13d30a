"""The runs under tests/fixtures: what each artifact is, and the true state by canonical name. No TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"

# The files' words for slots -> roles. In RMSprop and Adafactor, too, `v` is the mean of squares.
ROLES = {
    "m": "momentum", "v": "velocity", "vhat": "velocity_hat", "u": "norm", "momentum": "momentum",
    "mg": "average_gradient", "accumulator": "accumulator", "linear": "linear", "accum_grad": "accumulated_grad",
    "accum_var": "accumulated_delta_var", "r": "r", "c": "c", "ema": "average", "grad_acc": "gradient_accumulator",
}  # fmt: skip
_CELLS = {"lstm": "lstm_cell"}


@dataclass(frozen=True)
class Case:
    """One training run: k steps, everything saved, m more steps."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "case.json").read_text())
        return found

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "truth.npz") as file:
            return dict(file)

    @property
    def generation(self) -> str:
        version = tuple(int(part) for part in self.facts["generator"]["keras"].split("-")[0].split("."))
        return "3" if version >= (3,) else "2.11-2.15" if version >= (2, 11) else "2.2-2.10"

    @property
    def flavour(self) -> str:
        return "keras" if self.generation == "3" else "tf_keras"

    @property
    def onednn(self) -> bool:
        """Whether its TensorFlow computed with oneDNN unless told otherwise (from 2.9), which rounds in its own way.

        A bias in front of BatchNormalization has a gradient of rounding errors alone, and Adam makes steps of them.
        """
        return tuple(map(int, self.facts["generator"]["tensorflow"].split(".")[:2])) >= (2, 9)

    @property
    def steps(self) -> range:
        k, m = self.facts["steps"]["k"], self.facts["steps"]["m"]
        return range(k, k + m)

    @property
    def achievable(self) -> float:
        """How far from the truth the true state, copied into Keras 3 by hand, ended where the run was made."""
        return float(self.facts["achievable_in_keras3"]["weights_max_abs_diff"])

    @cached_property
    def names(self) -> dict[str, str]:
        """Id of each weight -> its canonical name, from the layers as the run itself listed them."""
        counted: dict[str, str] = {}
        return {weight["id"]: _path(weight, counted) for weight in self.facts["weights"]}

    def state(self, *, optimizer: bool = True) -> dict[str, np.ndarray]:
        """Canonical name -> what a source must hold after step k, scalars apart."""
        found = {f"model/{name}": self.truth[f"k/{key}"] for key, name in self.names.items()}
        for slot in self.facts["optimizer"]["slots"] if optimizer else []:
            name = f"optimizer/{ROLES[slot['slot']]}/{self.names[slot['weight']]}"
            found[name] = self.truth[f"k/{slot['suffix']}"]
        return found

    @property
    def iterations(self) -> int:
        """The raw counter."""
        facts = self.facts["optimizer"]
        return int(facts["scalars"].get("iterations_raw", facts["iterations"]))


def _path(weight: dict[str, Any], counted: dict[str, str]) -> str:
    """`dense_3` is whatever `dense` the process had reached: counted again in the model's order."""
    layers = [
        counted.setdefault(layer, f"dense_{len(counted)}" if counted else "dense")
        if layer.split("_")[0] == "dense"
        else layer
        for layer in weight["layer"].split("/")
    ]
    cell = [_CELLS[layers[-1]]] if layers[-1] in _CELLS else []
    return "/".join([*layers, *cell, weight["name"].rpartition("/")[2].removesuffix(":0")])


@dataclass(frozen=True)
class Artifact:
    """One file, folder or checkpoint prefix of a run."""

    case: Case
    format: str
    path: Path
    full: bool  # whether it holds the optimizer's state

    @property
    def id(self) -> str:
        return str(self.path.relative_to(self.case.folder.parent))

    @property
    def whole_model(self) -> bool:
        """Whether a model can be built from it; the others need `model=`."""
        return self.format.startswith(("h5", "keras", "savedmodel"))


def artifacts(fixtures: Path = FIXTURES) -> Iterator[Artifact]:
    """Every artifact of the undamaged runs."""
    for facts in sorted(fixtures.glob("*/case.json")):
        case = Case(facts.parent)
        for file in [] if case.facts.get("negative") else case.facts["files"]:
            if file["path"]:
                full = file["state_in_file"] == "full"
                yield Artifact(case, file["format"], case.folder / file["path"], full)


def damaged(fixtures: Path = FIXTURES) -> Iterator[Artifact]:
    """The damaged copies."""
    for facts in sorted(fixtures.glob("*/case.json")):
        case = Case(facts.parent)
        if case.facts.get("negative"):
            for file in case.facts["files"]:
                yield Artifact(case, file["format"], case.folder / file["path"], full=False)
