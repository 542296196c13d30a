"""Files that a run appends to, as long as its newest checkpoint: TensorBoard event files, CSV logs.

A checkpoint notes how long each such file was. The next attempt cuts what the killed one had written past that, so
that every reader finds each step once, in order. Only files that this run's own attempts wrote are touched: an event
file carries the host and the process id of its writer in its name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

_EVENTS = "events.out.tfevents."
_ABSENT = (FileNotFoundError, NotADirectoryError)


def event_files(folders: Iterable[Path]) -> list[Path]:
    """Event files at any depth below the folders, sorted, each once."""
    # Not rglob, which takes five times as long: this is asked at every checkpoint.
    walks = (walk for folder in folders for walk in os.walk(folder, onerror=_demand_absent))
    return sorted(
        {Path(root, name) for root, _, names in walks for name in names if name.startswith(_EVENTS)}
    )


def sizes(run: Path, files: Iterable[Path]) -> dict[str, int]:
    """Length in bytes by path; relative to the run directory for files inside it, so that a run can be moved."""
    return {_key(run, file): _size(file) for file in files}


def rewind(
    run: Path, recorded: Mapping[str, int], *, folders: Iterable[Path], writers: Iterable[tuple[str, int]]
) -> None:
    """Cut every recorded file to its length, and remove event files that `writers` (host, pid) began after that."""
    for key, size in recorded.items():
        file = run / key
        if file.is_file() and file.stat().st_size > size:
            os.truncate(file, size)
    marks = [f".{host}.{pid}." for host, pid in writers]
    for file in event_files(folders):
        if _key(run, file) not in recorded and any(mark in file.name for mark in marks):
            file.unlink()


def _demand_absent(error: OSError) -> None:
    """A disk that cannot be read must not look like one without logs: these would be removed by the next attempt."""
    if not isinstance(error, (*_ABSENT, PermissionError)):
        raise error


def _size(file: Path) -> int:
    try:
        status = file.stat()
    except _ABSENT:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _key(run: Path, file: Path) -> str:
    return str(file.absolute()).removeprefix(f"{run.absolute()}{os.sep}")
