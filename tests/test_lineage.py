"""The record of a run: append-only, torn lines skipped, breaks named."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resume import lineage, rundir
from resume.errors import NoProgressError
from resume.state import TrainState

Make = Callable[..., TrainState]


def events(run: Path) -> list[str]:
    return [record["event"] for record in lineage.read(run)]


@pytest.fixture
def run(tmp_path: Path, make_state: Make) -> Path:
    """Attempt 1: checkpoints at steps 1 and 2, then killed."""
    lineage.append(tmp_path, "start", attempt=1, verdict="fresh", **{"from": None})
    for step in (1, 2):
        lineage.published(tmp_path, rundir.publish(tmp_path, make_state(step)).path, attempt=1)
    return tmp_path


def start(run: Path, step: int, attempt: int = 2, **facts: Any) -> None:
    """Record an attempt that begins at the published step."""
    (record,) = [r for r in lineage.read(run) if r["event"] == "checkpoint" and r["step"] == step]
    begun = {"digest": record["digest"], "step": step, **facts}
    lineage.append(run, "start", attempt=attempt, verdict="exact", **{"from": begun})


def test_nothing_recorded_yet(tmp_path: Path) -> None:
    assert lineage.read(tmp_path) == []
    assert lineage.breaks(tmp_path) == []
    assert lineage.completed(tmp_path, epochs=1) is None


def test_a_published_checkpoint_is_identified(run: Path) -> None:
    record = lineage.read(run)[-1]
    manifest = lineage.native.read_manifest(run / "checkpoints/step-00000002")
    assert {k: record[k] for k in ("event", "attempt", "path", "digest", "step", "epoch", "batch")} == {
        "event": "checkpoint",
        "attempt": 1,
        "path": "checkpoints/step-00000002",
        "digest": manifest["digest"],
        "step": 2,
        "epoch": 1,
        "batch": 2,
    }


def test_a_torn_last_line_is_skipped_and_never_glued(tmp_path: Path) -> None:
    lineage.append(tmp_path, "start", attempt=1)
    lineage.append(tmp_path, "end", attempt=1, reason="completed")
    file = tmp_path / "lineage.jsonl"
    whole = file.read_bytes()
    for length in range(len(whole.splitlines(keepends=True)[0]), len(whole)):
        file.write_bytes(whole[:length])
        lineage.append(tmp_path, "start", attempt=2)
        found = [(r["event"], r["attempt"]) for r in lineage.read(tmp_path)]
        # all but the newline was written: then the line is whole
        middle = [("end", 1)] if length == len(whole) - 1 else []
        assert found == [("start", 1), *middle, ("start", 2)]


def test_lines_of_others_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "lineage.jsonl").write_bytes(b'\n[1]\n"x"\n{"no": "event"}\n\xff\xfe\n{"event": "start"}\n')
    assert events(tmp_path) == ["start"]


def test_values_that_json_lacks_become_text(tmp_path: Path) -> None:
    lineage.append(tmp_path, "start", attempt=1, where=Path("a/b"))
    (record,) = lineage.read(tmp_path)
    assert record["where"] == "a/b"
    assert lineage.attempts([record, {"event": "end"}]) == [record]


def test_reconcile_records_what_a_kill_kept_from_the_record(run: Path, make_state: Make) -> None:
    rundir.publish(run, make_state(3))
    for _ in range(2):  # the second time there is nothing left to do
        lineage.reconcile(run)
        late = [r for r in lineage.read(run) if r.get("noted_late")]
        assert [(r["step"], r["attempt"]) for r in late] == [(3, 1)]
    start(run, 3)
    assert lineage.breaks(run) == []


def test_reconcile_leaves_the_damaged_alone(run: Path, make_state: Make) -> None:
    (rundir.publish(run, make_state(3)).path / "model.json").unlink()
    lineage.reconcile(run)
    assert not any(r.get("noted_late") for r in lineage.read(run))


def test_continuous(run: Path, make_state: Make) -> None:
    start(run, 2)
    lineage.published(run, rundir.publish(run, make_state(3)).path, attempt=2)
    start(run, 3, attempt=3)
    assert lineage.breaks(run) == []


def test_an_attempt_that_did_not_begin_at_the_newest(run: Path) -> None:
    start(run, 1)
    assert lineage.breaks(run) == ["attempt 2 began at step 1, though step 2 was published."]


def test_unless_the_newer_one_was_damaged(run: Path) -> None:
    start(run, 1, passed_over=["step-00000002: damaged"])
    assert lineage.breaks(run) == []


def test_an_attempt_that_began_elsewhere(run: Path) -> None:
    lineage.append(run, "start", attempt=2, verdict="exact", **{"from": {"digest": "0" * 32, "step": 2}})
    lineage.append(run, "start", attempt=3, verdict="fresh", **{"from": None})
    assert lineage.breaks(run) == [
        f"attempt {n} did not begin where a checkpoint of this run ended." for n in (2, 3)
    ]


def test_an_attempt_that_began_broken(run: Path) -> None:
    lineage.append(run, "start", attempt=2, verdict="broken", **{"from": {}})
    assert lineage.breaks(run) == ["attempt 2 began with verdict broken."]


def test_before_anything_was_published_there_is_nothing_to_continue(tmp_path: Path) -> None:
    for attempt in (1, 2):
        lineage.append(tmp_path, "start", attempt=attempt, verdict="fresh", **{"from": None})
    assert lineage.breaks(tmp_path) == []


def test_a_checkpoint_that_nobody_recorded(run: Path, make_state: Make) -> None:
    stray = rundir.publish(run, make_state(3)).path
    assert lineage.breaks(run) == []  # the newest: killed before it was noted
    lineage.published(run, rundir.publish(run, make_state(4)).path, attempt=1)
    assert lineage.breaks(run) == [f"{stray}: not in the lineage."]


@pytest.mark.parametrize(
    ("end", "epochs", "said"),
    [
        (
            {"reason": "completed", "epoch": 3},
            3,
            "finished already, 3 epochs, step 9; for more, raise fit.epochs",
        ),
        (
            {"reason": "completed", "epoch": 3},
            2,
            "finished already, 3 epochs, step 9; for more, raise fit.epochs",
        ),
        ({"reason": "completed", "epoch": 3}, 4, None),
        (
            {"reason": "completed", "epoch": 2, "stopped": True},
            4,
            "finished already, 2 epochs, step 9; a callback has stopped it, more epochs would not change that",
        ),
        ({"reason": "ValueError", "epoch": 3}, 3, None),
    ],
)
def test_completed(run: Path, end: dict[str, Any], epochs: int, said: str | None) -> None:
    lineage.append(run, "end", attempt=1, step=9, **end)
    assert lineage.completed(run, epochs=epochs) == said
    lineage.append(run, "note", text="looked at")
    assert lineage.completed(run, epochs=epochs) == said
    start(run, 2)
    assert lineage.completed(run, epochs=epochs) is None


# ---- progress ----


def attempt(run: Path, number: int, *, reason: str | None, step: int = 0, published: bool = False) -> None:
    lineage.append(run, "start", attempt=number, step=step, verdict="fresh")
    if published:
        lineage.append(run, "checkpoint", attempt=number, step=step + 1, digest=f"{number}")
    if reason is not None:
        lineage.append(run, "end", attempt=number, reason=reason, step=step)


def test_attempts_without_a_checkpoint_are_counted_since_the_last_one_with(tmp_path: Path) -> None:
    attempt(tmp_path, 1, reason="failed: early")
    attempt(tmp_path, 2, reason="failed: late", published=True)
    attempt(tmp_path, 3, reason=None)
    attempt(tmp_path, 4, reason="failed: ValueError: bad batch")
    assert lineage.fruitless(lineage.read(tmp_path)) == [
        "attempt 3: ended without a word (killed, or crashed)",
        "attempt 4: failed: ValueError: bad batch",
    ]


@pytest.mark.parametrize(
    "reason", ["preempted (SIGTERM)", "interrupted", "time limit (SIGUSR2): nothing was trained"]
)
def test_preemptions_may_repeat_without_bound(tmp_path: Path, reason: str) -> None:
    for number in range(1, 9):
        attempt(tmp_path, number, reason=reason)
    assert lineage.fruitless(lineage.read(tmp_path)) == []
    attempt(tmp_path, 9, reason=None)
    assert len(lineage.fruitless(lineage.read(tmp_path))) == 1


def test_a_crash_loop_is_an_error_that_gives_each_reason(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        lineage.demand_progress(tmp_path, most=3)
        attempt(tmp_path, number, reason=f"failed: reason {number}")
    lineage.demand_progress(tmp_path, most=4)
    lineage.demand_progress(tmp_path, most=None)
    with pytest.raises(NoProgressError) as raised:
        lineage.demand_progress(tmp_path, most=3)
    assert raised.value.exit_code == 6
    assert str(raised.value).splitlines() == [
        f"{tmp_path}: 3 attempts in a row ended without a new checkpoint; another would end as they did.",
        "  attempt 1: failed: reason 1",
        "  attempt 2: failed: reason 2",
        "  attempt 3: failed: reason 3",
        "Once the cause is gone: cluster.fruitless=4 lets one more begin (resume.fit: fruitless=4).",
    ]


def test_the_timeline(tmp_path: Path) -> None:
    facts = {"host": "a", "job": "7", "restore_seconds": 0.5}
    lineage.append(tmp_path, "start", attempt=1, step=0, **facts)
    lineage.append(tmp_path, "checkpoint", attempt=1, step=40, digest="x")
    lineage.append(
        tmp_path, "start", attempt=2, step=40, lost={"step": 47, "steps": 7, "seconds": 2.5}, **facts
    )
    lineage.append(tmp_path, "checkpoint", attempt=2, step=60, digest="y")
    lineage.append(tmp_path, "end", attempt=2, step=60, reason="preempted (SIGTERM)")
    lineage.append(tmp_path, "start", attempt=3, step=60, **facts)
    rows = lineage.timeline(lineage.read(tmp_path))
    shown = ("attempt", "from", "to", "published", "repeated", "lost_seconds", "end")
    assert [tuple(row[key] for key in shown) for row in rows] == [
        (1, 0, 47, 40, 7, 2.5, "killed, or crashed"),
        (2, 40, 60, 60, 0, 0.0, "preempted (SIGTERM)"),
        (3, 60, 60, None, None, None, "running, or killed"),
    ]
    assert [(row["host"], row["job"], row["restore_seconds"]) for row in rows] == [("a", "7", 0.5)] * 3


def test_the_timeline_as_markdown() -> None:
    rows = lineage.timeline([
        {"event": "start", "attempt": 1, "step": 0, "time": 86400.0 * 365, "host": "a", "job": "7"},
        {"event": "end", "attempt": 1, "step": 12, "reason": "failed: ValueError: a | b\r\nc"},
        {"event": "start", "attempt": 2, "step": 10, "host": "b"},
    ])  # fmt: skip
    began = time.strftime("%F %T", time.localtime(86400.0 * 365))
    assert lineage.as_markdown(rows).split("\n") == [
        "| attempt | began | from step | to step | steps repeated | why it ended | where |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| 1 | {began} | 0 | 12 | 2 | failed: ValueError: a \\| b c | a, job 7 |",
        "| 2 | - | 10 | 10 | - | running, or killed | b |",
    ]
