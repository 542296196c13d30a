"""When to kill: at the start, inside an epoch, in a save, in a validation; by what the attempt is seen to do.

What an attempt has reached is read from its trace and its run directory, as it goes, from outside.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resume import rundir

_LOOK = 0.002  # seconds between two looks


@dataclass
class Reached:
    """What the attempt in progress has been seen to do."""

    trace: Path
    run: Path
    steps: int = 0
    events: set[str] = field(default_factory=set)
    last: str = ""
    epoch: int = 0
    _read: int = 0

    def look(self) -> None:
        """Read the lines that have come since; a line that is not finished yet waits."""
        if not self.trace.is_file():
            return
        with self.trace.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            self.last, self.epoch = event["at"], event["epoch"]
            self.events.add(self.last)
            self.steps += self.last == "step"

    def saving(self) -> bool:
        return rundir.being_written(self.run)


@dataclass(frozen=True)
class Moment:
    """Where a kill is aimed. `hit` says afterwards whether it was that moment: a save can be over too soon."""

    name: str
    signal: signal.Signals
    ready: Callable[[Reached], bool]


def moments(kills: int, *, every_steps: int, epochs: int, validates: bool) -> list[Moment]:
    """So many, the most telling first; the second one in the second epoch, for what happens once an epoch."""
    beyond, second = every_steps + 1, min(epochs - 1, 1)
    kill, term = signal.SIGKILL, signal.SIGTERM
    known = [
        Moment("inside an epoch", kill, lambda r: r.steps >= beyond and r.last in ("before", "step")),
        Moment("in a save", kill, lambda r: r.steps >= 1 and r.epoch >= second and r.saving()),
        Moment("inside an epoch", term, lambda r: r.steps >= beyond),
        Moment("before the first step", kill, lambda r: "began" in r.events),
        Moment("in a validation", kill, lambda r: r.last == "validating"),
    ]
    if not validates:
        known = known[:-1]
    return list(itertools.islice(itertools.cycle(known), kills))


@dataclass
class Kill:
    """One attempt that was to be killed, and what became of it."""

    moment: Moment
    at: str | None = None  # "epoch 2, after 3 steps of this attempt"; None where the attempt ended first

    def watch(self, reached: Reached) -> Callable[[int, threading.Event], None]:
        """Looks on from a thread, and kills when the moment has come."""

        def look_on(pid: int, ended: threading.Event) -> None:
            while not ended.wait(_LOOK):
                reached.look()
                if self.moment.ready(reached):
                    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself meanwhile
                        os.kill(pid, self.moment.signal)
                        self.at = f"after {reached.steps} steps of this attempt"
                    return

        return look_on

    def json(self, code: int) -> dict[str, Any]:
        return {"signal": self.moment.signal.name, "moment": self.moment.name, "at": self.at, "code": code}
