"""Trainings of one way, seen from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import keras
import ways
from forks import PATIENCE, Child, Tell
from injections import Orders
from restores import EVERY, STEPS, Beat, newest_files, published, training
from ways import WAYS

PAUSE = (
    0.008  # seconds that each step takes longer, so that a checkpoint is written while several steps are done
)


@dataclass
class Seen:
    """`steps`: that have ended; `published`: steps of all checkpoints that were there at some step's end."""

    way: str
    folder: Path
    child: Child
    orders: Orders = field(default_factory=Orders)
    steps: int = 0
    published: set[int] = field(default_factory=set)

    def until(self, step: int) -> bool:
        """Wait for that step's end. Whether it came to that."""
        while self.steps < step:
            heard = self.child.hear(PATIENCE)
            if heard is None:
                raise TimeoutError(f"no step for {PATIENCE:.0f} s")
            if not heard:
                return False
            self._count(heard)
        return True

    def watch(self, seconds: float) -> None:
        """Count what ends within that time; a checkpoint may be gone, for newer ones, at the end of it."""
        end = time.monotonic() + seconds
        while heard := self.child.hear(max(end - time.monotonic(), 0)):
            self._count(heard)

    def _count(self, heard: bytes) -> None:
        self.steps += len(heard)
        self.look()

    def look(self) -> None:
        self.published |= published(self.way, self.folder)

    @property
    def due(self) -> int:
        """The last step after which a checkpoint was due."""
        return self.steps // EVERY * EVERY

    def kill(self) -> None:
        os.kill(self.child.pid, signal.SIGKILL)
        self.finish()

    def finish(self) -> None:
        self.until(STEPS + 1)
        self.child.end()
        self.look()


@dataclass(frozen=True)
class Pace:
    """What an undisturbed run of a way tells. `seconds`: from the step until its checkpoint is published."""

    seconds: float
    calls: int  # that write, a checkpoint
    bytes: int  # a checkpoint
    largest: int  # bytes of the largest file


class Runs:
    """Each in a folder of its own below `folder`."""

    def __init__(self, way: str, folder: Path) -> None:
        self.way, self.folder, self.count = way, folder, 0

    def place(self, within: str = ".") -> Path:
        self.count += 1
        return self.folder / within / f"run-{self.count}"

    @contextlib.contextmanager
    def started(self, folder: Path, *, on_failure: str = "stop", to_its_end: bool = False) -> Iterator[Seen]:
        """Otherwise it stands still before its last step, to be killed."""
        orders = Orders()

        def task(tell: Tell) -> None:
            ways.OURS["on_failure"] = on_failure
            orders.obey(folder)
            WAYS[self.way].fit(training(folder), [Beat(lambda model: beat(model, tell))])

        def beat(model: keras.Model, tell: Tell) -> None:
            time.sleep(PAUSE)
            tell(b".")
            if not to_its_end and int(model.optimizer.iterations) == STEPS - 1:
                time.sleep(PATIENCE)

        folder.mkdir()
        with Child(task) as child:
            yield Seen(self.way, folder, child, orders)

    # -- what nothing disturbs --

    def pace(self) -> Pace:
        """Also warms up what the first run has to read."""
        taken = []
        with self.started(self.place()) as seen:
            for step in range(EVERY, STEPS, EVERY):
                if not seen.until(step):
                    seen.finish()
                    raise RuntimeError(f"the training ended: {seen.child.reason}")
                taken.append(self._published_after(step, seen))
            seen.kill()
            files = [file.stat().st_size for file in newest_files(self.way, seen.folder)]
            calls = seen.orders.calls // (STEPS // EVERY)
            return Pace(statistics.median(taken[1:]), max(calls, 1), sum(files), max(files))

    def _published_after(self, step: int, seen: Seen) -> float:
        started = time.perf_counter()
        while step not in published(self.way, seen.folder) and time.perf_counter() < started + PATIENCE:
            time.sleep(2e-4)
        return time.perf_counter() - started

    def whole(self, pace: Pace) -> Path:
        """One that was killed while nothing was being written: some ways remove their checkpoints at the end."""
        with self.started(self.place()) as seen:
            seen.until(STEPS - 1)
            time.sleep(5 * pace.seconds)
            seen.kill()
            return seen.folder
