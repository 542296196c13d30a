"""When a checkpoint is due: by steps, minutes, epochs, at the end. The clock is injected: tests need not sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Any rule that is not None makes a checkpoint due. `every_minutes` counts from the last one published."""

    every_steps: int | None = None
    every_minutes: float | None = 10
    every_epochs: int | None = 1
    at_end: bool = True


@dataclass
class Clockwork:
    """A schedule in motion. `step` is the optimizer's raw iteration count."""

    schedule: Schedule
    step: int
    clock: Callable[[], float] = time.monotonic
    published_at: float = 0.0

    def __post_init__(self) -> None:
        self.published_at = self.clock()

    def after_step(self, step: int) -> bool:
        """Whether a checkpoint is due after the step that brought the count to `step`. Call once a step (or block)."""
        every, minutes = self.schedule.every_steps, self.schedule.every_minutes
        crossed = bool(every) and step // (every or 1) > self.step // (every or 1)
        self.step = step
        return crossed or (minutes is not None and self.clock() - self.published_at >= 60 * minutes)

    def after_epoch(self, epochs_done: int, *, last: bool) -> bool:
        every = self.schedule.every_epochs
        return (last and self.schedule.at_end) or (bool(every) and epochs_done % (every or 1) == 0)

    def published(self) -> None:
        self.published_at = self.clock()
