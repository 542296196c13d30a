"""Real processes that fork real attempts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from resume import lineage, rundir
from resume.engine.drill.stable import Stable
from resume.errors import ResumeError
from resume.state import TrainState


@pytest.mark.slow
def test_tasks_one_after_the_other_and_a_kill(tmp_path: Path, make_state: Callable[..., TrainState]) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        lineage.append(tmp_path / name, "start", attempt=1, verdict="fresh")
        rundir.publish(tmp_path / name, make_state(1))
    log, found = tmp_path / "log", tmp_path / "found"

    def kill(pid: int, ended: threading.Event) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have been faster
            os.kill(pid, signal.SIGKILL)

    with Stable(tmp_path / "stable.log") as stable:
        task = {
            "task": "compare",
            "whole": tmp_path / "a",
            "broken": tmp_path / "b",
            "found": found,
            "log": log,
        }
        assert stable.run(**task) == 0
        assert json.loads(found.read_text())["differences"] == []
        assert stable.run(**{**task, "broken": tmp_path / "absent"}) == 2
        assert "resume: " in log.read_text()
        assert stable.run(**task, watch=kill) in (-9, 0)
        assert stable.run(**task) == 0


@pytest.mark.slow
def test_a_stable_that_has_died_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resume.engine.drill.stable.MODULE", "resume.no_such_module")
    with Stable(tmp_path / "stable.log") as stable, pytest.raises(ResumeError, match="no_such_module"):
        stable.run(task="compare")
