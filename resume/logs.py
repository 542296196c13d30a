"""Files that a run appends to, as long as its newest checkpoint: TensorBoard event files, CSV logs.

A checkpoint notes how long each such file was. The next attempt cuts what the killed one had written past that, so
that every reader finds each step once, in order. Only files that this run's own attempts wrote are touched: an event
file carries the host and the process id of its writer in its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_EVENTS = "events.out.tfevents."


def event_files(folders: Iterable[Path]) -> list[Path]:
    """Event files at any depth below the folders, sorted, each once."""
    found = {file for folder in folders if folder.is_dir() for file in folder.rglob(f"{_EVENTS}*")}
    return sorted(found)


def sizes(run: Path, files: Iterable[Path]) -> dict[str, int]:
    """Length in bytes by path; relative to the run directory for files inside it, so that a run can be moved."""
    return {_key(run, file): file.stat().st_size if file.is_file() else 0 for file in files}


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


def _key(run: Path, file: Path) -> str:
    absolute, root = file.absolute(), run.absolute()
    return str(absolute.relative_to(root) if absolute.is_relative_to(root) else absolute)
