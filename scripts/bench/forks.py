"""Forks of a process that has imported TensorFlow and started nothing of it; with each, what it starts ends."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "e2e"))

import processes

PATIENCE = 30.0  # seconds for one step, or for all of a resumption

Tell = Callable[[bytes], Any]


class Child:
    """A fork that does a task. `told`: what the task tells; `said`: its output.

    Both are pipes: a file would be as full as the disk, and no larger than the limit, which the child is to speak of.
    """

    def __init__(self, task: Callable[[Tell], Any]) -> None:
        (self.told, tell), (self._said, say) = os.pipe(), os.pipe()
        fcntl.fcntl(say, fcntl.F_SETPIPE_SZ, 1 << 20)  # so that nobody has to read it in the meantime
        self.pid = os.fork()
        if self.pid == 0:
            _inside(lambda: task(lambda data: os.write(tell, data)), say)
        os.close(tell)
        os.close(say)
        self.code: int | None = None
        self.said = ""

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        os.close(self.told)

    def hear(self, seconds: float) -> bytes | None:
        """What it tells next, nothing once it is over; None where it has not told within that time."""
        ready, _, _ = select.select([self.told], [], [], seconds)
        return os.read(self.told, 1 << 16) if ready else None

    def rest(self) -> bytes:
        parts = []
        while part := self.hear(PATIENCE):
            parts.append(part)
        if part is None:
            raise TimeoutError(f"no word for {PATIENCE:.0f} s")
        return b"".join(parts)

    def answer(self) -> bytes:
        """All that it tells; nothing where it takes too long."""
        try:
            told = self.rest()
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            told = b""
        self.end()
        return told

    def end(self) -> None:
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with os.fdopen(self._said, "rb") as said:
            self.said = said.read().decode(errors="replace")

    @property
    def reason(self) -> str:
        """What it has said that names an error, or else its last word."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return (errors or lines or [""])[-1][:300]


def _inside(task: Callable[[], Any], say: int) -> NoReturn:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody is left behind
    os.dup2(say, 1)
    os.dup2(say, 2)
    processes.leave_with(task)
