"""One writer a run directory: a lock that the kernel frees, a note of who has it, a token that fences off the rest.

The lock (flock, on `lock`) is free as soon as its holder is dead. A holder that is merely stopped keeps it: then the
heartbeat tells, the modification time of `owner.json`, by the file system's own clock. Whoever takes over from a holder
without a heartbeat writes a token of its own, and each publication looks for its token first: a process that wakes up
after its successor began publishes nothing. Taking over and publishing exclude each other by a second lock, the door.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from resume.errors import RunInUseError

_OWNER, _HEARTBEAT = "owner.json", "heartbeat.json"
_LEFT = "owner.left.json"  # the note of the last holder that has left
_BEAT = 5.0  # seconds between heartbeats
_LOOK = 0.5  # seconds between looks while waiting
_AJAR = 10.0  # seconds to wait for others at the door, which takes them milliseconds


@dataclass
class Claim:
    """The right to publish in a run directory, as long as nobody has taken it over."""

    run: Path
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    reached: Callable[[], Mapping[str, Any]] = dict  # what each heartbeat says of the training

    @contextlib.contextmanager
    def publishing(self) -> Iterator[None]:
        """While something is published. Raises RunInUseError when another process has taken the run over."""
        with _door(self.run):
            self._check()
            yield

    def _check(self) -> None:
        facts = _facts(self.run)
        if facts.get("token") != self.token:
            facts = facts or _facts(self.run, _LEFT)  # its successor may have ended before this one woke up
            raise RunInUseError(
                f"{self.run}: taken over by another process ({named(facts)}) while this one stood still. "
                "This one publishes nothing more."
            )


@contextlib.contextmanager
def held(run: Path, *, wait: float = 0.0, stale: float = 60.0, job: str | None = None) -> Iterator[Claim]:
    """Hold the run. Raises RunInUseError, naming the holder, where another living process has it after `wait` s."""
    lock = filelock.FileLock(run / "lock", timeout=0, thread_local=False)
    claim = Claim(run)
    _acquire(lock, claim, wait=wait, stale=stale, job=job)
    inherited = _let_go_in_children(lock)
    stop = threading.Event()
    threading.Thread(target=_beat, args=(claim, stop), name="resume-heartbeat", daemon=True).start()
    try:
        yield claim
    finally:
        stop.set()
        _leave(claim)
        inherited.clear()
        lock.release()


def _acquire(
    lock: filelock.BaseFileLock, claim: Claim, *, wait: float, stale: float, job: str | None
) -> None:
    give_up = time.monotonic() + wait
    while True:
        # A process that was stopped at the door keeps it shut: that must not make this one wait for ever.
        with contextlib.suppress(filelock.Timeout), _door(claim.run, timeout=max(wait, _AJAR)):
            if _may_have(lock, claim.run, stale=stale):
                _sign(claim, job, locked=lock.is_locked)
                return
        if time.monotonic() >= give_up:
            raise RunInUseError(
                f"{claim.run}: another process trains here ({named(_facts(claim.run))}). Wait for it "
                "(cluster.wait=SECONDS), or stop it."
            )
        time.sleep(min(_LOOK, max(give_up - time.monotonic(), 0.01)))


def _door(run: Path, *, timeout: float = -1) -> filelock.BaseFileLock:
    """One process at a time decides who holds the run, or publishes in it. Never deleted, as the lock itself never is:
    who waits on a deleted file would hold a lock that nobody else sees."""
    return filelock.FileLock(run / "lock.door", timeout=timeout)


def _may_have(lock: filelock.BaseFileLock, run: Path, *, stale: float) -> bool:
    """Whether nobody who lives holds the run; with the lock itself, unless it is a stopped process's."""
    silent = _silence(run) > stale
    with contextlib.suppress(filelock.Timeout):
        lock.acquire()
        if _facts(run).get("locked", True) or silent:
            return True
        lock.release()  # free, but the run is that of a process that took it over without its lock
    return silent


def _sign(claim: Claim, job: str | None, *, locked: bool) -> None:
    facts = {
        "token": claim.token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": job,
        "since": time.strftime("%F %T"),
        "locked": locked,
    }
    begun = claim.run / f"{_OWNER}.{claim.token}"
    begun.write_text(json.dumps(facts))
    begun.replace(claim.run / _OWNER)


def _leave(claim: Claim) -> None:
    """At the door: a process that was stopped in here must not take its successor's note away."""
    if _facts(claim.run).get("token") != claim.token:
        return
    # A note that stays is no harm, as its lock is free; an error here would take the place of what ended the attempt.
    with contextlib.suppress(OSError), _door(claim.run, timeout=_AJAR):
        if _facts(claim.run).get("token") == claim.token:
            (claim.run / _OWNER).replace(claim.run / _LEFT)


def _silence(run: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system that holds both files."""
    probe = run / f".now-{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime - (run / _OWNER).stat().st_mtime
    except FileNotFoundError:
        return 0.0  # it has only just begun, and not yet said who it is
    finally:
        probe.unlink(missing_ok=True)


def _beat(claim: Claim, stop: threading.Event) -> None:
    while not stop.wait(_BEAT):
        with contextlib.suppress(OSError):
            if _facts(claim.run).get("token") == claim.token:
                os.utime(claim.run / _OWNER)
                begun = claim.run / f"{_HEARTBEAT}.{claim.token}"
                begun.write_text(json.dumps({"time": time.time(), **claim.reached()}))
                begun.replace(claim.run / _HEARTBEAT)


def last_heartbeat(run: Path) -> dict[str, Any]:
    """What the last holder's last heartbeat said: `time`, `attempt`, `step`; empty where there was none."""
    return _facts(run, _HEARTBEAT)


def _facts(run: Path, file: str = _OWNER) -> dict[str, Any]:
    try:
        facts = json.loads((run / file).read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def named(facts: Mapping[str, Any]) -> str:
    """A holder, by its note: `host`, `pid`, `job`, `since`."""
    if not facts.get("host"):
        return "it has not said who it is"
    job = f", job {facts['job']}" if facts.get("job") else ""
    return f"host {facts['host']}, pid {facts.get('pid')}{job}, since {facts.get('since')}"


def _let_go_in_children(lock: filelock.BaseFileLock) -> list[int]:
    """A forked data worker inherits the open lock file, and would hold the lock when this process is killed.

    Returns the descriptors that children close; to be emptied before the lock is released.
    """
    held = getattr(getattr(lock, "_context", None), "lock_file_fd", None)
    inherited = [held] if isinstance(held, int) else []
    opened = [os.fstat(descriptor) for descriptor in inherited]

    def close() -> None:
        for descriptor, file in zip(inherited, opened, strict=False):
            with contextlib.suppress(OSError):  # newer versions of filelock have closed it already
                if os.path.samestat(os.fstat(descriptor), file):
                    os.close(descriptor)

    os.register_at_fork(after_in_child=close)
    return inherited
