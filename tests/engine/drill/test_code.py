"""What source text says about chance."""

from __future__ import annotations

import functools
import os
import random
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from resume.engine.drill.code import described, draws


def unseeded() -> Any:
    return np.random.default_rng().permutation(3)


def seeded(seed: int, epoch: int) -> Any:
    rng = random.Random(seed)
    tf.random.set_seed(seed)
    return rng.random(), np.random.default_rng((seed, epoch)), tf.random.Generator.from_seed(seed)


def python() -> Any:
    return random.shuffle([1, 2])


def numpy() -> Any:
    return np.random.normal(size=3)


def graph() -> Any:
    return tf.random.uniform([3]), tf.random.stateless_uniform([3], [0, 1])


def clock() -> Any:
    return time.time()


def ordered() -> Any:
    return list({n for n in "abc"}), os.listdir(".")  # noqa: C416, PTH208


def through() -> Any:
    return _deeper()


def _deeper() -> Any:
    return random.random()


class Drawing:
    def __getitem__(self, index: int) -> float:
        return random.random()


@pytest.mark.parametrize(
    ("item", "kinds"),
    [
        (unseeded, ["unseeded"]), (seeded, []), (python, ["python"]), (numpy, ["numpy"]), (graph, ["tensorflow"]),
        (clock, ["clock"]), (ordered, ["hash"]), (through, ["python"]), (Drawing(), ["python"]),
        (functools.partial(python), ["python"]), (np.random.default_rng, []), (len, []), (None, []),
    ],
)  # fmt: skip
def test_kinds(item: Any, kinds: list[str]) -> None:
    assert [draw.kind for draw in draws(item)] == kinds


def test_lines_are_named() -> None:
    (draw,) = draws(python)
    assert draw.text == "random.shuffle([1, 2])"
    assert draw.where == f"test_code.py:{python.__code__.co_firstlineno + 1}"
    assert str(draw) == f"{draw.text} ({draw.where})"


def test_described() -> None:
    found = described(functools.partial(through))
    assert found["class"] == f"{__name__}.through"
    assert found["names"] == ["_deeper", "random", "Any"] or {"_deeper", "random"} <= set(found["names"])
