"""Uploads behind the training: the local tier is where checkpoints are published, the remote one follows.

A thread makes the remote tier like the local one, as often as it is told that something was published, until both are
alike: the newest checkpoint that is missing first, older ones that retention keeps afterwards. It compares and does not
keep a list, so that nothing is forgotten when a server comes back empty, and nothing is sent that retention has removed
meanwhile. With each checkpoint go, before its manifest, the lineage and the logs that it continues.

A retired checkpoint must not vanish beneath its upload. Its files are hard-linked into `.uploading-...` first: the
name may go then, the bytes stay. Where a file system has no hard links, the upload reads the checkpoint itself, and is
given up for the next one when that is retired meanwhile.

Whatever goes wrong here is said, once, and tried again; it never stops the training and never touches the local tier.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from resume import plain, rundir
from resume.errors import RunInUseError, SourceError
from resume.formats import native
from resume.rundir import Checkpoint, Retention
from resume.storage import Remote

_LINKS = ".uploading-"
_LOOK = 1.0  # seconds between questions whether waiting is still of use
_LAGGING = 2  # checkpoints that may wait before anybody is told
Identity = tuple[str, int, int] | None


class _GivenUpError(Exception):
    """The process leaves, or the checkpoint has been retired: no error, and nothing to say."""


class Uploader:
    """The thread. `published` and `behind` never wait for it; `finish` does, until its deadline."""

    def __init__(
        self,
        remote: Remote,
        run: Path,
        *,
        retention: Retention,
        demand: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
        pauses: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        """`demand`: raises RunInUseError where the remote run is another's by now (Tenure.demand).

        `pauses`: seconds between two tries while the server is away, the first and the longest.
        """
        self._remote, self._run, self._retention = remote, run, retention
        self._demand, self._say, self._pauses = demand, say, pauses
        self._turn, self._leaving = threading.Condition(), threading.Event()
        # How often it was asked to look, and up to which of these all is done.
        self._asked, self._reached = 1, 0
        self._settled: set[Identity] = set()  # checkpoints that are there, or need not be
        self._there: set[str] = set()  # names of those that are there
        self._refused: set[Identity] = set()  # damaged ones
        self._troubled = self._lagged = False
        self.lost: RunInUseError | None = None  # the remote run is another's: nothing is uploaded any more
        self.sent = 0  # bytes of checkpoints
        self._thread = threading.Thread(target=self._work, name="resume-uploads", daemon=True)

    def start(self) -> Uploader:
        """For the holder of the run's lock: what a killed attempt left linked is removed."""
        for path in self._run.glob(f"{_LINKS}*"):
            shutil.rmtree(path, ignore_errors=True)
        self._thread.start()
        return self

    def published(self) -> None:
        """Something new is in the local tier. Returns at once."""
        self._ask()
        waiting = len(self.behind)
        if waiting > _LAGGING and not (self._lagged or self._troubled):
            self._lagged = True
            self._tell(f"{self._remote.url}: uploads lag, {waiting} checkpoints are on this machine only")

    def _ask(self) -> int:
        with self._turn:
            self._asked += 1
            self._turn.notify_all()
            return self._asked

    @property
    def behind(self) -> tuple[str, ...]:
        """Names of the local checkpoints that are not in the remote tier yet, as far as this process knows."""
        return tuple(c.path.name for c in self._missing(rundir.checkpoints(self._run)))

    def _missing(self, local: list[Checkpoint]) -> list[Checkpoint]:
        known = self._settled | self._refused | {None}
        return [c for c in local if _identity(c.path) not in known]

    def finish(self, seconds: float | None, *, given_up: Callable[[], bool] = lambda: False) -> str | None:
        """Wait until the tiers are alike, `seconds` at most, and stop. A sentence where the remote is behind then.

        `given_up`: asked about once a second, whether waiting is of no use any more. An upload that is under way then
        never gets its manifest, even if the process lives on.
        """
        done = self._alike(seconds, given_up)
        with self._turn:
            self._leaving.set()
            self._turn.notify_all()
        if done:
            self._thread.join()
        names = self.behind
        if done and not names:
            return None
        what = f"{len(names)} checkpoints ({', '.join(names)})" if names else "the last lines of its logs"
        return f"{self._remote.url}: behind by {what}, which are in {self._run} on this machine only"

    @property
    def troubled(self) -> bool:
        """Whether the last try failed."""
        return self._troubled

    def _alike(self, seconds: float | None, given_up: Callable[[], bool]) -> bool:
        late = math.inf if seconds is None else time.monotonic() + seconds
        asked = self._ask()
        with self._turn:
            while self._reached < asked and self.lost is None and self._thread.is_alive():
                left = late - time.monotonic()
                if left <= 0 or given_up():
                    break
                self._turn.wait(min(left, _LOOK))
            return self._reached >= asked

    # -- the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause, longest = self._pauses
        while (asked := self._next_turn()) is not None:
            try:
                self._catch_up()
            except RunInUseError as error:
                self._lose(error)
            except _GivenUpError:
                continue
            except Exception as error:  # the training must not end for it, whatever it is
                self._trouble(error)
                self._leaving.wait(pause)
                pause = min(2 * pause, longest)
            else:
                pause = self._pauses[0]
                self._done(asked)

    def _next_turn(self) -> int | None:
        """What it was asked for last, once there is something to do; None when it is to leave."""
        with self._turn:
            self._turn.wait_for(lambda: self._asked > self._reached or self._leaving.is_set())
            return None if self._leaving.is_set() else self._asked

    def _done(self, asked: int) -> None:
        if self._troubled or self._lagged:
            self._troubled = self._lagged = False
            self._tell(f"{self._remote.url}: uploads go on, and have caught up")
        with self._turn:
            self._reached = asked
            self._turn.notify_all()

    def _lose(self, error: RunInUseError) -> None:
        self._tell(str(error))
        with self._turn:
            self.lost = error
            self._leaving.set()
            self._turn.notify_all()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(Exception):  # the thread must not end for want of somebody who listens
            self._say(line)

    def _trouble(self, error: Exception) -> None:
        self._forget()  # who knows what a server that was away still has
        if not self._troubled:
            self._troubled = True
            words = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            self._tell(f"uploads wait, and are tried again: {words}")

    def _catch_up(self) -> None:
        """Until nothing is missing; what is published meanwhile is looked for after each, and goes first."""
        there = {c.path.name for c in self._remote.checkpoints()}
        if self._there - there:  # it came back empty, and nobody noticed
            self._forget()
        while (checkpoint := self._next()) is not None:
            self._upload(checkpoint)
            self._retire()
        self._push()

    def _forget(self) -> None:
        self._settled.clear()
        self._there.clear()
        self._remote.forget()

    def _next(self) -> Checkpoint | None:
        """The newest local checkpoint that is missing from the remote tier, of those that retention keeps of both."""
        local = rundir.checkpoints(self._run)
        missing = self._missing(local)
        if not missing:
            return None
        if missing[-1] == local[-1]:
            # It is kept whatever lies there. Asked of a server first, it might be retired before the answer, again and
            # again where checkpoints come fast.
            return missing[-1]
        here = {c.path.name for c in local}
        there = [c for c in self._older(local) if c.path.name not in here]
        gone = {c.path.name for c in self._retired(local, there)}
        for checkpoint in missing:
            if checkpoint.path.name in gone:
                self._settle(checkpoint)
        return next((c for c in reversed(missing) if c.path.name not in gone), None)

    def _upload(self, checkpoint: Checkpoint) -> None:
        name = checkpoint.path.name
        with _linked(self._run, checkpoint) as path:
            try:
                if not self._remote.has(path, name=name):
                    self._push()  # first: a checkpoint continues the logs that it was published with
                    self.sent += self._remote.upload(path, name=name, may=self._may)
                self._settle(checkpoint)
                self._there.add(name)
            except SourceError as error:
                if not checkpoint.path.exists():  # retired, where there are no hard links
                    raise _GivenUpError from None
                self._refused.add(_identity(checkpoint.path))
                self._tell(str(error).replace(str(path), str(checkpoint.path)))

    def _settle(self, checkpoint: Checkpoint) -> None:
        self._settled.add(_identity(checkpoint.path))

    def _push(self) -> None:
        self._may()
        self._remote.push(self._run)

    def _may(self) -> None:
        if self._leaving.is_set():
            raise _GivenUpError
        self._demand()

    def _retire(self) -> None:
        """By the same rule as in the local tier; what is newer must be there before anything goes."""
        self._may()
        names = [c.path.name for c in self._retired([], self._older(rundir.checkpoints(self._run)))]
        self._there.difference_update(names)
        self._remote.retire(names)

    def _older(self, local: list[Checkpoint]) -> list[Checkpoint]:
        """Those in the remote tier that are no newer than ours. Newer ones were passed over, being damaged.

        By their steps they would push out every whole one. When the training gets there, each is replaced or retired.
        """
        newest = local[-1].order if local else (0, 0)
        return [c for c in self._remote.checkpoints() if c.order <= newest]

    def _retired(self, local: list[Checkpoint], there: list[Checkpoint]) -> list[Checkpoint]:
        logs: dict[Path, Mapping[str, Any]] = {}
        if self._retention.best is not None:
            logs |= {c.path: _epoch_logs(partial(native.read_manifest, c.path)) for c in local}
            logs |= {c.path: _epoch_logs(partial(self._remote.manifest, c.path.name)) for c in there}
        return self._retention.retired([*local, *there], logs=logs)


def _epoch_logs(manifest: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """A damaged checkpoint is the best of nothing, and so is one that has just gone."""
    try:
        return plain.decode(manifest()["progress"].get("epoch_logs")) or {}
    except (SourceError, FileNotFoundError):
        return {}


def _identity(path: Path) -> Identity:
    """Of a published checkpoint, without reading it; None for what has just been retired, or is none."""
    try:
        at = (path / native.MANIFEST).stat()
    except OSError:
        return None
    return path.name, at.st_ino, at.st_mtime_ns


@contextlib.contextmanager
def _linked(run: Path, checkpoint: Checkpoint) -> Iterator[Path]:
    """The checkpoint's files under a name that nobody retires."""
    folder = run / f"{_LINKS}{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        for file in checkpoint.path.iterdir():
            os.link(file, folder / file.name)
        whole = native.holds(folder)
    except FileNotFoundError:
        raise _GivenUpError from None
    except OSError:
        yield checkpoint.path
        return
    else:
        if not whole:
            raise _GivenUpError
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
