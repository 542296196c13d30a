"""What this process remembers of objects that it was handed.

The same may come to several trainings, one after the other, as in a notebook whose cell is run again.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any, Generic, TypeVar

Fact = TypeVar("Fact")


class Remembered(Generic[Fact]):
    """A fact of each object as long as that lives; by identity, whatever its class says of equality."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Fact]] = {}

    def of(self, item: Any) -> Fact | None:
        """None where nothing is known."""
        reference, fact = self._known.get(id(item), (None, None))
        return fact if reference is not None and reference() is item else None

    def note(self, item: Any, fact: Fact) -> None:
        key = id(item)

        def forget(gone: weakref.ref[Any]) -> None:
            if key in self._known and self._known[key][0] is gone:  # another one may live there by now
                del self._known[key]

        self._known[key] = weakref.ref(item, forget), fact


MUDDLED = sys.maxsize  # passes over what is no longer where any number of them leaves it

# Over data that goes on from pass to pass (a dataset that shuffles, a PyDataset with epoch hooks), by trainings and by
# validations, and how many batches there are where that takes a pass to find out.
trained: Remembered[int] = Remembered()
validated: Remembered[int] = Remembered()
counted: Remembered[int] = Remembered()
