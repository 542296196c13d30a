"""From a first difference to the part, the object and the cure. Real faults are in tests/e2e/test_drill.py."""

from __future__ import annotations

from typing import Any

import pytest

from resume.engine.drill.cures import CURES
from resume.engine.drill.diagnosis import Finding, finding, of_compile, of_repetition, of_resumption
from resume.engine.drill.record import Event, Trace

Hidden = dict[str, str]


def draw(kind: str, text: str) -> dict[str, str]:
    return {"kind": kind, "text": text, "where": "mine.py:3"}


USERS: dict[str, Any] = {
    "data.train": {"class": "mine.train", "draws": [], "names": []},
    "data.validation": {"class": "mine.held_out", "draws": [], "names": []},
    "layer fade": {"class": "mine.Fade", "draws": [], "names": ["_CALLS"]},
    "layer fader": {"class": "mine.Fader", "draws": [], "names": []},
    "metric best": {"class": "mine.Best", "draws": [], "names": []},
    "callbacks.slow": {"class": "mine.Slow", "draws": [], "names": ["_ROUNDS"]},
    "callbacks.stop": {"class": "keras.callbacks.EarlyStopping", "draws": [], "names": []},
}
STEP = {"x": 1, "y": 2, "weight": 0, "out": 3, "loss": 4, "rate": 5, "rate_value": 0.5, "rows": [1],
        "variables": {"model/a": "0"}, "logs": {}}  # fmt: skip


def trace(*events: Event, users: dict[str, Any] | None = None) -> Trace:
    return Trace((Event("began", 0, 0, {"users": USERS | (users or {})}, {}), *events))


def step(hidden: Hidden | None = None, **facts: Any) -> Event:
    return Event("step", 0, 3, STEP | facts, hidden or {})


def before(hidden: Hidden) -> Event:
    return Event("before", 0, 3, {"variables": STEP["variables"]}, hidden)


def resumed(
    whole: Hidden | None = None, broken: Hidden | None = None, *, users: Any = None, **facts: Any
) -> Finding:
    reference = trace(before(whole or {}), step(), users=users)
    found = of_resumption(reference, [trace(before(broken or {}), step(**facts))])
    assert found is not None
    return found


def repeated(*, users: Any = None, **facts: Any) -> Finding:
    found = of_repetition(trace(step(), users=users), trace(step(**facts)))
    assert found is not None
    return found


def test_nothing_differs() -> None:
    assert of_resumption(trace(step()), [trace(step())]) is None
    assert of_repetition(trace(step()), trace(step())) is None


def test_data() -> None:
    assert resumed(x=0).part == "data order"
    assert resumed(x=0, rows=[9]).part == "data with hidden state"
    assert (
        resumed({"data.train().at": "3"}, {"data.train().at": "0"}, x=0).where
        == "data.train (mine.train): data.train().at"
    )
    users = {"data.train": USERS["data.train"] | {"draws": [draw("python", "random.random()")]}}
    found = resumed(users=users, x=0, rows=[9])
    assert found.part == "global random numbers in the data"
    assert found.where == "data.train (mine.train): random.random() at mine.py:3"
    assert found.evidence.endswith(
        "the batch holds values that the unbroken run never saw, with the same labels"
    )


def test_data_that_does_not_repeat() -> None:
    assert repeated(x=0).part == "unseeded shuffle"
    assert repeated(x=0, rows=[9]).part == "unseeded randomness in the data"
    users = {"data.train": USERS["data.train"] | {"draws": [draw("hash", "set(names)")]}}
    assert repeated(users=users, x=0).part == "order by hash or listing"


def test_a_layer_by_its_attribute_and_no_other_of_a_like_name() -> None:
    found = resumed({"layer fader.n": "4", "callbacks.slow.n": "1"}, {"layer fader.n": "0"}, out=0)
    assert (found.part, found.where) == ("layer with hidden state", "layer fader (mine.Fader): layer fader.n")
    assert "layer fader.n: 4 -> 0" in found.evidence


def test_a_global_is_its_users() -> None:
    moved = (
        {"module mine._ROUNDS": "count(4)", "module mine._CALLS": "4"},
        {"module mine._ROUNDS": "count(0)", "module mine._CALLS": "0"},
    )
    assert resumed(*moved, out=0).where == "layer fade (mine.Fade): module mine._CALLS"
    found = resumed(*moved, variables={"model/a": "0", "optimizer/learning_rate": "1"})
    assert (found.part, found.where) == (
        "callback with hidden state",
        "callbacks.slow (mine.Slow): module mine._ROUNDS",
    )


def test_operations_of_chance() -> None:
    chance = {"model/fade_1/random_normal/RandomStandardNormal": "RandomStandardNormal"}
    found = resumed(out=0, chance=chance)
    assert found.part == "stateful random operation in a layer"
    assert found.where.startswith("layer fade (mine.Fade): RandomStandardNormal model/fade_1/")
    found = repeated(out=0, chance={"model/fade/EagerPyFunc": "EagerPyFunc"})
    assert (found.part, found.where) == (
        "non-deterministic operation",
        "layer fade (mine.Fade): EagerPyFunc model/fade/EagerPyFunc",
    )


def test_loss_rate_and_update() -> None:
    assert resumed(loss=0).part == "loss with hidden state"
    found = resumed({"schedule.calls": "4"}, {"schedule.calls": "0"}, rate=0, rate_value=0.25)
    assert (found.part, found.where) == ("schedule with hidden state", "schedule: schedule.calls")
    assert "was 0.5 and is 0.25" in found.evidence
    assert resumed(variables={"model/a": "1"}).part == "optimizer with hidden state"
    assert resumed(
        {"callbacks.slow.n": "1"}, {"callbacks.slow.n": "0"}, variables={"model/a": "1"}
    ).where == ("callbacks.slow (mine.Slow): callbacks.slow.n")
    scale = {"optimizer/loss_scale/dynamic_scale": "1", **STEP["variables"]}  # type: ignore[dict-item]
    found = resumed(variables=scale)
    assert (found.part, found.where) == ("loss scale reset", "callbacks.slow (mine.Slow)")


def test_metrics_and_logs() -> None:
    assert resumed(logs={"best": "1"}).where == "metric best (mine.Best)"
    assert resumed(variables={"model/a": "0", "metrics/best/total": "1"}).part == "metric with hidden state"
    assert resumed(logs={"tally": "1"}).part == "callback with hidden state"
    whole, other = (Event("validated", 0, 0, {"logs": {"loss": text}}, {}) for text in "12")
    found = of_resumption(trace(whole), [trace(other)])
    assert found is not None
    assert (found.part, found.where) == (
        "validation data with hidden state",
        "data.validation (mine.held_out)",
    )
    assert found.evidence == "attempt 1, in the validation of epoch 1: weights are equal, logs are not: loss"


def test_compile() -> None:
    compiled = Event("compile", 0, 0, {"by": "callbacks.slow on_epoch_end (mine.py:9)"}, {})
    whole = trace(compiled, step())
    found = of_resumption(
        whole, [trace(compiled, step(variables={"model/a": "1", "optimizer/momentum/a": "2"}))]
    )
    assert found is not None
    assert found.part == "optimizer rebuilt by compile()"
    assert found.where == "callbacks.slow on_epoch_end (mine.py:9), of mine.Slow"
    assert of_compile(whole, compiled, "it failed").evidence == "it failed"


@pytest.mark.parametrize("part", CURES)
def test_each_cure_is_a_sentence_or_two(part: str) -> None:
    found = finding(part, "", "seen")
    assert found.where.startswith("not found")
    assert found.cure.endswith(".")
    assert len(found.cure) < 300
    assert found.json() == {"part": part, "where": found.where, "evidence": "seen", "cure": found.cure}
