"""Two finished runs, file by file and bit by bit: arrays, history and callbacks, TensorBoard series, other logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resume import difference, lineage, rundir
from resume.state import TrainState

_TEXTS = (".csv", ".tsv", ".txt", ".log", ".json", ".jsonl")
_OURS = (
    "lineage.jsonl",
    "owner.json",
    "owner.left.json",
    "heartbeat.json",
    "lock",
    "lock.door",
    "config.yaml",
)
Series = dict[str, list[tuple[int, bytes]]]


def differences(whole: Path, broken: Path) -> list[str]:
    """A line for each part that differs; none where the second run is the first, bit for bit."""
    a, b = rundir.read(whole), rundir.read(broken)
    lines = [*_arrays(a, b), *_progress(a, b), *_series(whole, broken), *_texts(whole, broken)]
    return lines + [f"lineage: {line}" for line in lineage.breaks(broken)]


def arrays(whole: Path) -> int:
    return len(rundir.read(whole).specs)


def _arrays(a: TrainState, b: TrainState) -> Iterator[str]:
    names = sorted(a.specs.keys() | b.specs.keys())
    yield from (f"array {name}" for name in names if a.specs.get(name) != b.specs.get(name))


def _progress(a: TrainState, b: TrainState) -> Iterator[str]:
    """Sections of the checkpoint beside its arrays."""
    one, other = difference.progress(a), difference.progress(b)
    for key in sorted(one.keys() | other.keys()):
        ours, theirs = (json.dumps(sections.get(key), sort_keys=True) for sections in (one, other))
        if ours != theirs:
            yield f"{key}"


def _series(whole: Path, broken: Path) -> Iterator[str]:
    ours, theirs = _events(whole), _events(broken)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield f"TensorBoard series {name}"


def _events(run: Path) -> Series:
    """Every scalar series of the run but our own, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Series = {}
    folders = {file.parent for file in run.rglob("events.out.tfevents.*")} - {run / "logs" / "resume"}
    for folder in sorted(folders):
        events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            points = [(e.step, e.tensor_proto.SerializeToString()) for e in events.Tensors(tag)]
            found[f"{folder.relative_to(run)}/{tag}"] = points
    return found


def _texts(whole: Path, broken: Path) -> Iterator[str]:
    for file in sorted(_files(whole) | _files(broken)):
        ours, theirs = whole / file, broken / file
        if not (ours.is_file() and theirs.is_file() and ours.read_bytes() == theirs.read_bytes()):
            yield f"file {file}"


def _files(run: Path) -> set[Path]:
    found = (file.relative_to(run) for file in run.rglob("*") if file.suffix in _TEXTS and file.is_file())
    return {file for file in found if file.parts[0] != "checkpoints" and file.name not in _OURS}


def compared(whole: Path, broken: Path, file: Path) -> None:
    """The comparison as JSON, for the process that asked for it."""
    facts: dict[str, Any] = {"differences": differences(whole, broken), "arrays": arrays(whole)}
    file.write_text(json.dumps(facts))
