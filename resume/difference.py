"""Two training states side by side: what differs in settings, position and every array. NumPy only.

Arrays are compared by canonical name and by their bytes: equal means bit for bit. Of arrays that differ it is said by
how much. Two arrays are in memory at a time; where both sources have digests and these agree, none is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from resume import declaration
from resume.state import Spec, TrainState

_AT_ONCE = 1 << 18  # elements that are widened to float64 at a time
_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Values:
    """How far two arrays of one shape are apart. `largest` is infinite where one side alone is not a finite number."""

    largest: float
    relative: float  # to the largest finite magnitude in either
    at: tuple[int, ...]  # where it is
    differing: int  # elements whose bits differ
    elements: int
    nan: tuple[int, int]  # elements that are NaN, on either side


@dataclass(frozen=True)
class Difference:
    """One difference. `kind`: config, position, missing (None stands for the side without it), dtype, shape, value."""

    name: str
    kind: str
    saved: str | None
    found: str | None
    values: Values | None = None

    def json(self) -> dict[str, Any]:
        """With `largest` and `relative`; infinite ones are null, for JSON has no such number."""
        values = self.values
        return {
            "name": self.name,
            "kind": self.kind,
            "saved": self.saved,
            "found": self.found,
            "largest": values.largest if values and math.isfinite(values.largest) else None,
            "relative": values.relative if values and math.isfinite(values.relative) else None,
            "differing": values.differing if values else None,
            "elements": values.elements if values else None,
        }

    def __str__(self) -> str:
        if self.kind == "missing":
            return f"{self.name}: only in {'B' if self.saved is None else 'A'}: {self.saved or self.found}"
        text = f"{self.name}: {_or_none(self.saved)} -> {_or_none(self.found)}"
        return text if self.values is None or self.values.elements == 1 else f"{text} {_apart(self.values)}"


def _or_none(text: str | None) -> str:
    return "-" if text is None else text


def _apart(values: Values) -> str:
    index = ", ".join(map(str, values.at))
    share = f"{values.differing} of {values.elements} values differ"
    if values.nan[0] != values.nan[1]:
        return f"at [{index}]; {share}, NaN in {values.nan[0]} -> {values.nan[1]}"
    if values.largest == 0:
        return f"at [{index}]; {share}, in bits that do not change the value"
    return (
        f"at [{index}], apart by {values.largest:.3g} ({values.relative:.2g} of the largest value); {share}"
    )


@dataclass(frozen=True)
class Comparison:
    """All differences, the most telling first. `equal_arrays`: bit-equal; `close`: others within the tolerance."""

    findings: tuple[Difference, ...]
    equal_arrays: int
    close: int

    @property
    def equal(self) -> bool:
        return not self.findings


def compare(saved: TrainState, found: TrainState, *, atol: float = 0.0) -> Comparison:
    """Settings first, then position, then arrays: missing ones, other shapes and dtypes, values by largest difference.

    `atol`: arrays of one dtype and shape whose values are nowhere further apart than this count as equal.
    """
    arrays = [(name, _array(name, saved, found, atol=atol)) for name in _either(saved.specs, found.specs)]
    findings = [difference for _, difference in arrays if isinstance(difference, Difference)]
    return Comparison(
        findings=(*_declared(saved, found), *_position(saved, found), *sorted(findings, key=_rank)),
        equal_arrays=sum(difference is True for _, difference in arrays),
        close=sum(difference is False for _, difference in arrays),
    )


def _either(saved: Iterable[str], found: Iterable[str]) -> Iterator[str]:
    yield from dict.fromkeys((*saved, *found))


def _rank(difference: Difference) -> tuple[int, float]:
    order = {"missing": 0, "shape": 1, "dtype": 2, "value": 3}
    if difference.name.startswith("optimizer/iteration"):
        return -1, 0.0
    return order[difference.kind], -difference.values.largest if difference.values else 0.0


def _declared(saved: TrainState, found: TrainState) -> Iterator[Difference]:
    same_version = saved.keras_version == found.keras_version
    ours, theirs = declaration.declared(saved), declaration.declared(found)
    for leaf in declaration.compare(ours, theirs, same_version=same_version):
        kind = "missing" if leaf.whole else "config"
        yield Difference(leaf.name, kind, declaration.shown(leaf.saved), declaration.shown(leaf.found))


def _position(saved: TrainState, found: TrainState) -> Iterator[Difference]:
    for name in ("epoch", "batch"):
        ours, theirs = getattr(saved, name), getattr(found, name)
        if ours != theirs:
            yield Difference(name, "position", _number(ours), _number(theirs))
    for name, ours, theirs in _leaves(progress(saved), progress(found)):
        yield Difference(name, "position", declaration.shown(ours), declaration.shown(theirs))


def progress(state: TrainState) -> dict[str, Any]:
    """A state's progress without `files`: how long each attempt's logs were, which no next step depends on."""
    return {section: found for section, found in state.progress.items() if section != "files"}


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _leaves(saved: Any, found: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(saved, Mapping) and isinstance(found, Mapping):
        for key in _either(saved, found):
            yield from _leaves(saved.get(key), found.get(key), f"{name}.{key}" if name else str(key))
    elif saved != found:
        yield name, saved, found


def _array(name: str, saved: TrainState, found: TrainState, *, atol: float) -> Difference | bool:
    """True for arrays that are bit-equal, False for ones that are within `atol`."""
    ours, theirs = saved.specs.get(name), found.specs.get(name)
    if ours is None or theirs is None:
        return Difference(name, "missing", _spec(ours), _spec(theirs))
    if ours.shape != theirs.shape:
        return Difference(name, "shape", _spec(ours), _spec(theirs))
    if ours.dtype == theirs.dtype and ours.digest is not None and ours.digest == theirs.digest:
        return True
    one, other = saved.arrays[name], found.arrays[name]
    if ours.dtype == theirs.dtype and _same_bits(one, other):
        return True
    values = apart(one, other)
    if ours.dtype != theirs.dtype:
        return Difference(name, "dtype", _spec(ours), _spec(theirs), values)
    if values.largest <= atol and atol:
        return False
    return Difference(name, "value", _at(one, values.at), _at(other, values.at), values)


def _spec(spec: Spec | None) -> str | None:
    return None if spec is None else str(spec)


def _at(array: _Array, index: tuple[int, ...]) -> str:
    value = array[index]
    return (
        str(int(value))
        if array.dtype.kind in "iub"
        else f"{complex(value) if array.dtype.kind == 'c' else float(value):.9g}"
    )


def apart(saved: _Array, found: _Array) -> Values:
    """How far two arrays of one shape are apart, a part of them at a time."""
    one, other = _flat(saved), _flat(found)
    largest, at, magnitude, differing, nan = -1.0, 0, 0.0, 0, [0, 0]
    for start, a, b in _parts(one, other):
        gaps, x, y = _gaps(a, b)
        peak = int(np.argmax(gaps))
        if gaps[peak] > largest:
            largest, at = float(gaps[peak]), start + peak
        finite = [np.abs(v[np.isfinite(v)]) for v in (x, y)]
        magnitude = max(magnitude, *(float(v.max()) for v in finite if v.size), 0.0)
        differing += _differing(a, b)
        nan = [nan[0] + int(np.isnan(x).sum()), nan[1] + int(np.isnan(y).sum())]
    largest = max(largest, 0.0)
    return Values(
        largest=largest,
        relative=largest / magnitude if magnitude else math.inf if largest else 0.0,
        at=tuple(int(i) for i in np.unravel_index(at, saved.shape)) if saved.size else (),
        differing=differing,
        elements=one.size,
        nan=(nan[0], nan[1]),
    )


def _flat(array: _Array) -> _Array:
    return np.ascontiguousarray(array).reshape(-1)


def _parts(one: _Array, other: _Array) -> Iterator[tuple[int, _Array, _Array]]:
    for start in range(0, one.size, _AT_ONCE):
        yield start, one[start : start + _AT_ONCE], other[start : start + _AT_ONCE]


def _same_bits(one: _Array, other: _Array) -> bool:
    return all(a.tobytes() == b.tobytes() for _, a, b in _parts(_flat(one), _flat(other)))


def _gaps(a: _Array, b: _Array) -> tuple[_Array, _Array, _Array]:
    """|a - b| element by element, and both sides widened; infinite where only one side is NaN or infinite."""
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(_exact(a, b) if a.dtype == b.dtype and a.dtype.kind in "iu" else x - y)
    alike = (np.isnan(x) & np.isnan(y)) | (x == y)
    return np.where(alike & ~np.isfinite(x), 0.0, np.where(np.isnan(gaps), np.inf, gaps)), x, y


def _exact(a: _Array, b: _Array) -> _Array:
    """The difference of integers, before float64 rounds counters of 2**53 and more to equal ones."""
    unsigned = a.dtype.str.replace("i", "u")
    gap = np.where(a > b, a.view(unsigned) - b.view(unsigned), b.view(unsigned) - a.view(unsigned))
    wide: _Array = gap.astype(np.float64)
    return wide


def _differing(a: _Array, b: _Array) -> int:
    if a.dtype != b.dtype:
        return int(np.count_nonzero(a != b))
    width = a.dtype.itemsize
    rows = (v.view(np.uint8).reshape(-1, width) for v in (a, b))
    return int(np.count_nonzero((next(rows) != next(rows)).any(axis=1)))
