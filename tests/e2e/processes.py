"""Real training processes, made quickly: TensorFlow is imported once, each attempt is a fork that may be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).parent


def preload() -> None:
    """Import what every attempt imports. Nothing of TensorFlow's runtime is started: a fork could not use it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(HERE))
    import combos  # noqa: F401
    import tensorflow  # noqa: F401

    import resume.engine.launch  # noqa: F401


def attempt(
    arguments: list[str],
    *,
    log: Path,
    kill_after: float | None = None,
    kill_when: Callable[[], bool] | None = None,
    kill: signal.Signals = signal.SIGKILL,
) -> int:
    """Run `resume train ARGUMENTS` in a process of its own; its exit code, -9 when killed.

    `kill_after`: the signal `kill` after so many seconds; `kill_when()`: as soon as that is true.
    """
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(lambda: command(["train", "--config-dir", str(HERE / "conf"), *arguments]), log)
    try:
        return _ended(pid, started, kill_after, kill_when, kill)
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # nothing of ours outlives a test that failed
        os.waitpid(pid, 0)
        raise


def _ended(
    pid: int,
    started: float,
    kill_after: float | None,
    kill_when: Callable[[], bool] | None,
    kill: signal.Signals,
) -> int:
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        late = kill_after is not None and time.monotonic() - started >= kill_after
        if late or (kill_when is not None and kill_when()):
            os.kill(pid, kill)
            kill_after = kill_when = None
        time.sleep(0.001)


def command(arguments: list[str]) -> None:
    from resume.cli import main

    main(arguments)


def child(task: Callable[[], None], log: Path) -> NoReturn:
    """Run a task in this forked process, its output in `log`, and leave with its exit code."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    leave_with(task)


def leave_with(task: Callable[[], object]) -> NoReturn:
    """Run a task in this forked process, and leave with its exit code."""
    code = 0
    try:
        task()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
