"""Optimizer variables told by the order of the class, which every shape must confirm."""

from __future__ import annotations

from typing import Any

import pytest

from resume.formats import keras2
from resume.formats.keras2 import Owner, Weight
from resume.state import OptimizerInfo

OWNERS = [Owner("a/kernel", "a/kernel:0", (2, 3), True), Owner("a/bias", "a/bias:0", (3,), True)]
SHAPES: list[tuple[int, ...]] = [(2, 3), (3,)]


def _ordered(kind: str, shapes: list[tuple[int, ...]], **config: Any) -> tuple[list[str], list[str]]:
    variables = [Weight(f"Variable_{n}:0", shape) for n, shape in enumerate(shapes)]
    return keras2.optimizer_names(OptimizerInfo(kind, config, legacy=True), variables, OWNERS)


STANDALONE: dict[str, tuple[list[tuple[int, ...]], dict[str, Any], list[str]]] = {
    "SGD": ([(), *SHAPES], {"momentum": 0.9}, ["iteration", "momentum/*"]),
    "SGD without momentum": ([(), *SHAPES], {"momentum": 0.0}, ["iteration", "unused/0", "unused/1"]),
    "RMSprop of 2.2": (SHAPES, {}, ["velocity/*"]),
    "RMSprop of 2.3": ([(), *SHAPES], {}, ["iteration", "velocity/*"]),
    "Adagrad of 2.2": (SHAPES, {}, ["accumulator/*"]),
    "Adadelta of 2.3": (
        [(), *SHAPES * 2],
        {},
        ["iteration", "accumulated_grad/*", "accumulated_delta_var/*"],
    ),
    "Adam of 2.0": ([(), *SHAPES * 2], {}, ["iteration", "momentum/*", "velocity/*"]),
    "Adam of 2.1": (
        [(), *SHAPES * 2, (1,), (1,)],
        {"amsgrad": False},
        ["iteration", "momentum/*", "velocity/*", "unused/0", "unused/1"],
    ),
    "Adam amsgrad": (
        [(), *SHAPES * 3],
        {"amsgrad": True},
        ["iteration", "momentum/*", "velocity/*", "velocity_hat/*"],
    ),
    "Adamax": ([(), *SHAPES * 2], {}, ["iteration", "momentum/*", "norm/*"]),
    "Nadam of 2.2": ([(), *SHAPES * 2], {}, ["iteration", "momentum/*", "velocity/*"]),
    "Nadam of 2.3": ([(), (), *SHAPES * 2], {}, ["iteration", "u_product", "momentum/*", "velocity/*"]),
}


@pytest.mark.parametrize("name", STANDALONE)
def test_standalone_optimizers_by_their_order(name: str) -> None:
    shapes, config, expected = STANDALONE[name]
    names = [n.replace("*", owner.name) for n in expected for owner in (OWNERS if "*" in n else OWNERS[:1])]
    assert _ordered(name.split()[0], shapes, **config) == ([f"optimizer/{n}" for n in names], [])


def test_an_order_that_the_shapes_contradict_is_no_order() -> None:
    found, notes = _ordered("Adam", [(), (3,), (2, 3), *SHAPES])
    assert found == [f"optimizer/vars/{n}" for n in range(5)]
    assert len(notes) == 2
    assert "could not be derived" in notes[0]
