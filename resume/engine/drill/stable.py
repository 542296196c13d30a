"""Processes that are ready to train: TensorFlow is imported once, and each attempt is a fork that may be killed.

A stable is a process of its own, with a hash seed of its own: what depends on the order of a set differs from one
stable to the other, as it does from one start of a real training to the next. The near side, which imports nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resume.errors import ResumeError

MODULE = "resume.commands.stable"


class Stable:
    """One such process. Use as a context: what still runs at the end is killed."""

    def __init__(self, log: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop("PYTHONHASHSEED", None)
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE], env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._log = log
        self._horse: int | None = None

    def __enter__(self) -> Stable:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._horse is not None:
                os.kill(self._horse, 9)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def run(self, *, watch: Callable[[int, threading.Event], None] | None = None, **request: Any) -> int:
        """One task in a process of its own; its exit code, negative for a signal.

        `watch(pid, ended)` runs meanwhile, in a thread of this process, and may kill it.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        self._horse = int(self._answer()["pid"])
        ended = threading.Event()
        watcher = threading.Thread(target=watch, args=(self._horse, ended), daemon=True) if watch else None
        if watcher:
            watcher.start()
        code = int(self._answer()["code"])
        self._horse = None
        ended.set()
        if watcher:
            watcher.join()
        return code

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace")[-500:] if self._log.exists() else ""
            raise ResumeError(f"the process that forks the drill's attempts has died: {said}")
        answer: dict[str, Any] = json.loads(line)
        return answer
