"""When a checkpoint is due: exact lists of steps, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from resume.schedule import Clockwork, Schedule

NEVER = Schedule(every_steps=None, every_minutes=None, every_epochs=None, at_end=False)


def due_steps(
    schedule: Schedule, steps: Iterable[int], *, start: int = 0, seconds_per_step: float = 0
) -> list[int]:
    """The steps after which a checkpoint is due; each is published at once, on the same clock."""
    now = [100.0]
    work = Clockwork(schedule, start, clock=lambda: now[0])
    due, before = [], start
    for step in steps:
        now[0] += seconds_per_step * (step - before)
        before = step
        if work.after_step(step):
            due.append(step)
            work.published()
    return due


@pytest.mark.parametrize(
    ("every", "start", "steps", "due"),
    [
        (3, 0, range(1, 11), [3, 6, 9]),
        (1, 0, range(1, 5), [1, 2, 3, 4]),
        (3, 4, range(5, 11), [6, 9]),  # a resumed run keeps the multiples, not the distance
        (3, 6, range(7, 11), [9]),
        (10, 0, range(4, 41, 4), [12, 20, 32, 40]),  # blocks of steps_per_execution cross the multiples
        (2, 0, [7, 8, 20], [7, 8, 20]),
        (None, 0, range(1, 11), []),
    ],
)
def test_every_steps(every: int | None, start: int, steps: Iterable[int], due: list[int]) -> None:
    assert due_steps(Schedule(every, None, None), steps, start=start) == due


@pytest.mark.parametrize(
    ("minutes", "seconds_per_step", "due"),
    [
        (1, 20, [3, 6, 9]),
        (1, 60, list(range(1, 11))),
        (1, 59, [2, 4, 6, 8, 10]),
        (0.5, 10, [3, 6, 9]),
        (0, 1, list(range(1, 11))),  # zero minutes: after every step
        (10, 30, []),
    ],
)
def test_every_minutes(minutes: float, seconds_per_step: float, due: list[int]) -> None:
    schedule = Schedule(None, minutes, None)
    assert due_steps(schedule, range(1, 11), seconds_per_step=seconds_per_step) == due


def test_minutes_count_from_the_last_one_published() -> None:
    # A minute is six steps here: multiples of 5 leave it no time, multiples of 8 do.
    assert due_steps(Schedule(5, 1, None), range(1, 21), seconds_per_step=10) == [5, 10, 15, 20]
    assert due_steps(Schedule(8, 1, None), range(1, 25), seconds_per_step=10) == [6, 8, 14, 16, 22, 24]


def test_it_stays_due_until_published() -> None:
    now = [0.0]
    work = Clockwork(Schedule(None, 1, None), 0, clock=lambda: now[0])
    now[0] = 60.0
    assert [work.after_step(1), work.after_step(2)] == [True, True]
    work.published()
    assert not work.after_step(3)


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        (Schedule(), [1, 2, 3, 4, 5]),
        (Schedule(every_epochs=2), [2, 4, 5]),
        (Schedule(every_epochs=2, at_end=False), [2, 4]),
        (Schedule(every_epochs=None), [5]),
        (NEVER, []),
    ],
)
def test_epochs_and_the_end(schedule: Schedule, due: list[int]) -> None:
    work = Clockwork(schedule, 0, clock=lambda: 0.0)
    assert [epoch for epoch in range(1, 6) if work.after_epoch(epoch, last=epoch == 5)] == due


def test_defaults_are_ten_minutes_and_each_epoch() -> None:
    assert due_steps(Schedule(), range(1, 26), seconds_per_step=60) == [10, 20]
