"""The traces of two runs, event by event: where they first differ, and in what. No TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Place = tuple[str, int, int]  # event, epoch, batch
# What makes a training another one, in the order in which a step comes to it.
EFFECTS = ("x", "y", "weight", "out", "loss", "rate", "variables", "logs")
_COMPARED = ("before", "step", "validated", "epoch")


@dataclass(frozen=True)
class Event:
    """One line of a trace; `hidden`: all Python-side state by then, not only what moved."""

    at: str
    epoch: int
    batch: int
    facts: Mapping[str, Any]
    hidden: Mapping[str, str]

    @property
    def place(self) -> Place:
        return (self.at, self.epoch, self.batch if self.at in ("before", "step") else 0)

    def __str__(self) -> str:
        where = {
            "before": f"before batch {self.batch + 1} of epoch {self.epoch + 1}",
            "step": f"at batch {self.batch + 1} of epoch {self.epoch + 1}",
            "validated": f"in the validation of epoch {self.epoch + 1}",
        }
        return where.get(self.at, f"at the end of epoch {self.epoch + 1}")


@dataclass(frozen=True)
class Trace:
    """One attempt's events, in order."""

    events: tuple[Event, ...]

    @classmethod
    def read(cls, file: Path) -> Trace:
        lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []  # a kill may cut the last one
        hidden: dict[str, str] = {}
        events = []
        for line in lines:
            facts = json.loads(line)
            hidden = {**hidden, **facts.pop("hidden", {})}
            events.append(Event(facts.pop("at"), facts.pop("epoch"), facts.pop("batch"), facts, hidden))
        return cls(tuple(events))

    @property
    def steps(self) -> int:
        return sum(event.at == "step" for event in self.events)

    def only(self, at: str) -> list[Event]:
        return [event for event in self.events if event.at == at]

    def first(self, at: str) -> Event | None:
        return next(iter(self.only(at)), None)

    def described(self) -> Mapping[str, Any]:
        """What the attempt said of the user's parts when it began."""
        began = self.first("began")
        return began.facts["users"] if began else {}

    def chance(self) -> dict[str, str]:
        """Operations with state of their own in the compiled step: name -> type."""
        return {name: op for event in self.only("step") for name, op in event.facts.get("chance", {}).items()}


@dataclass(frozen=True)
class Parting:
    """Where an attempt leaves the reference: the event on both sides, and what differs there."""

    attempt: int
    whole: Event
    broken: Event
    effects: tuple[str, ...]
    variables: tuple[str, ...]
    logs: tuple[str, ...]
    hidden: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    resumed: bool = True  # whether the attempt began in the middle of the run

    @property
    def random(self) -> tuple[str, ...]:
        """Global generators that are elsewhere."""
        ours, theirs = (e.facts.get("random", {}) for e in (self.whole, self.broken))
        return tuple(name for name in ours if ours[name] != theirs.get(name))


def parting(whole: Trace, attempts: Sequence[Trace]) -> Parting | None:
    """The first effect that differs from the reference in the first attempt that has one."""
    known = {event.place: event for event in whole.events if event.at in _COMPARED}
    for number, trace in enumerate(attempts, start=1):
        earlier: tuple[Event, Event] | None = None
        for event in trace.events:
            ours = known.get(event.place)
            if ours is not None and (found := _differing(ours, event)):
                return _parting(number, (ours, event), found, earlier, trace)
            earlier = (ours, event) if ours is not None else earlier
    return None


def _parting(
    number: int,
    pair: tuple[Event, Event],
    effects: list[str],
    earlier: tuple[Event, Event] | None,
    trace: Trace,
) -> Parting:
    """Hidden state as it was before: what differs after is a consequence as well."""
    ours, event = pair
    first = trace.first("before")
    return Parting(
        number,
        ours,
        event,
        tuple(effects),
        tuple(_keys(ours, event, "variables")),
        tuple(_keys(ours, event, "logs")),
        (hidden_between(*earlier) if earlier else {}) or hidden_between(*pair),
        first is not None and (first.epoch, first.batch) != (0, 0),
    )


def _differing(ours: Event, theirs: Event) -> list[str]:
    return [name for name in EFFECTS if ours.facts.get(name) != theirs.facts.get(name)]


def _keys(ours: Event, theirs: Event, part: str) -> Iterator[str]:
    a, b = ours.facts.get(part) or {}, theirs.facts.get(part) or {}
    yield from (name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name))


def hidden_between(ours: Event, theirs: Event) -> dict[str, tuple[str | None, str | None]]:
    """Python-side state that differs between two events at one place: path -> (reference, attempt)."""
    a, b = ours.hidden, theirs.hidden
    return {
        path: (a.get(path), b.get(path)) for path in dict.fromkeys((*a, *b)) if a.get(path) != b.get(path)
    }


def same_rows(whole: Trace, event: Event) -> bool:
    """Whether every row of this batch occurs somewhere in the reference: another order, and no other contents."""
    known = {row for step in whole.only("step") for row in step.facts["rows"]}
    return set(event.facts.get("rows", ())) <= known
