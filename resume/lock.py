"""One process a run directory: a lock that the kernel frees when its holder dies, and a note of who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from resume.errors import RunInUseError

_OWNER = "owner.json"


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the run's lock. Raises RunInUseError, naming the holder, when another process has it.

    The lock file itself is never deleted: a process that waits on a deleted file would hold a lock nobody else sees.
    """
    lock = filelock.FileLock(run / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunInUseError(
            f"{run}: another process trains here ({_owner(run)}). Wait for it, or stop it."
        ) from None
    inherited = _let_go_in_children(lock)
    try:
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%F %T")}
        (run / _OWNER).write_text(json.dumps(facts))
        yield
    finally:
        (run / _OWNER).unlink(missing_ok=True)
        inherited.clear()
        lock.release()


def _let_go_in_children(lock: filelock.BaseFileLock) -> list[int]:
    """A forked data worker inherits the open lock file, and would hold the lock when this process is killed.

    Returns the descriptors that children close; to be emptied before the lock is released.
    """
    held = getattr(getattr(lock, "_context", None), "lock_file_fd", None)
    inherited = [held] if isinstance(held, int) else []

    def close() -> None:
        for descriptor in inherited:
            os.close(descriptor)

    os.register_at_fork(after_in_child=close)
    return inherited


def _owner(run: Path) -> str:
    try:
        facts = json.loads((run / _OWNER).read_text())
        return f"host {facts['host']}, pid {facts['pid']}, since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not said who it is"
