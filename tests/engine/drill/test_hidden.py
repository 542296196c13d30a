"""Python-side state of the user's objects: read wherever it may be, and nothing of Keras's own."""

from __future__ import annotations

import itertools
import random
from collections import deque
from typing import Any

import keras
import numpy as np

from resume.engine.drill.hidden import is_users, snapshot

_SEEN = 0
_ROUNDS = itertools.count(3)


class Fading(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.window, self.rng = 2, deque([1.5]), np.random.default_rng(0)
        self.helper = Helper()
        self.scale = self.add_weight(shape=(), name="scale")


class Helper:
    shared: list[int] = []  # noqa: RUF012  of the class: that is the point

    def __init__(self) -> None:
        self.random = random.Random(1)


def counted(start: int) -> Any:
    count = start

    def step(batch: int, logs: Any = None) -> int:
        nonlocal count
        count += 1
        return count

    return step


def numbers() -> Any:
    for n in range(5):  # noqa: UP028
        yield n


def test_attributes_of_a_users_layer_and_of_what_it_holds() -> None:
    found = snapshot({"layer fade": Fading()})
    assert found["layer fade.calls"] == "2"
    assert found["layer fade.window"] == "{'$deque': [[1.5], None]}"
    assert found["layer fade.rng"].startswith("dict ") or "Generator" in found["layer fade.rng"]
    assert "layer fade.helper.random" in found
    assert found["layer fade.helper.shared"] == "[]"
    assert not [path for path in found if path.endswith((".built", "._name"))]


def test_a_generator_of_random_numbers_that_moves() -> None:
    layer = Fading()
    before = snapshot({"x": layer})
    layer.rng.random()
    after = snapshot({"x": layer})
    assert {path for path in before if before[path] != after[path]} == {"x.rng"}


def test_closures_generators_and_module_globals() -> None:
    step, drawn = counted(4), numbers()
    step(0)
    next(drawn)
    next(drawn)
    found = snapshot({"callbacks.a": step, "data": drawn})
    assert found["callbacks.a.count"] == "5"
    assert found["data.n"] == "1"
    assert found[f"module {__name__}._SEEN"] == "0"
    assert found[f"module {__name__}._ROUNDS"] == "count(3)"


def test_a_users_function_in_an_object_of_keras() -> None:
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=counted(7))
    assert snapshot({"callbacks.b": callback})["callbacks.b.on_train_batch_end.count"] == "7"


def test_objects_of_libraries_hold_nothing_here() -> None:
    objects = {"layer": keras.layers.Dense(3), "metric": keras.metrics.Mean(), "none": None}
    assert set(snapshot(objects)) <= {"none"}


def test_what_refers_to_itself() -> None:
    ring: list[Any] = [Helper()]
    ring.append(ring)
    assert "x[0].random" in snapshot({"x": ring})


def test_whose_it_is() -> None:
    assert is_users(Fading)
    assert is_users(counted)
    assert not any(map(is_users, (keras.layers.Dense, np.random.default_rng, random.Random, len)))
