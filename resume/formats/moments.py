"""Values that no training leaves behind: in weights, in slots, and between them.

Let g be the gradients that one element of a variable has seen. By the recurrences of the optimizers
(keras.src.optimizers, tf_keras.src.optimizers and its `legacy`; all generations agree on these):
    Adam, AdamW, Nadam, Lamb   m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2; so, by Cauchy and Schwarz, after t
                               steps m^2 <= (1 - b1)^2 / (1 - b2) * sum(b1^2 / b2)^k * v, k < t, whatever g was
    Adamax                     |m| <= (1 - b1) * sum(b1 / b2)^k * u
    RMSprop, centered          average_gradient^2 <= velocity
    amsgrad                    velocity_hat >= velocity
Slots of another variable or optimizer, zeroed blocks, and a count of steps that is too small break these somewhere.
They hold for gradients that come as one tensor: rows of embeddings are summed and squared one by one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from resume.formats import ownership, vocabulary
from resume.state import ITERATION, LEARNING_RATE, REPLICA, OptimizerInfo, TrainState

Array = np.ndarray[Any, Any]

NON_NEGATIVE = frozenset({
    "velocity", "velocity_hat", "norm", "accumulator", "accumulated_grad", "accumulated_delta_var", "r", "c",
})  # fmt: skip
_FROM_ZERO = frozenset({
    "momentum", "velocity", "velocity_hat", "norm", "accumulated_grad", "accumulated_delta_var", "average_gradient",
    "linear",
})  # fmt: skip
_VARIANCES = frozenset({"moving_variance", "renorm_stddev"})
_FASTEST = 1e4  # learning rate
_HUGE = 1e30  # its square is no float32
_RUN = 8  # elements in a row that are all zero, though each has been updated
_LEAST = 1e-14  # below, squares are lost to float32
_SLACK = 4e-3
_PIECE = 1 << 20  # elements
_ADAMS = frozenset({"Adam", "AdamW", "Nadam", "Lamb", "NonFusedAdam"})


@dataclass(frozen=True)
class Finding:
    """Something that no training leaves behind. `name`: an array or a part of the state."""

    name: str
    cause: str

    def __str__(self) -> str:
        return f"{self.name}: {self.cause}"


def findings(state: TrainState) -> Iterator[Finding]:
    """Reads every array once, and those of one variable together; about a second a gigabyte."""
    info = state.optimizer.inner if state.optimizer else OptimizerInfo("", {})
    shapes = {n.removeprefix("model/"): s.shape for n, s in state.specs.items() if n.startswith("model/")}
    layers = ownership.of(state.model_config, shapes)
    slots: dict[str, dict[str, str]] = defaultdict(dict)
    for name in state.slots:
        _, role, owner = name.split("/", 2)
        slots[owner][role] = name
    traces = Traces()
    for owner in [*shapes, *(owner for owner in slots if owner not in shapes)]:
        held = {role: Values.of(state.arrays[name]) for role, name in slots.get(owner, {}).items()}
        for role, values in held.items():
            yield from _of_slot(f"optimizer/{role}/{owner}", role, values, info)
            traces.see(role, values)
        if owner in shapes:
            weight, layer = Values.of(state.arrays[f"model/{owner}"]), layers.of(owner)
            yield from _of_weight(f"model/{owner}", weight, trained=bool(held) or _is_own(layer))
            yield from _between(owner, held, layer, info, state)
            yield from _lost(owner, weight, held, layer, info)
    yield from _scalars(state)
    yield from _history(traces, state)


def _is_own(layer: ownership.Layer | None) -> bool:
    return layer is not None and layer.kind in vocabulary.LAYERS


@dataclass(frozen=True)
class Values:
    """An array and its extremes: NaN if any value is; 0 where there are no floats."""

    array: Array
    low: float
    high: float

    @classmethod
    def of(cls, array: Array) -> Values:
        if array.dtype.kind not in "fV" or not array.size:
            return cls(array, 0.0, 0.0)
        plain = array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.itemsize < 4 else array
        with np.errstate(invalid="ignore"):
            return cls(array, float(plain.min()), float(plain.max()))

    @property
    def finite(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def zero(self) -> bool:
        return self.low == 0 == self.high

    @property
    def exact(self) -> bool:
        """Whether the recurrences hold to a few digits: not in half precision."""
        return self.finite and self.array.dtype in (np.float32, np.float64)


def _of_weight(name: str, weight: Values, *, trained: bool) -> Iterator[Finding]:
    """An infinity may be meant where nothing trains (masks); nobody means NaN."""
    most = max(weight.high, -weight.low)
    if math.isnan(most):
        yield Finding(name, f"holds NaN ({int(np.isnan(weight.array).sum())} of {weight.array.size} values)")
    elif trained and math.isinf(most):
        yield Finding(name, "holds infinite values")
    elif trained and most > _HUGE:
        yield Finding(name, f"holds {most if most == weight.high else -most:g}")
    if name.rpartition("/")[2] in _VARIANCES and weight.low < 0:
        yield Finding(name, f"a variance is negative ({weight.low:g})")


def _of_slot(name: str, role: str, slot: Values, info: OptimizerInfo) -> Iterator[Finding]:
    start = info.config.get("initial_accumulator_value") if role == "accumulator" else None
    if not slot.finite:
        yield Finding(name, "holds NaN or infinite values")
    elif role in NON_NEGATIVE and slot.low < 0:
        yield Finding(name, f"is negative ({slot.low:g}); it sums up squares or sizes, so it cannot be")
    elif isinstance(start, int | float) and slot.array.size and slot.low < start * (1 - 1e-3):
        yield Finding(name, f"is {slot.low:g}, less than the {start:g} that it began with")


# ---- between the slots of one variable ----


def _between(
    owner: str,
    held: Mapping[str, Values],
    layer: ownership.Layer | None,
    info: OptimizerInfo,
    state: TrainState,
) -> Iterator[Finding]:
    exact = {role: values.array for role, values in held.items() if values.exact}
    if {"velocity", "velocity_hat"} <= exact.keys() and _exceeds(
        exact["velocity"], exact["velocity_hat"], 1 + 1e-5
    ):
        yield Finding(
            f"optimizer/velocity_hat/{owner}", "is less than the velocity that it is the maximum of"
        )
    if not _is_own(layer) or "embedding" in owner.lower() or "embedding" in str(layer and layer.kind).lower():
        return
    bound = _bound(exact, info, state.iterations)
    if bound is not None and _exceeds(
        exact[bound.role], exact[bound.other], bound.factor, square=bound.square
    ):
        yield Finding(
            f"optimizer/{bound.role}/{owner}",
            f"is larger than its other slot allows after {state.iterations} steps: not of this variable, or damaged",
        )


@dataclass(frozen=True)
class Bound:
    """That a slot's size, or its square, is at most a factor times another slot."""

    role: str
    other: str
    factor: float
    square: bool = True


def _bound(slots: Mapping[str, Array], info: OptimizerInfo, steps: int | None) -> Bound | None:
    first, second = (_number(info, key, default) for key, default in (("beta_1", 0.9), ("beta_2", 0.999)))
    if (
        info.class_name in _ADAMS
        and {"momentum", "velocity"} <= slots.keys()
        and 0 <= first * first < second < 1
    ):
        factor = (1 - first) ** 2 / (1 - second) * _geometric(first * first / second, steps)
        return Bound("momentum", "velocity", factor * (1 + 1e-6 / (1 - second)) * (1 + _SLACK))
    if info.class_name == "Adamax" and {"momentum", "norm"} <= slots.keys() and 0 <= first < second < 1:
        factor = (1 - first) * _geometric(first / second, steps)
        return Bound("momentum", "norm", factor * (1 + _SLACK), square=False)
    if info.class_name == "RMSprop" and {"average_gradient", "velocity"} <= slots.keys():
        return Bound("average_gradient", "velocity", 1 + _SLACK)
    return None


def _exceeds(first: Array, other: Array, factor: float, *, square: bool = False) -> bool:
    """Whether |first| (or its square) is more than factor * other anywhere; a piece at a time, for little memory."""
    if first.shape != other.shape:
        return False  # others say so
    ours, theirs = first.reshape(-1), other.reshape(-1)
    least = np.float32(_LEAST**2 if square else _LEAST)
    for at in range(0, ours.size, _PIECE):
        size = ours[at : at + _PIECE] ** 2 if square else np.abs(ours[at : at + _PIECE])
        if (size > np.maximum(theirs[at : at + _PIECE] * np.float32(factor), least)).any():
            return True
    return False


def _geometric(ratio: float, steps: int | None) -> float:
    return (1 - (ratio**steps if steps is not None and steps > 0 else 0.0)) / (1 - ratio)


def _number(info: OptimizerInfo, key: str, default: float) -> float:
    value = info.config.get(key, default)
    return float(value) if isinstance(value, int | float) else -1.0  # a schedule: nothing can be said


# ---- between a variable and its slots ----


def _lost(
    owner: str,
    weight: Values,
    held: Mapping[str, Values],
    layer: ownership.Layer | None,
    info: OptimizerInfo,
) -> Iterator[Finding]:
    """Zeros in a row, in a weight that began at random and has been updated: a block that was never written.

    Not where a constraint or an L1 term makes zeros, nor where the initialiser does.
    """
    if layer is None or not _begins_random(owner, layer) or info.class_name == "Ftrl" or not weight.exact:
        return
    array = weight.array
    if np.count_nonzero(array) > array.size - min(_RUN, array.size):
        return
    moved = np.zeros(array.shape, bool)
    for role, slot in held.items():
        if role in _FROM_ZERO and slot.array.shape == array.shape:
            moved |= slot.array != 0
    run = _longest(((array == 0) & moved).reshape(-1))
    if run >= min(_RUN, array.size):
        yield Finding(
            f"model/{owner}", f"{run} values in a row are zero, though each was updated: a lost block"
        )


def _begins_random(owner: str, layer: ownership.Layer) -> bool:
    leaf, config = owner.rpartition("/")[2], layer.config
    if layer.kind not in vocabulary.LAYERS or not leaf.endswith("kernel"):
        return False
    if any(value for key, value in config.items() if str(key).endswith("_constraint")):
        return False
    initial = config.get(f"{leaf}_initializer", config.get("kernel_initializer"))
    kind = initial.get("class_name") if isinstance(initial, Mapping) else initial
    return str(kind).lower() not in ("zeros", "zero", "constant", "identity", "none")


def _longest(flags: Array) -> int:
    """The length of the longest row of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if edges.size else 0


# ---- the state as a whole ----


class Traces:
    """Whether any training shows in the slots that begin at zero."""

    def __init__(self) -> None:
        self.sums, self.moved, self.summed = 0, False, False

    def see(self, role: str, slot: Values) -> None:
        if role in _FROM_ZERO and slot.array.size:
            self.moved |= not slot.zero
            if role in NON_NEGATIVE:
                self.sums, self.summed = self.sums + 1, self.summed or not slot.zero


def _history(traces: Traces, state: TrainState) -> Iterator[Finding]:
    steps = state.iterations
    if steps is None or ITERATION not in state.specs:
        return
    every = state.optimizer.inner.config.get("gradient_accumulation_steps") if state.optimizer else None
    done = steps // every if isinstance(every, int) and every > 0 else steps
    if steps == 0 and traces.moved:
        yield Finding(ITERATION, "is 0, and the slots hold the history of steps")
    if done > 0 and traces.sums and not traces.summed:
        yield Finding("optimizer", f"all slots are zero after {steps} steps: the optimizer's state is lost")


def _scalars(state: TrainState) -> Iterator[Finding]:
    """What is neither a variable of the model nor a slot of one."""
    slots = set(state.slots)
    for name in state.specs:
        other = name not in slots and (not name.startswith("model/") or REPLICA in name)
        values = Values.of(state.arrays[name]) if other else None
        if values is not None and not values.finite:
            yield Finding(name, "is not finite")
        elif values is not None and name == LEARNING_RATE and not 0 <= values.low <= _FASTEST:
            yield Finding(name, f"is {values.low:g}")
        elif values is not None and name == LEARNING_RATE and not values.low and state.compile_config is None:
            yield Finding(
                name, "is 0: no step would change anything"
            )  # and no config of the file says so too
