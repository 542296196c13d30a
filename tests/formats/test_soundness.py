"""Structure that no training state has; what is read of it is the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import soundness
from resume.state import Arrays, OptimizerInfo, TrainState

DENSE = {"class_name": "Dense", "config": {"name": "dense", "units": 2}}
OTHER = {"class_name": "Dense", "config": {"name": "other", "units": 2}}
NORM = {"class_name": "BatchNormalization", "config": {"name": "norm"}}
ADAM = OptimizerInfo("Adam", {"learning_rate": 0.125})
NAMES = ("kernel", "bias")


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}}


def arrays(*, roles: tuple[str, ...] = ("momentum", "velocity"), steps: int = 3) -> dict[str, Any]:
    """In the order in which Keras writes them."""
    shapes = {"kernel": (3, 2), "bias": (2,)}
    norm = {
        f"model/norm/{name}": np.ones(2, "f4") for name in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    return {
        **{f"model/dense/{name}": np.ones(shape, "f4") for name, shape in shapes.items()},
        **norm,
        "optimizer/iteration": np.asarray(steps, "i8"),
        "optimizer/learning_rate": np.asarray(0.125, "f4"),
        **{f"optimizer/{r}/dense/{n}": np.full(shapes[n], 1e-3, "f4") for n in NAMES for r in roles},
    }


def state(held: dict[str, Any], **facts: Any) -> TrainState:
    known = {"model_config": model(DENSE, NORM), "optimizer": ADAM}
    return TrainState(format="h5", path=Path("a.h5"), arrays=Arrays.of(held), **(known | facts))


def without(*names: str) -> dict[str, Any]:
    return {name: array for name, array in arrays().items() if name not in names}


def in_order(*first: str) -> dict[str, Any]:
    held = arrays()
    return {**{name: held[name] for name in first}, **held}


RIGHT = {
    "whole": state(arrays()),
    "without an optimizer": state({n: a for n, a in arrays().items() if n[:5] == "model"}, optimizer=None),
    "slots of a shape of their own, in an optimizer of the user's": state(
        arrays(roles=()) | {"optimizer/row/dense/kernel": np.ones(3, "f4")}, optimizer=OptimizerInfo("pkg>Mine", {})
    ),
    "before the first step": state(arrays(roles=(), steps=0)),
    "nothing accumulated yet": state(
        arrays(roles=(), steps=3), optimizer=OptimizerInfo("Adam", {"gradient_accumulation_steps": 9})
    ),
    "momentum-free": state(arrays(roles=()), optimizer=OptimizerInfo("SGD", {"momentum": 0.0})),
    "of the user's": state(arrays(roles=("anything",)), optimizer=OptimizerInfo("Mine", {})),
    "scheduled": state(arrays(), optimizer=OptimizerInfo("Adam", {"learning_rate": {"class_name": "X"}})),
    "frozen layer": state(without(*(f"optimizer/{r}/dense/bias" for r in ("momentum", "velocity")))),
    "numbered": state({**arrays(roles=()), "optimizer/vars/2": np.ones(3, "f4")}),
    "names that could not be derived": state(
        {**arrays(), "model/layers/dense/vars/0": np.ones(1, "f4")}, model_config=model(DENSE, NORM, OTHER)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_states_that_can_be(kind: str) -> None:
    assert list(map(str, soundness.structure(RIGHT[kind]))) == []
    assert soundness.check(RIGHT[kind]) is RIGHT[kind]


WRONG = {
    "layer without weights": (state(arrays(), model_config=model(DENSE, NORM, OTHER)), "other: the configuration has"),
    "size": (
        state(arrays(), model_config=model({**DENSE, "config": {"name": "dense", "units": 10**9}}, NORM)),
        "dense: units is 1000000000 in the configuration, and the weights are [3, 2], [2]",
    ),
    "order of layers": (
        state(in_order(*(n for n in arrays() if "norm" in n))), "another order than the configuration has them",
    ),
    "order of weights": (state(in_order("model/dense/bias", "model/dense/kernel")), "dense: its weights are listed as"),
    "order of the optimizer": (state(in_order("optimizer/momentum/dense/kernel")), "order that Keras does not write"),
    "order of slots": (
        state(in_order("optimizer/iteration", "optimizer/velocity/dense/kernel")), "an order that Keras does not write",
    ),
    "shape of a slot": (
        state({**arrays(), "optimizer/velocity/dense/bias": np.ones(3, "f4")}), "than its variable: [2] -> [3]",
    ),
    "a slot": (state(without("optimizer/velocity/dense/bias")), "optimizer/velocity/dense/bias: this slot is missing"),
    "a role": (state(arrays(roles=("momentum",))), "optimizer/velocity: the slots of Adam are missing, after 3 steps"),
    "all slots": (state(arrays(roles=())), "the slots of Adam are missing"),
    "another optimizer's": (
        state(arrays(), optimizer=OptimizerInfo("SGD", {"momentum": 0.9})), "optimizer/velocity: slots that SGD, as",
    ),
    "learning rate": (
        state({**arrays(), "optimizer/learning_rate": np.asarray(1e30, "f4")}), "is 1e+30, and 0.125 in the",
    ),
    "no learning rate": (state({**arrays(), "optimizer/learning_rate": np.asarray(np.nan, "f4")}), "rate: is nan"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_states_that_cannot_be(kind: str) -> None:
    broken, message = WRONG[kind]
    with pytest.raises(SourceError) as caught:
        soundness.check(broken)
    assert str(caught.value).startswith("a.h5: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_values_can_be_vouched_for() -> None:
    odd = state({**arrays(), "model/dense/kernel": np.full((3, 2), np.nan, "f4")})
    soundness.check(odd)
    with pytest.raises(
        SourceError, match=r"model/dense/kernel: holds NaN .*\n.*accept=\[model/dense/kernel\]"
    ):
        soundness.demand(odd)
    soundness.demand(odd, accept=["model/dense/kernel"])
    soundness.demand(odd, accept=["model/dense"])


def test_own_checkpoints_have_digests(make_state: Callable[..., TrainState]) -> None:
    odd = replace(state({**arrays(), "optimizer/iteration": np.asarray(0, "i8")}), format="native")
    soundness.check(odd)
    soundness.demand(odd)
