"""The state of any callback, out and in again."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from resume import plain
from resume.engine import memory
from resume.engine.memory import Untouched
from resume.errors import ContinuityError


class Tracker:
    def __init__(self) -> None:
        self.high = 0


class Hoarder(keras.callbacks.Callback):
    """State of every kind that users keep; `limit` is an argument."""

    def __init__(self, limit: int = 3) -> None:
        super().__init__()
        self.limit = limit
        self.seen: list[int] = []
        self.best = np.inf
        self.window: deque[float] = deque(maxlen=2)
        self.weights: Any = None
        self.rng = np.random.default_rng(0)
        self.mean = keras.metrics.Mean()
        self.tensor = tf.constant(0.0)
        self.tracker = Tracker()
        self.compare = np.less
        self.stream = iter(())

    def live(self) -> None:
        self.seen.append(7)
        self.best, self.weights = 0.1, [np.arange(3.0), np.float32(2.5)]
        self.window.extend([1.0, float("nan"), -0.0])
        self.mean.update_state(4.0)
        self.tensor = tf.constant(2.0)
        self.tracker.high = 9
        self.rng.random(5)


def through_json(states: dict[str, Any]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}

    def keep(array: Any) -> str:
        arrays[str(len(arrays))] = array
        return str(len(arrays) - 1)

    found: dict[str, Any] = plain.decode(
        json.loads(json.dumps(plain.encode(states, keep=keep))), find=arrays.__getitem__
    )
    return found


def saved(callback: Hoarder, made: memory.Snapshot) -> dict[str, Any]:
    return through_json(memory.states({"mine": callback}, Untouched(made, made)))


def test_what_an_earlier_training_left_is_no_argument() -> None:
    """It may be what this training begins with, and is kept all the same; what was set since is an argument."""
    callback = Hoarder()
    first = memory.as_made({"mine": callback})
    callback.live()
    memory.leave({"mine": callback})
    callback.limit = 8
    untouched = Untouched(memory.as_made({"mine": callback}), memory.snapshot({"mine": callback}))
    attributes = memory.states({"mine": callback}, untouched)["mine"]["attributes"]
    assert attributes["seen"] == ("plain", [7])
    assert "limit" not in attributes
    assert untouched.made["mine"]["seen"] == first["mine"]["seen"]
    memory.leave({"mine": callback})
    assert memory.as_made({"mine": callback}) == untouched.made  # however many there were
    assert memory.as_made({"mine": Hoarder()}) == first


def test_everything_comes_back() -> None:
    old = Hoarder()
    made = memory.snapshot({"mine": old})
    old.live()
    state = saved(old, made)
    new = Hoarder(limit=5)
    seen = new.seen
    memory.restore({"mine": new}, state)
    assert memory.differences({"mine": new}, state) == []
    assert seen == [7], "lists are filled in place"
    assert new.limit == 5, "an argument is today's"
    assert new.best == 0.1
    assert str(new.window) == "deque([nan, -0.0], maxlen=2)"
    np.testing.assert_array_equal(new.weights[0], [0, 1, 2])
    assert type(new.weights[1]) is np.float32
    assert float(new.mean.result()) == 4.0
    assert float(new.tensor) == 2.0
    assert new.tracker.high == 9
    assert new.rng.random() == old.rng.random()


def test_what_cannot_be_held_is_named() -> None:
    assert memory.unheld({"mine": Hoarder()}) == ["mine.stream (tuple_iterator)"]


def test_keras_flips_min_delta_only_once() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    def stopping() -> keras.callbacks.EarlyStopping:
        callback = keras.callbacks.EarlyStopping(monitor="loss", min_delta=0.5, patience=2)
        callback.set_model(model)
        callback.on_train_begin()
        return callback

    old = stopping()
    made = memory.snapshot({"stop": old})
    old.on_epoch_end(0, {"loss": 1.0})
    state = through_json(memory.states({"stop": old}, Untouched(made, made)))
    new = stopping()
    memory.restore({"stop": new}, state)
    for callback in (old, new):
        callback.on_epoch_end(1, {"loss": 0.9})
    assert (new.min_delta, new.best, new.wait) == (old.min_delta, old.best, old.wait) == (-0.5, 1.0, 1)


def test_a_callback_that_speaks_for_itself_is_asked() -> None:
    class Speaking(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.secret = 0

        def get_state(self) -> dict[str, int]:
            return {"x": self.secret}

        def set_state(self, state: dict[str, int]) -> None:
            self.secret = state["x"]

    old, new = Speaking(), Speaking()
    old.secret = 4
    memory.restore({"a": new}, through_json(memory.states({"a": old}, Untouched({}))))
    assert new.secret == 4


def test_a_state_that_does_not_stick_is_refused() -> None:
    class Forgetful(keras.callbacks.Callback):
        @property
        def count(self) -> int:
            return 0

        def get_state(self) -> int:
            return self.count

        def set_state(self, state: int) -> None:
            pass

    with pytest.raises(ContinuityError, match="callback a: its state reads back different"):
        memory.differences({"a": Forgetful()}, {"a": {"class": "Forgetful", "state": 3}})


def test_callbacks_that_came_or_went_are_said() -> None:
    lines = memory.differences({"new": Hoarder()}, {"old": {"class": "Hoarder", "attributes": {}}})
    assert lines == [
        "callback old of the checkpoint is not configured today: its state is dropped",
        "callback new is new: it starts fresh",
    ]
