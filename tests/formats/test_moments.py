"""What training leaves behind passes, and what it cannot leave behind is named. The recurrences are run here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.formats import moments
from resume.state import Arrays, OptimizerInfo, TrainState

Arrays_ = dict[str, np.ndarray[Any, Any]]
LAYERS = [
    {"class_name": "Dense", "config": {"name": "dense", "kernel_initializer": {"class_name": "GlorotUniform"}}},
    {"class_name": "BatchNormalization", "config": {"name": "norm"}},
    {"class_name": "Mask", "config": {"name": "mask"}},
]  # fmt: skip
MODEL = {"class_name": "Sequential", "config": {"name": "m", "layers": LAYERS}}
SHAPE = (12, 10)


def state(steps: int, slots: Mapping[str, Any], info: OptimizerInfo, /, **changed: Any) -> TrainState:
    random = np.random.default_rng(1)
    arrays: Arrays_ = {
        "model/dense/kernel": random.normal(size=SHAPE).astype("f4"),
        "model/norm/moving_variance": np.ones(3, "f4"),
        "model/mask/values": np.asarray([0.0, -np.inf], "f4"),
        "optimizer/iteration": np.asarray(steps, "i8"),
        **{f"optimizer/{role}/dense/kernel": np.asarray(value, "f4") for role, value in slots.items()},
    }
    arrays |= {name.replace("__", "/"): np.asarray(value) for name, value in changed.items()}
    return TrainState(
        format="h5", path=Path("a.h5"), arrays=Arrays.of(arrays), model_config=MODEL, optimizer=info
    )


def gradients(steps: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    """Of very different sizes, some with long silences."""
    random = np.random.default_rng(seed)
    found = random.normal(size=(steps, *SHAPE)) * 10.0 ** random.uniform(-6, 3, SHAPE)
    found[steps // 3 :, :3] = 0
    return found.astype("f4")


def adam(steps: int, one: float = 0.9, two: float = 0.999) -> tuple[dict[str, Any], OptimizerInfo]:
    m, v, most = (np.zeros(SHAPE, "f4") for _ in range(3))
    for g in gradients(steps):
        m += (g - m) * np.float32(1 - one)
        v += (g * g - v) * np.float32(1 - two)
        most = np.maximum(most, v)
    info = OptimizerInfo("Adam", {"beta_1": one, "beta_2": two, "amsgrad": True})
    return {"momentum": m, "velocity": v, "velocity_hat": most}, info


def adamax(steps: int) -> tuple[dict[str, Any], OptimizerInfo]:
    m, u = np.zeros(SHAPE, "f4"), np.zeros(SHAPE, "f4")
    for g in gradients(steps):
        m += (g - m) * np.float32(0.1)
        u = np.maximum(np.float32(0.999) * u, np.abs(g))
    return {"momentum": m, "norm": u}, OptimizerInfo("Adamax", {})


def rmsprop(steps: int) -> tuple[dict[str, Any], OptimizerInfo]:
    v, average = np.zeros(SHAPE, "f4"), np.zeros(SHAPE, "f4")
    for g in gradients(steps):
        v = np.float32(0.9) * v + np.float32(0.1) * g * g
        average = np.float32(0.9) * average + np.float32(0.1) * g
    return {"velocity": v, "average_gradient": average}, OptimizerInfo("RMSprop", {"centered": True})


def found(state: TrainState) -> list[str]:
    return [str(finding) for finding in moments.findings(state)]


@pytest.mark.parametrize("steps", [1, 2, 7, 400])
@pytest.mark.parametrize(
    "train", [adam, lambda n: adam(n, 0.0, 0.9), lambda n: adam(n, 0.5, 0.99999), adamax, rmsprop]
)
def test_what_training_leaves_behind(train: Callable[[int], Any], steps: int) -> None:
    slots, info = train(steps)
    assert found(state(steps, slots, info)) == []


def test_slots_of_another_variable() -> None:
    for train in (adam, adamax, rmsprop):
        slots, info = train(50)
        first = "average_gradient" if train is rmsprop else "momentum"
        other = {**slots, first: slots[first][::-1]}
        lines = found(state(50, other, info))
        assert lines == [
            f"optimizer/{first}/dense/kernel: is larger than its other slot allows after 50 steps: not of this "
            "variable, or damaged"
        ]


def test_a_count_of_steps_that_is_too_small() -> None:
    slots, info = adam(1)
    constant = {"momentum": np.full(SHAPE, 1 - 0.9**5), "velocity": np.full(SHAPE, 1 - 0.999**5)}
    info = OptimizerInfo("Adam", {"beta_1": 0.9, "beta_2": 0.999})
    assert found(state(5, constant, info)) == []
    assert "after 4 steps" in found(state(4, constant, info))[0]
    del slots


def test_embeddings_are_left_out() -> None:
    """Keras 3 squares each of the rows that a batch has twice."""
    slots, info = adam(50)
    odd = state(50, {**slots, "momentum": slots["momentum"][::-1]}, info)
    layers = [{"class_name": "Embedding", "config": {"name": "dense"}}, *LAYERS[1:]]
    config = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    assert found(TrainState(**{**vars(odd), "model_config": config})) == []


def test_schedules_of_hyperparameters_say_nothing() -> None:
    slots, _ = adam(50)
    info = OptimizerInfo("Adam", {"beta_1": {"class_name": "X"}})
    assert found(state(50, {**slots, "momentum": slots["momentum"][::-1]}, info)) == []


SLOTS, INFO = adam(30)
NEGATIVE = -SLOTS["velocity"] - 1
LOST = np.random.default_rng(1).normal(size=SHAPE).astype("f4")
LOST.reshape(-1)[40:56] = 0

WRONG: dict[str, tuple[TrainState, str]] = {
    "NaN in a weight": (state(30, SLOTS, INFO, model__dense__kernel=LOST + np.nan), "dense/kernel: holds NaN"),
    "infinite weight": (state(30, SLOTS, INFO, model__dense__kernel=LOST + np.inf), "holds infinite values"),
    "huge weight": (state(30, SLOTS, INFO, model__dense__kernel=LOST + 3e38), "dense/kernel: holds 3e+38"),
    "variance": (state(30, SLOTS, INFO, model__norm__moving_variance=[-1.0]), "a variance is negative"),
    "NaN in a slot": (state(30, {**SLOTS, "momentum": LOST + np.nan}, INFO), "momentum/dense/kernel: holds NaN"),
    "negative": (state(30, {"velocity": NEGATIVE}, INFO), "optimizer/velocity/dense/kernel: is negative"),
    "exchanged": (
        state(30, {"momentum": SLOTS["velocity"], "velocity": SLOTS["momentum"]}, INFO), "dense/kernel: is negative",
    ),
    "amsgrad": (state(30, {**SLOTS, "velocity_hat": SLOTS["velocity"] / 2}, INFO), "less than the velocity"),
    "begin": (
        state(30, {"accumulator": np.zeros(SHAPE)}, OptimizerInfo("Adagrad", {"initial_accumulator_value": 0.1})),
        "less than the 0.1 that it began with",
    ),
    "lost block": (state(30, SLOTS, INFO, model__dense__kernel=LOST), "16 values in a row are zero"),
    "lost kernel": (state(30, SLOTS, INFO, model__dense__kernel=LOST * 0), "values in a row are zero"),
    "lost state": (state(30, {r: np.zeros(SHAPE) for r in SLOTS}, INFO), "all slots are zero after 30 steps"),
    "no steps": (state(0, SLOTS, INFO), "optimizer/iteration: is 0, and the slots hold the history"),
    "negative rate": (state(30, SLOTS, INFO, optimizer__learning_rate=-0.1), "optimizer/learning_rate: is -0.1"),
    "huge rate": (state(30, SLOTS, INFO, optimizer__learning_rate=1e30), "optimizer/learning_rate: is 1e+30"),
    "rate": (state(30, SLOTS, INFO, optimizer__learning_rate=np.nan), "optimizer/learning_rate: is not finite"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_training_cannot_leave_behind(kind: str) -> None:
    broken, message = WRONG[kind]
    assert any(message in line for line in found(broken))


ZEROS = {"class_name": "Zeros", "config": {}}
RIGHT = {
    "zeros on purpose": ({"kernel_initializer": ZEROS}, INFO),
    "zeros by a constraint": ({"kernel_constraint": {"class_name": "NonNeg", "config": {}}}, INFO),
    "zeros by an L1 term": ({}, OptimizerInfo("Ftrl", {})),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_zeros_that_may_be_meant(kind: str) -> None:
    config, info = RIGHT[kind]
    odd = state(30, SLOTS if info is INFO else {"linear": np.ones(SHAPE)}, info, model__dense__kernel=LOST)
    layers = [{"class_name": "Dense", "config": {**LAYERS[0]["config"], **config}}, *LAYERS[1:]]
    sequential = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    assert found(TrainState(**{**vars(odd), "model_config": sequential})) == []


def test_nothing_was_applied_yet() -> None:
    zeros = {role: np.zeros(SHAPE) for role in SLOTS}
    assert found(state(0, zeros, INFO)) == []
    accumulating = OptimizerInfo("Adam", {"gradient_accumulation_steps": 8})
    assert found(state(7, zeros, accumulating)) == []
    assert found(state(8, zeros, accumulating)) != []
