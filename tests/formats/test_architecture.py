"""Configs that no model of Keras has, each named; and odd ones that are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resume.errors import SourceError
from resume.formats import architecture

Config = dict[str, Any]


def dense(name: str, on: str | None = None, call: int = 0, /, **config: Any) -> Config:
    """A layer of a functional model as Keras 2 writes it."""
    nodes = [[[on, call, 0, {}]]] if on else []
    return {
        "class_name": "Dense",
        "name": name,
        "config": {"name": name, "units": 2, **config},
        "inbound_nodes": nodes,
    }


def begin(name: str = "in") -> Config:
    return {"class_name": "InputLayer", "name": name, "config": {"name": name}, "inbound_nodes": []}


def model(*layers: Config, end: str = "b", name: str = "m", kind: str = "Functional") -> Config:
    config = {
        "name": name,
        "layers": list(layers),
        "input_layers": [["in", 0, 0]],
        "output_layers": [[end, 0, 0]],
    }
    return {"class_name": kind, "name": name, "config": config}


def tensor(name: str, call: int = 0) -> Config:
    return {"class_name": "__keras_tensor__", "config": {"shape": [None], "keras_history": [name, call, 0]}}


def modern(name: str, *on: Config, **kwargs: Any) -> Config:
    """As Keras 3 writes it."""
    return {**dense(name), "module": "keras.layers", "inbound_nodes": [{"args": list(on), "kwargs": kwargs}]}


def called(name: str, argument: Any) -> Config:
    """A layer of Keras 2 with one node that holds one argument."""
    return {**dense(name), "inbound_nodes": [[argument]]}


def nested(call: int) -> Config:
    inner = {**model(begin(), dense("b", "in"), name="inner"), "inbound_nodes": [[["in", 0, 0, {}]]]}
    return model(begin(), inner, dense("b", "inner", call))


RIGHT = {
    "Keras 2": model(begin(), dense("a", "in"), dense("b", "a")),
    "Keras 3": model(begin(), modern("a", tensor("in")), modern("b", tensor("a"), mask=None)),
    "a layer called twice": model(
        begin(), {**dense("a"), "inbound_nodes": [[["in", 0, 0, {}]], [["a", 0, 0, {}]]]}, dense("b", "a", 1)
    ),
    "listed backwards": model(dense("b", "a"), dense("a", "in"), begin()),
    "a tensor among the arguments": model(
        begin(), {**dense("b"), "inbound_nodes": [[["in", 0, 0, {"mask": ["in", 0, 0]}]]]}
    ),
    "a constant": model(begin(), called("b", ["_CONSTANT_VALUE", -1, 2.0, {"y": ["in", 0, 0]}])),
    "arguments by name": model(begin(), called("b", {"x": ["in", 0, 0, {}], "y": ["in", 0, 0, {}]})),
    "strings and numbers in a list": model(begin(), called("b", ["in", 0, 0, {"s": ["no", 1, 2]}])),
    "a model has a call of its own": nested(1),
    "but not in an .h5 of Keras 3": model(
        begin(), {**model(begin(), dense("i", "in"), name="inner", end="i"), "name": "inner",
                  "inbound_nodes": [{"args": [tensor("in")], "kwargs": {}}]}, modern("b", tensor("inner"))),
    "Sequential as a list": {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": {"units": 2}}]},
    "masking by NaN": {"class_name": "Masking", "config": {"name": "m", "mask_value": float("nan")}},
    "no upper bound": {"class_name": "ReLU", "config": {"name": "r", "max_value": float("inf")}},
    "sizes that may be missing": {"class_name": "StringLookup", "config": {"name": "s", "max_tokens": None}},
    "a class of the user's": {"class_name": "Mine", "config": {"name": "m", "units": "many", "momentum": 3}},
    "a schedule": {"class_name": "Adam", "config": {"learning_rate": {"class_name": "CosineDecay", "config": {}}}},
}  # fmt: skip

WRONG = {
    "loop": (model(begin(), dense("a", "b"), dense("b", "a")), "m: its graph has a loop or a loose end at a, b"),
    "loop of Keras 3": (model(begin(), modern("a", tensor("b")), modern("b", tensor("a"))), "a loop"),
    "call too many": (model(begin(), dense("a", "in"), dense("b", "a", 3)), "loose end at b"),
    "call of the model itself": (nested(0), "loose end at b"),
    "layer not there": (model(begin(), dense("b", "x")), "m: its graph refers to a layer 'x', which is not there"),
    "end not there": (model(begin(), dense("a", "in")), "refers to a layer 'b'"),
    "two of one name": (model(begin(), dense("b", "in"), dense("b", "in")), "m: two layers are called b"),
    "two names": (model(begin(), dense("b", "in", name="c")), "called 'b' in the graph, and 'c' in its configuration"),
    "no layers": (model(end="in"), "refers to a layer"),
    "no class": (model(begin(), {"name": "b", "config": {}}), "no class or no configuration"),
    "nested": (model(begin(), model(begin(), dense("b", "x"), name="inner"), end="inner"), "m/inner: its graph refers"),
    "NaN": (dense("a", units=float("nan")), "a: units is NaN"),
    "infinite": (dense("a", units=float("inf")), "a: units is inf, not a number from 1 on"),
    "negative": (dense("a", units=-8), "units is -8"),
    "broken": (dense("a", units=8.5), "units is 8.5"),
    "text": (dense("a", units="8"), "units is '8'"),
    "none": (dense("a", units=None), "units is None"),
    "huge": (dense("a", units=10**12), "units is 1000000000000"),
    "momentum": ({"class_name": "BatchNormalization", "config": {"name": "n", "momentum": 2.0}}, "between 0 and 1"),
    "beta": ({"class_name": "Adam", "config": {"beta_2": 5.0}}, "Adam: beta_2 is 5.0, not between 0 and 1"),
    "rate": ({"class_name": "Custom>Adam", "config": {"learning_rate": float("inf")}}, "not a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_models_as_keras_writes_them(kind: str) -> None:
    assert list(architecture.complaints(RIGHT[kind])) == []
    architecture.check(RIGHT[kind], Path("a.h5"))


@pytest.mark.parametrize("kind", WRONG)
def test_models_that_cannot_be(kind: str) -> None:
    config, message = WRONG[kind]
    with pytest.raises(SourceError) as caught:
        architecture.check(config, Path("a.h5"))
    assert str(caught.value).startswith("a.h5: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
