"""Where a command looks: a path as it is, of a URL a copy, which nobody is told about."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resume import tiers, urls
from resume.errors import ResumeError


@dataclass(frozen=True)
class Place:
    """`name`: what the user called it."""

    name: str
    path: Path

    def shown(self, text: object) -> str:
        """With the user's name in place of the copy's."""
        return str(text).replace(str(self.path), self.name) if urls.is_remote(self.name) else str(text)


@contextlib.contextmanager
def opened(name: str, *, newest: bool = False) -> Iterator[Place]:
    """For as long as the context lasts; `newest`: of a run its newest whole checkpoint is enough."""
    with tiers.local_copy(name, newest=newest) as path:
        place = Place(name.rstrip("/") if urls.is_remote(name) else name, path)
        try:
            yield place
        except ResumeError as error:
            error.args = (place.shown(error), *error.args[1:])
            raise
