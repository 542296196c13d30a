"""Traces, and where two of them part. Traces are written by hand here: test_trace.py has real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resume.engine.drill.record import Trace, parting, same_rows

STEP = {"x": 1, "y": 2, "weight": 0, "out": 3, "loss": 4, "rate": 5, "variables": {"model/a": "0"}, "logs": {},
        "rows": [7, 8]}  # fmt: skip


def line(at: str, batch: int, epoch: int = 0, **facts: Any) -> dict[str, Any]:
    base = STEP if at == "step" else {"variables": STEP["variables"]} if at == "before" else {}
    return {"at": at, "epoch": epoch, "batch": batch, **base, **facts}


def trace(folder: Path, *lines: dict[str, Any]) -> Trace:
    file = folder / f"{len(list(folder.iterdir()))}.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return Trace.read(file)


def run(folder: Path, *, begin: int = 0, **last: Any) -> Trace:
    lines = [line("began", 0, users={})]
    for batch in range(begin, 4):
        lines += [line("before", batch), line("step", batch, **(last if batch == 3 else {}))]
    return trace(folder, *lines)


def test_a_line_that_a_kill_has_cut_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text(json.dumps(line("step", 0)) + "\n" + '{"at": "step", "epo')
    assert Trace.read(file).steps == 1
    assert Trace.read(tmp_path / "absent").events == ()


def test_hidden_state_adds_up(tmp_path: Path) -> None:
    found = trace(
        tmp_path, line("before", 0, hidden={"a": "1", "b": "2"}), line("step", 0, hidden={"a": "3"})
    )
    assert [dict(event.hidden) for event in found.events] == [{"a": "1", "b": "2"}, {"a": "3", "b": "2"}]


def test_equal_traces_do_not_part(tmp_path: Path) -> None:
    whole = run(tmp_path)
    assert parting(whole, [run(tmp_path), run(tmp_path, begin=2)]) is None


def test_the_first_effect_in_the_order_of_a_step(tmp_path: Path) -> None:
    whole = run(tmp_path)
    found = parting(whole, [run(tmp_path), run(tmp_path, begin=2, loss=0, variables={"model/a": "1"})])
    assert found is not None
    assert (found.attempt, found.effects, found.variables) == (2, ("loss", "variables"), ("model/a",))
    assert str(found.broken) == "at batch 4 of epoch 1"


def test_hidden_state_is_compared_as_it_was_before(tmp_path: Path) -> None:
    whole = trace(
        tmp_path,
        line("before", 0, hidden={"calls": "4"}),
        line("step", 0, hidden={"calls": "5", "last": "x"}),
    )
    other = trace(
        tmp_path, line("before", 0, hidden={"calls": "0"}), line("step", 0, out=0, hidden={"last": "y"})
    )
    found = parting(whole, [other])
    assert found is not None
    assert found.hidden == {"calls": ("4", "0")}


def test_generators_that_are_elsewhere(tmp_path: Path) -> None:
    whole = trace(tmp_path, line("step", 0, random={"python": "1", "numpy": "2"}))
    found = parting(whole, [trace(tmp_path, line("step", 0, x=0, random={"python": "9", "numpy": "2"}))])
    assert found is not None
    assert found.random == ("python",)


def test_validations_and_epochs_are_compared_by_their_logs(tmp_path: Path) -> None:
    whole = trace(
        tmp_path, line("validated", 3, logs={"loss": "1"}), line("epoch", 3, logs={"loss": "1", "a": "2"})
    )
    other = trace(
        tmp_path, line("validated", 0, logs={"loss": "1"}), line("epoch", 0, logs={"loss": "1", "a": "3"})
    )
    found = parting(whole, [other])
    assert found is not None
    assert (str(found.broken), found.logs) == ("at the end of epoch 1", ("a",))


def test_rows_of_another_batch(tmp_path: Path) -> None:
    whole = run(tmp_path)
    known, new = trace(tmp_path, line("step", 0, rows=[8])), trace(tmp_path, line("step", 0, rows=[8, 9]))
    assert same_rows(whole, known.events[0])
    assert not same_rows(whole, new.events[0])
