"""How far two states are apart: bits, NaN, integers, dtypes, order, bounded reading."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from resume import difference
from resume.state import Arrays, TrainState, spec_of

Make = Callable[..., TrainState]


def changed(state: TrainState, **arrays: Any) -> TrainState:
    """The state with arrays replaced (`_` for `/`), or left out where None is given."""
    named = {name.replace("__", "/"): value for name, value in arrays.items()}
    kept = {name: array for name, array in state.arrays.items() if named.get(name, ...) is not None}
    return replace(state, arrays=Arrays.of(kept | {n: v for n, v in named.items() if v is not None}))


def only(comparison: difference.Comparison) -> difference.Difference:
    (found,) = comparison.findings
    return found


def test_equal_to_itself(make_state: Make) -> None:
    compared = difference.compare(make_state(7), make_state(7))
    assert compared.equal
    assert compared.equal_arrays == 6


def test_equal_digests_are_not_read(make_state: Make) -> None:
    def read(name: str) -> Any:
        raise AssertionError(f"{name} was read")

    state = make_state(7)
    unread = replace(state, arrays=Arrays(state.specs, read=read))
    assert difference.compare(unread, unread).equal
    foreign = {name: replace(spec, digest=None) for name, spec in state.specs.items()}
    with pytest.raises(AssertionError, match="was read"):
        difference.compare(replace(state, arrays=Arrays(foreign, read=read)), state)


def test_without_digests_bytes_decide(make_state: Make) -> None:
    state = make_state(7)
    specs = {name: replace(spec, digest=None) for name, spec in state.specs.items()}
    foreign = replace(state, arrays=Arrays(specs, read=state.arrays.__getitem__))
    assert difference.compare(foreign, foreign).equal_arrays == 6
    assert not difference.compare(foreign, changed(state, model__dense__bias=np.ones(2, "float32"))).equal


def test_one_pair_is_read_at_a_time(make_state: Make) -> None:
    log = []

    def foreign(label: str, state: TrainState) -> TrainState:
        def read(name: str) -> Any:
            log.append((label, name))
            return state.arrays[name]

        specs = {name: replace(spec, digest=None) for name, spec in state.specs.items()}
        return replace(state, arrays=Arrays(specs, read=read))

    difference.compare(foreign("a", make_state(7)), foreign("b", make_state(8)))
    assert log == [(side, name) for name in make_state(7).specs for side in ("a", "b")]


def test_a_value(make_state: Make) -> None:
    state = make_state(7)
    kernel = state.arrays["model/dense/kernel"].copy()
    kernel[2, 1] += 3.0
    found = only(difference.compare(state, changed(state, model__dense__kernel=kernel)))
    assert found.json() == {
        "name": "model/dense/kernel",
        "kind": "value",
        "saved": "12",
        "found": "15",
        "largest": 3.0,
        "relative": 0.2,
        "differing": 1,
        "elements": 6,
    }
    assert str(found) == (
        "model/dense/kernel: 12 -> 15 at [2, 1], apart by 3 (0.2 of the largest value); 1 of 6 values differ"
    )


def test_missing_on_either_side(make_state: Make) -> None:
    state = make_state(7)
    less = changed(state, optimizer__momentum__dense__bias=None)
    lost, added = only(difference.compare(state, less)), only(difference.compare(less, state))
    assert (lost.kind, lost.saved, lost.found) == ("missing", "float32[2]", None)
    assert (added.kind, added.saved, added.found) == ("missing", None, "float32[2]")
    assert str(lost) == "optimizer/momentum/dense/bias: only in A: float32[2]"
    assert str(added) == "optimizer/momentum/dense/bias: only in B: float32[2]"


def test_shape_and_dtype(make_state: Make) -> None:
    state = make_state(7)
    found = only(difference.compare(state, changed(state, model__dense__bias=np.zeros(3, "float32"))))
    assert (found.kind, found.saved, found.found) == ("shape", "float32[2]", "float32[3]")
    found = only(difference.compare(state, changed(state, model__dense__bias=np.full(2, 0.5, "float64"))))
    assert (found.kind, found.saved, found.found) == ("dtype", "float32[2]", "float64[2]")
    assert found.json()["largest"] == 0.5


def test_largest_first_after_what_is_missing(make_state: Make) -> None:
    state = make_state(7)
    other = changed(
        state,
        model__dense__kernel=state.arrays["model/dense/kernel"] + 1,
        model__dense__bias=np.full(2, 9, "float32"),
        optimizer__iteration=np.asarray(8),
        optimizer__momentum__dense__bias=np.full(2, np.nan, "float32"),
        optimizer__momentum__dense__kernel=None,
    )
    assert [f.name for f in difference.compare(state, other).findings] == [
        "optimizer/iteration",
        "optimizer/momentum/dense/kernel",
        "optimizer/momentum/dense/bias",
        "model/dense/bias",
        "model/dense/kernel",
    ]


def test_tolerance(make_state: Make) -> None:
    state = make_state(7)
    near = changed(state, model__dense__bias=np.full(2, 1e-6, "float32"))
    assert not difference.compare(state, near).equal
    compared = difference.compare(state, near, atol=1e-5)
    assert (compared.equal, compared.equal_arrays, compared.close) == (True, 5, 1)
    nan = changed(state, model__dense__bias=np.asarray([0, np.nan], "float32"))
    assert not difference.compare(state, nan, atol=1e9).equal


def test_position_and_progress(make_state: Make) -> None:
    state = make_state(7, progress={"callbacks": {"early": {"wait": 1, "best": 0.5}}})
    other = replace(state, epoch=2, batch=None, progress={"callbacks": {"early": {"wait": 2, "best": 0.5}}})
    assert [(f.name, f.kind, f.saved, f.found) for f in difference.compare(state, other).findings] == [
        ("epoch", "position", "1", "2"),
        ("batch", "position", "2", None),
        ("callbacks.early.wait", "position", "1", "2"),
    ]


def test_lengths_of_log_files_are_no_state(make_state: Make) -> None:
    """Event files are named after host, process and time: no two runs have the same."""
    wait = {"early": {"wait": 1}}
    one = make_state(7, progress={"callbacks": wait, "files": {"logs/events.out.tfevents.1.a.8.0": 40}})
    other = make_state(7, progress={"callbacks": wait, "files": {"logs/events.out.tfevents.2.a.9.0": 88}})
    assert difference.compare(one, other).equal
    assert difference.compare(one, make_state(7, progress={"callbacks": wait})).equal
    later = replace(other, progress={**other.progress, "callbacks": {"early": {"wait": 2}}})
    assert only(difference.compare(one, later)).name == "callbacks.early.wait"


# ---- apart ----


def apart(a: Any, b: Any, dtype: Any = "float32") -> difference.Values:
    return difference.apart(np.asarray(a, dtype), np.asarray(b, dtype))


def test_nan_on_both_sides_is_no_difference_and_on_one_side_is_the_largest() -> None:
    both = apart([np.nan, 1.0], [np.nan, 1.5])
    assert (both.largest, both.at, both.differing, both.nan) == (0.5, (1,), 1, (1, 1))
    one = apart([np.nan, 1.0], [0.0, 9.0])
    assert (one.largest, one.at, one.nan) == (math.inf, (0,), (1, 0))


def test_nan_on_one_side_is_said_and_null_in_json() -> None:
    found = difference.Difference("x", "value", "nan", "0", apart([np.nan, 1.0], [0.0, 1.0]))
    assert str(found) == "x: nan -> 0 at [0]; 1 of 2 values differ, NaN in 1 -> 0"
    assert found.json()["largest"] is None


def test_infinities() -> None:
    assert apart([np.inf], [np.inf]).largest == 0
    assert apart([np.inf], [-np.inf]).largest == math.inf
    assert apart([np.inf], [1.0]).largest == math.inf


def test_bits_that_do_not_change_the_value() -> None:
    values = apart([0.0, 1.0], [-0.0, 1.0])
    assert (values.largest, values.differing) == (0.0, 1)
    found = difference.Difference("x", "value", "0", "-0", values)
    assert str(found) == "x: 0 -> -0 at [0]; 1 of 2 values differ, in bits that do not change the value"


def test_counters_beyond_what_float64_holds() -> None:
    assert apart([2**53 + 1], [2**53], "int64").largest == 1
    assert apart([-(2**63)], [2**63 - 1], "int64").largest == float(2**64)
    assert apart([0], [2**64 - 1], "uint64").largest == float(2**64)


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "float16", "float64", "complex64", ml_dtypes.bfloat16]
)
def test_every_dtype(dtype: Any) -> None:
    values = apart([0, 1], [1, 1], dtype)
    assert (values.largest, values.at, values.differing, values.elements) == (1.0, (0,), 1, 2)


def test_scalars_and_nothing() -> None:
    assert apart(1.0, 3.0).at == ()
    assert apart(1.0, 3.0).relative == pytest.approx(2 / 3)
    assert apart(np.zeros((0, 3)), np.zeros((0, 3))).largest == 0
    assert apart([0.0], [0.0]).relative == 0


def test_the_largest_is_found_in_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "_AT_ONCE", 4)
    a, b = np.zeros((3, 4), "float32"), np.zeros((3, 4), "float32")
    b[1, 1], b[2, 3], a[0, 0] = 1, 2, -8
    b[0, 0] = -8
    values = difference.apart(a, b)
    assert (values.largest, values.at, values.differing, values.elements) == (2.0, (2, 3), 2, 12)
    assert values.relative == 0.25


def test_memory_is_that_of_a_part(make_state: Make) -> None:
    a, b = np.zeros(1 << 24, "float32"), np.zeros(1 << 24, "float32")
    b[-1] = 1
    states = [make_state(7, extra={"model/large": array}) for array in (a, b)]
    foreign = [
        replace(
            s,
            arrays=Arrays(
                {n: replace(spec, digest=None) for n, spec in s.specs.items()}, read=s.arrays.__getitem__
            ),
        )
        for s in states
    ]
    tracemalloc.start()
    found = only(difference.compare(*foreign))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.json()["largest"] == 1
    assert peak < a.nbytes / 2  # a few float64 copies of one part, none of a whole array


def test_specs_are_those_of_the_arrays(make_state: Make) -> None:
    """The helper of this file makes honest states."""
    state = changed(make_state(7), model__dense__bias=np.ones(2, "float32"))
    assert state.specs["model/dense/bias"] == spec_of(np.ones(2, "float32"))
