"""Training states: specs, digests, what counts as a slot."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import xxhash

from resume.state import Arrays, OptimizerInfo, Spec, TrainState, digest, dtype_named, is_slot, spec_of


def state_of(arrays: dict[str, object], **facts: object) -> TrainState:
    held = Arrays.of({name: np.asarray(array) for name, array in arrays.items()})
    return TrainState(format="native", path=Path(), arrays=held, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "shown", "nbytes"),
    [
        (np.zeros((3, 2), "float32"), "float32[3, 2]", 24),
        (np.zeros((), "int64"), "int64[]", 8),
        (np.zeros((0, 4), "float64"), "float64[0, 4]", 0),
        (np.zeros(5, ml_dtypes.bfloat16), "bfloat16[5]", 10),
        (np.zeros(5, "bool"), "bool[5]", 5),
    ],
)
def test_spec(array: np.ndarray, shown: str, nbytes: int) -> None:
    assert str(spec_of(array)) == shown
    assert spec_of(array).nbytes == nbytes
    assert dtype_named(spec_of(array).dtype) == array.dtype


def test_digest_is_of_the_bytes() -> None:
    array = np.arange(6, dtype="float32").reshape(3, 2)
    assert digest(array) == xxhash.xxh3_128(array.tobytes()).hexdigest()
    assert digest(np.asfortranarray(array)) == digest(array)
    assert digest(array[::2]) == digest(array[::2].copy())
    assert digest(np.array(-0.0)) != digest(np.array(0.0))
    assert digest(np.zeros((4, 0), "float32")) == "99aa06d3014798d86001c324468d497f"  # of no bytes at all


def test_nan_payloads_are_told_apart() -> None:
    quiet, other = (np.array([bits], "uint32").view("float32") for bits in (0x7FC00000, 0x7FC00001))
    assert digest(quiet) != digest(other)


def test_unknown_dtype() -> None:
    with pytest.raises(KeyError, match="float8"):
        dtype_named("float8_e4m3fn")


def test_arrays_are_read_when_asked_for() -> None:
    asked = []

    def read(name: str) -> np.ndarray:
        asked.append(name)
        return np.zeros(2, "float32")

    arrays = Arrays({"model/a": Spec("float32", (2,)), "model/b": Spec("float32", (2,))}, read=read)
    assert (list(arrays), len(arrays), asked) == (["model/a", "model/b"], 2, [])
    assert arrays["model/b"].tolist() == [0, 0]
    assert asked == ["model/b"]
    with pytest.raises(KeyError, match="model/c"):
        arrays["model/c"]


def test_other_byte_order_is_turned_around() -> None:
    arrays = Arrays.of({"a": np.array([1, 2], ">i4"), "b": np.array([1, 2], "<i4")})
    assert arrays.specs["a"] == arrays.specs["b"]
    assert arrays["a"].tobytes() == arrays["b"].tobytes()


def test_arrays_in_memory_are_not_copied() -> None:
    array = np.arange(3)
    assert Arrays.of({"a": array})["a"] is array


@pytest.mark.parametrize(
    ("name", "shape", "slot"),
    [
        ("optimizer/momentum/dense/kernel", (3, 2), True),
        ("optimizer/r/dense/bias", (), True),  # Adafactor's placeholder
        ("optimizer/momentum/kernel", (2,), True),
        ("optimizer/vars/4", (3, 2), True),
        ("optimizer/vars/2", (), False),  # a counter of an inner optimizer
        ("optimizer/iteration", (), False),
        ("optimizer/loss_scale/dynamic_scale", (), False),
        ("optimizer/inner/0/iteration", (), False),
        ("model/dense/kernel", (3, 2), False),
        ("metrics/momentum/x", (2,), False),
    ],
)
def test_slots(name: str, shape: tuple[int, ...], slot: bool) -> None:
    assert is_slot(name, Spec("float32", shape)) is slot
    state = state_of({name: np.zeros(shape, "float32")})
    assert state.slots == ((name,) if slot else ())


def test_facts() -> None:
    state = state_of({
        "model/w": np.zeros(3, "float32"),
        "optimizer/iteration": np.asarray(7, "int64"),
        "optimizer/learning_rate": np.asarray(0.5, "float32"),
    })  # fmt: skip
    assert (state.iterations, state.learning_rate, state.weights, state.nbytes) == (7, 0.5, ("model/w",), 24)
    assert (state_of({}).iterations, state_of({}).learning_rate) == (None, None)


def test_a_schedule_has_no_learning_rate() -> None:
    schedule = OptimizerInfo("Adam", {"learning_rate": {"class_name": "CosineDecay", "config": {}}})
    arrays = {"optimizer/learning_rate": np.asarray(0.5, "float32")}
    assert state_of(arrays, optimizer=schedule).learning_rate is None
    wrapped = OptimizerInfo(
        "LossScaleOptimizer", {"inner_optimizer": {"class_name": "Adam", "config": schedule.config}}
    )
    assert state_of(arrays, optimizer=wrapped).learning_rate is None


def test_inner_optimizer() -> None:
    adam = OptimizerInfo("Adam", {"beta_1": 0.9})
    assert adam.inner is adam
    wrapped = {"class_name": "Adam", "config": {"beta_1": 0.9}}
    assert OptimizerInfo("LossScaleOptimizer", {"inner_optimizer": wrapped}).inner == adam
    bare = OptimizerInfo("LossScaleOptimizer", {})
    assert bare.inner is bare
