"""When a drill kills: by what a trace and a run directory show."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from resume.engine.drill.moments import Kill, Moment, Reached, moments


def write(file: Path, *events: str, epoch: int = 0, end: str = "\n") -> None:
    with file.open("a") as trace:
        trace.write("\n".join(json.dumps({"at": e, "epoch": epoch, "batch": 0}) for e in events) + end)


def names(kills: int, *, validates: bool = True) -> list[str]:
    return [f"{m.signal.name} {m.name}" for m in moments(kills, every_steps=2, epochs=3, validates=validates)]


def test_kinds_of_moments() -> None:
    assert names(6) == [
        "SIGKILL inside an epoch", "SIGKILL in a save", "SIGTERM inside an epoch", "SIGKILL before the first step",
        "SIGKILL in a validation", "SIGKILL inside an epoch",
    ]  # fmt: skip
    assert "SIGKILL in a validation" not in names(9, validates=False)


def test_what_is_reached(tmp_path: Path) -> None:
    reached = Reached(tmp_path / "trace", tmp_path)
    reached.look()
    assert (reached.steps, reached.saving()) == (0, False)
    write(reached.trace, "began", "before", "step", "before", "step")
    write(reached.trace, "validating", epoch=1, end="")  # not finished yet
    reached.look()
    assert (reached.steps, reached.last, reached.epoch) == (2, "step", 0)
    write(reached.trace)
    reached.look()
    assert (reached.last, reached.epoch) == ("validating", 1)
    (tmp_path / "checkpoints/.unfinished-1").mkdir(parents=True)
    (tmp_path / "checkpoints/.unfinished-1/state").touch()
    assert reached.saving()


def test_each_moment_when_it_has_come(tmp_path: Path) -> None:
    inside, save, term, start, validation = moments(5, every_steps=2, epochs=2, validates=True)
    reached = Reached(tmp_path / "trace", tmp_path)
    ready = [m.ready(reached) for m in (inside, save, term, start, validation)]
    assert ready == [False] * 5
    reached.events, reached.steps, reached.last = {"began"}, 3, "step"
    assert [m.ready(reached) for m in (inside, save, term, start, validation)] == [
        True,
        False,
        True,
        True,
        False,
    ]
    reached.last, reached.epoch = "validating", 1
    (tmp_path / "checkpoints/.unfinished-1").mkdir(parents=True)
    (tmp_path / "checkpoints/.unfinished-1/state").touch()
    assert [m.ready(reached) for m in (inside, save, term, start, validation)] == [
        False,
        True,
        True,
        True,
        True,
    ]


def test_a_kill(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    kill = Kill(Moment("at once", signal.SIGKILL, lambda reached: True))
    kill.watch(Reached(tmp_path / "trace", tmp_path))(process.pid, threading.Event())
    code = process.wait(10)
    assert kill.json(code) == {
        "signal": "SIGKILL", "moment": "at once", "at": "after 0 steps of this attempt", "code": -9,
    }  # fmt: skip


def test_an_attempt_that_ends_first(tmp_path: Path) -> None:
    ended = threading.Event()
    ended.set()
    kill = Kill(Moment("never", signal.SIGKILL, lambda reached: True))
    kill.watch(Reached(tmp_path / "trace", tmp_path))(-1, ended)
    assert kill.at is None
