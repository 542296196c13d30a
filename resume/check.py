"""What `resume doctor` finds: one thing looked at, how it stands, what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Check:
    """`found`: what was seen, one line; `advice`: what to do, empty where nothing is to be done."""

    check: str
    state: str
    found: str
    advice: str = ""


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """A look that fails is a finding itself: the other looks go on."""
    try:
        yield from look()
    except Exception as error:
        said = str(error).splitlines()
        yield Check(name, PROBLEM, f"{type(error).__name__}: {said[0] if said else 'nothing more is said'}",
                    "this could not be looked at; the run will meet the same error")  # fmt: skip
