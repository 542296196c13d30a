"""`resume list`: one line, or one JSON object, a checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resume import lineage, rundir
from resume.commands import list as list_command
from resume.errors import SourceError
from resume.state import TrainState

Make = Callable[..., TrainState]


@pytest.fixture
def run(tmp_path: Path, make_state: Make) -> Path:
    """Steps 9 (whole), 10 (cut off) and 11 (without a manifest)."""
    paths = [rundir.publish(tmp_path, make_state(step)).path for step in (9, 10, 11)]
    (paths[1] / "model.json").write_text("")
    (paths[2] / "manifest.json").unlink()
    return tmp_path


def test_lines(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_command.run([str(run)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["step", "epoch", "batch", "path", "whole", "bytes", "time"]
    assert [line[:3] + line[4:5] for line in lines[1:]] == [
        ["9", "1", "2", "yes"],
        ["10", "1", "2", "no"],
        ["11", "-", "-", "no"],
    ]
    assert lines[1][3] == f"{run}/checkpoints/step-00000009"
    assert time.strptime(" ".join(lines[1][6:]), "%Y-%m-%d %H:%M:%S")
    assert lines[3][6:] == ["-"]


def test_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_command.run([str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    path = run / "checkpoints/step-00000009"
    assert all(list(row) == ["step", "epoch", "batch", "path", "whole", "bytes", "time"] for row in found)
    assert abs(found[0].pop("time") - time.time()) < 60
    assert found[0] == {
        "step": 9,
        "epoch": 1,
        "batch": 2,
        "path": str(path),
        "whole": True,
        "bytes": sum(file.stat().st_size for file in path.iterdir()),
    }
    assert [(row["step"], row["whole"]) for row in found] == [(9, True), (10, False), (11, False)]
    assert found[2]["time"] is None


def test_nothing_published_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert list_command.run([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: nothing has been published yet.\n"
    assert list_command.run([str(tmp_path), "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_a_file_in_the_place_of_a_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints/step-00000012").touch()
    list_command.run([str(run), "--json"])
    assert [row["whole"] for row in json.loads(capsys.readouterr().out)] == [True, False, False, False]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r": not a run directory \(no checkpoints/ and no lineage\.jsonl in it\)\.$"
    ):
        list_command.run([str(tmp_path)])


def test_attempts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lineage.append(run, "start", attempt=1, step=0, host="a", job=None)
    lineage.append(run, "end", attempt=1, step=9, reason="preempted (SIGTERM)")
    assert list_command.run([str(run), "--attempts", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row) == [
        "attempt", "time", "host", "job", "from", "to", "published", "repeated", "lost_seconds", "restore_seconds",
        "end",
    ]  # fmt: skip
    assert (row["from"], row["to"], row["end"]) == (0, 9, "preempted (SIGTERM)")
    assert list_command.run([str(run)]) == 0
    checkpoints, attempts = capsys.readouterr().out.split("\n\n")
    assert len(checkpoints.splitlines()) == 4
    assert attempts.splitlines()[1].startswith("1        20")
