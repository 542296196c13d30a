"""`resume list RUN`: the checkpoints of a run, and its attempts as a timeline. No TensorFlow."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resume import lineage, rundir
from resume.commands import table
from resume.commands.place import Place, opened
from resume.errors import SourceError
from resume.formats import native
from resume.rundir import Checkpoint


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    with opened(options.run) as place:
        _show(place, attempts_alone=options.attempts, as_json=options.json)
    return 0


def _show(place: Place, *, attempts_alone: bool, as_json: bool) -> None:
    if not rundir.is_run(place.path):
        raise SourceError(f"{place.path}: not a run directory (no checkpoints/ and no lineage.jsonl in it).")
    if attempts_alone:
        table.show(attempts(place.path, as_json=as_json), as_json=as_json)
        return
    rows = [{**row, "path": place.shown(row["path"])} for row in _rows(place.path, as_json=as_json)]
    table.show(rows, as_json=as_json)
    if as_json:
        return
    if not rows:
        print(f"{place.name}: nothing has been published yet.")
    if history := attempts(place.path, as_json=False):
        print()
        table.show(history, as_json=False)


def attempts(run: Path, *, as_json: bool) -> list[dict[str, Any]]:
    """One attempt a row; the keys are a stable interface. Seconds since 1970 for machines, text for people."""
    rows = lineage.timeline(lineage.read(run))
    return rows if as_json else [_for_people(row) for row in rows]


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    out = {key: "-" if value is None else value for key, value in row.items()}
    began = row["time"]
    return out | {"time": time.strftime("%F %T", time.localtime(began)) if began is not None else "-"}


def _rows(run: Path, *, as_json: bool) -> Iterator[dict[str, Any]]:
    for checkpoint in rundir.checkpoints(run):
        try:
            row = _row(checkpoint, as_json=as_json)
        except FileNotFoundError:  # a training run has just retired it
            continue
        if checkpoint.path.exists():
            yield row


def _row(checkpoint: Checkpoint, *, as_json: bool) -> dict[str, Any]:
    """One checkpoint; the keys are a stable interface. `time` is seconds since 1970, or text for people."""
    damage = checkpoint.damage()
    manifest = _manifest(checkpoint)
    written = manifest.get("time")
    return {
        "step": checkpoint.step,
        "epoch": manifest.get("epoch"),
        "batch": manifest.get("batch"),
        "path": str(checkpoint.path),
        "whole": not damage,
        "bytes": sum(file.stat().st_size for file in checkpoint.path.glob("*")),
        "time": written if as_json or written is None else time.strftime("%F %T", time.localtime(written)),
    }


def _manifest(checkpoint: Checkpoint) -> dict[str, Any]:
    try:
        return native.read_manifest(checkpoint.path)
    except SourceError:
        return {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume list",
        description="The checkpoints of a run, oldest first, and its attempts: where each began and ended, what it "
        "repeated of the one before, and why it ended.",
    )
    parser.add_argument("run", help="a run directory, or the URL of one")
    parser.add_argument("--attempts", action="store_true", help="the attempts alone")
    parser.add_argument("--json", action="store_true", help="one JSON list (of checkpoints, or of attempts)")
    return parser
