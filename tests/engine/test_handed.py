from __future__ import annotations

import gc

from resume.engine.handed import Remembered


class Same:
    """Equal to each other, and not to be hashed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same)

    __hash__ = None  # type: ignore[assignment]


def test_facts_are_of_one_object_as_long_as_it_lives() -> None:
    known: Remembered[int] = Remembered()
    one, other = Same(), Same()
    known.note(one, 1)
    known.note(one, 2)
    assert (known.of(one), known.of(other)) == (2, None)
    known.note(other, 3)
    del one
    gc.collect()
    assert (known.of(other), len(known._known)) == (3, 1)
    del other
    gc.collect()
    assert not known._known
