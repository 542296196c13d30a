"""The append-only record of a run: one JSON object a line in lineage.jsonl.

    {"event": "start", "attempt": 2, "from": {...}, "verdict": "exact", "host": ..., "pid": ..., ...}
    {"event": "checkpoint", "attempt": 2, "path": "checkpoints/step-00000040", "digest": ..., "step": 40, ...}
    {"event": "end", "attempt": 2, "reason": "completed", "step": 80}

A killed attempt has no end. A line that a kill has cut short is skipped, and never glued to the next.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resume.errors import NoProgressError
from resume.formats import native
from resume.rundir import Checkpoint, checkpoints

FILE = "lineage.jsonl"
Record = Mapping[str, Any]


def read(run: Path) -> list[Record]:
    """All whole lines, oldest first."""
    file = run / FILE
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    parsed = (_parse(line) for line in lines)
    return [record for record in parsed if record is not None]


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record else None


def append(run: Path, event: str, **facts: Any) -> None:
    """Add a line and sync it."""
    line = json.dumps({"event": event, "time": time.time(), **facts}, default=str).encode()
    handle = os.open(run / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, (b"\n" if torn else b"") + line + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def attempts(records: Sequence[Record]) -> list[Record]:
    return [r for r in records if r["event"] == "start"]


def fruitless(records: Sequence[Record]) -> list[str]:
    """The attempts since the last new checkpoint that were nobody's doing but their own, a sentence each.

    A preempted or interrupted attempt without a checkpoint is nobody's fault, and a completed one needs none.
    """
    found: list[str] = []
    fruitful = {r["attempt"] for r in records if r["event"] == "checkpoint"}
    ends = {r["attempt"]: str(r.get("reason")) for r in records if r["event"] == "end"}
    for start in reversed(attempts(records)):
        reason = ends.get(start["attempt"])
        if start["attempt"] in fruitful or reason == "completed":
            break
        if reason is None or reason.startswith("failed"):
            found.append(
                f"attempt {start['attempt']}: {reason or 'ended without a word (killed, or crashed)'}"
            )
    return found[::-1]


def demand_progress(run: Path, *, most: int | None) -> None:
    """Raises NoProgressError where `most` attempts in a row have ended without a new checkpoint."""
    found = fruitless(read(run))
    if most is not None and len(found) >= most:
        lines = "\n".join(f"  {line}" for line in found[-most:])
        raise NoProgressError(
            f"{run}: {len(found)} attempts in a row ended without a new checkpoint; another would end as they did.\n"
            f"{lines}\nOnce the cause is gone: cluster.fruitless={len(found) + 1} lets one more begin (resume.fit: "
            f"fruitless={len(found) + 1})."
        )


def timeline(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row an attempt: where and when it ran, from which step to which, what it repeated, why it ended."""
    starts = attempts(records)
    ends = {r["attempt"]: r for r in records if r["event"] == "end"}
    steps = {r["attempt"]: r["step"] for r in records if r["event"] == "checkpoint"}
    rows = []
    for start, after in itertools.pairwise([*starts, None]):
        assert start is not None  # None stands behind the last
        number, end = start["attempt"], ends.get(start["attempt"], {})
        lost = (after or {}).get("lost") or {}
        begun = (after or {}).get("step")
        reached = [x for x in (end.get("step"), lost.get("step"), steps.get(number)) if isinstance(x, int)]
        rows.append({
            "attempt": number,
            "time": start.get("time"),
            "host": start.get("host"),
            "job": start.get("job"),
            "from": start.get("step"),
            "to": max(reached, default=start.get("step")),
            "published": steps.get(number),
            "repeated": max([*reached, begun]) - begun if isinstance(begun, int) else 0 if end else None,
            "lost_seconds": lost.get("seconds", 0.0 if after or end else None),
            "restore_seconds": start.get("restore_seconds"),
            "end": end.get("reason") or ("killed, or crashed" if after else "running, or killed"),
        })  # fmt: skip
    return rows


def as_markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of `timeline` as a Markdown table, for a reader in a browser."""
    head = ("attempt", "began", "from step", "to step", "steps repeated", "why it ended", "where")
    lines = [head, ("---",) * len(head), *map(_shown, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(row: Mapping[str, Any]) -> tuple[str, ...]:
    began = time.strftime("%F %T", time.localtime(row["time"])) if row["time"] is not None else None
    where = f"{row['host']}, job {row['job']}" if row["job"] else row["host"]
    cells = (row["attempt"], began, row["from"], row["to"], row["repeated"], row["end"], where)
    texts = ("-" if cell is None else str(cell) for cell in cells)
    return tuple(" ".join(text.replace("|", "\\|").split()) for text in texts)


def published(run: Path, checkpoint: Path, *, attempt: int, **facts: Any) -> None:
    """Record a published checkpoint, with the digest of its manifest as its identity."""
    manifest = native.read_manifest(checkpoint)
    append(run, "checkpoint", attempt=attempt, **identity(run, checkpoint, manifest), **facts)


def identity(run: Path, checkpoint: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "path": str(checkpoint.relative_to(run)),
        "digest": manifest["digest"],
        "step": manifest["step"],
        "epoch": manifest["epoch"],
        "batch": manifest["batch"],
    }


def reconcile(run: Path, *, but: Path | None = None) -> None:
    """Record what was published but not noted, by a killed attempt or on a full disk; not `but`, which is yet to be."""
    records = read(run)
    known = {r["digest"] for r in records if r["event"] == "checkpoint"}
    attempt = len(attempts(records))
    named = {r["path"] for r in records if r["event"] == "checkpoint"}
    for checkpoint in checkpoints(run):
        if checkpoint.path == but or (but is not None and str(checkpoint.path.relative_to(run)) in named):
            continue
        if not checkpoint.damage() and native.read_manifest(checkpoint.path)["digest"] not in known:
            published(run, checkpoint.path, attempt=attempt, noted_late=True)


def breaks(run: Path) -> list[str]:
    """Where the lineage is not continuous, a sentence each.

    Every attempt after the first must have begun at a checkpoint that the run had published before, and at the newest
    such one unless the lineage says that newer ones were damaged.
    """
    found: list[str] = []
    known: list[Record] = []
    for record in read(run):
        if record["event"] == "checkpoint":
            known.append(record)
        elif record["event"] == "start":
            found += _start_breaks(record, known)
    return found + _unrecorded(run, known)


def _start_breaks(start: Record, known: Sequence[Record]) -> list[str]:
    attempt, begun = start["attempt"], start.get("from") or {}
    if start.get("verdict") not in ("exact", "partial", "fresh"):
        return [f"attempt {attempt} began with verdict {start.get('verdict')}."]
    if not known:
        return []  # fresh, or from a source outside the run: there was nothing to continue
    digests = [r["digest"] for r in known]
    if begun.get("digest") not in digests:
        return [f"attempt {attempt} did not begin where a checkpoint of this run ended."]
    after = known[len(digests) - digests[::-1].index(begun["digest"]) :]
    # One that was noted late lies behind what was published after it, by its step.
    newer = [r for r in after if not (r.get("noted_late") and (r["step"] or 0) < (begun.get("step") or 0))]
    if newer and not begun.get("passed_over"):
        return [
            f"attempt {attempt} began at step {begun.get('step')}, though step {newer[-1]['step']} was published."
        ]
    return []


def _unrecorded(run: Path, known: Sequence[Record]) -> list[str]:
    digests = {r["digest"] for r in known}
    return [
        f"{c.path}: not in the lineage."
        for c in checkpoints(run)
        if not c.damage() and native.read_manifest(c.path)["digest"] not in digests and not _newest(run, c)
    ]


def _newest(run: Path, checkpoint: Checkpoint) -> bool:
    """A kill between publishing and noting it leaves the newest checkpoint unrecorded until the next attempt."""
    return checkpoint == checkpoints(run)[-1]


def completed(run: Path, *, epochs: int) -> str | None:
    """A sentence when the run is finished and nothing more is asked of it; None otherwise."""
    ends = [r for r in read(run) if r["event"] in ("start", "end", "checkpoint")]
    if not ends or ends[-1]["event"] != "end" or ends[-1].get("reason") != "completed":
        return None
    last = ends[-1]
    stopped = bool(last.get("stopped"))
    if not stopped and last["epoch"] < epochs:
        return None
    more = (
        "a callback has stopped it, more epochs would not change that"
        if stopped
        else "for more, raise fit.epochs"
    )
    return f"finished already, {last['epoch']} epochs, step {last['step']}; {more}"
