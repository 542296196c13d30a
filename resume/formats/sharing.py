"""Files that checkpoints share, by hard links: what does not change (a frozen backbone) is not written again.

The file system counts the references, so that each checkpoint is whole by itself, to verify, to copy and to remove. One
damaged byte must not cost every checkpoint of a run: a checkpoint shares with the one before its predecessor, never
with its predecessor, and so whatever is shared lies on the disk twice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resume.formats.shard import Place
from resume.state import Spec, TrainState

_WORTH = 1 << 20  # bytes; fewer are not worth a file of their own


@dataclass(frozen=True)
class Donor:
    """An earlier checkpoint: its data files and the arrays in each, what the manifest says of them, and by name what
    was equal in the newest checkpoint, and what was not."""

    path: Path
    files: Mapping[str, Mapping[str, Place]]
    facts: Mapping[str, Any]
    same: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()


def still(state: TrainState, donor: Donor | None) -> dict[str, Spec]:
    """Specs, digests included, of what is not expected to change: by what has, and else by what nothing trains."""
    names = state.still if donor is None else (state.still | donor.same) - donor.moved
    specs = {name: spec for name, spec in state.specs.items() if name in names}
    if sum(spec.nbytes for spec in specs.values()) < _WORTH:
        specs = {}
    made = state.arrays.digests([name for name, spec in specs.items() if not spec.digest])
    return {name: replace(spec, digest=made.get(name, spec.digest)) for name, spec in specs.items()}


def link(
    directory: Path, donor: Donor, wanted: Mapping[str, Spec]
) -> tuple[dict[str, Place], dict[str, Any]]:
    """Link every file of which all arrays are wanted; where each array lies now, and the manifest's word on the files.

    A file system without hard links shares nothing: everything is written then.
    """
    places: dict[str, Place] = {}
    facts: dict[str, Any] = {}
    for file, held in donor.files.items():
        if all(wanted.get(name) == place.spec for name, place in held.items()):
            try:
                os.link(donor.path / file, directory / file)
            except OSError:
                continue
            places |= held
            facts[file] = donor.facts[file]
    return places, facts
