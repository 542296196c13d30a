"""Dtypes of tensors, and tf.shape in tf.reshape, found in graphs of Keras 2 that are written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from resume.formats import operands

GETITEM = "__operators__.getitem"


def layer(name: str, node: Any, function: str | None = None, **config: Any) -> dict[str, Any]:
    kind = "Dense" if function is None else "SlicingOpLambda" if function == GETITEM else "TFOpLambda"
    settings = {"name": name, "dtype": "float32", **({"function": function} if function else {}), **config}
    return {"class_name": kind, "name": name, "config": settings, "inbound_nodes": [node]}


def entry(dtype: str = "float32") -> dict[str, Any]:
    return {
        "class_name": "InputLayer",
        "name": "x",
        "config": {"name": "x", "dtype": dtype},
        "inbound_nodes": [],
    }


def graph(*layers: dict[str, Any], output: str) -> dict[str, Any]:
    """By name, what is left of a graph."""
    config = {"layers": list(layers), "input_layers": [["x", 0, 0]], "output_layers": [[output, 0, 0]]}
    return {item["name"]: item for item in operands.prepared(config)["layers"]}


def measured(of: str = "x", place: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        layer(f"shape{place}", [of, 0, 0, {}], "compat.v1.shape"),
        layer(f"size{place}", [f"shape{place}", 0, 0, {"slice_spec": place}], GETITEM),
    )


def reshaped(shape: Any, *, of: str = "x") -> dict[str, Any]:
    return layer("reshape", [of, 0, 0, {"shape": shape}], "reshape")


SIZE, OTHER = ["size0", 0, 0], ["size1", 0, 0]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([SIZE, -1], [None, -1]),
        ([SIZE, 2, 8], [-1, 2, 8]),
        ([SIZE, OTHER, 2, 2], [None, -1, 2, 2]),
        ([2, OTHER, 8], [2, -1, 8]),
    ],
)
def test_sizes_that_tf_reshape_finds_itself(shape: Any, expected: Any) -> None:
    found = graph(entry(), *measured(), *measured(place=1), reshaped(shape), output="reshape")
    assert found["reshape"]["inbound_nodes"] == [["x", 0, 0, {"shape": expected}]]
    assert list(found) == ["x", "reshape"]  # nothing else asked for the shape


@pytest.mark.parametrize("shape", [[-1, SIZE], [OTHER, -1], [SIZE, OTHER, -1], [OTHER, SIZE], SIZE])
def test_sizes_that_nothing_says(shape: Any) -> None:
    found = graph(entry(), *measured(), *measured(place=1), reshaped(shape), output="reshape")
    assert found["reshape"]["inbound_nodes"] == [["x", 0, 0, {"shape": shape}]]
    assert "shape0" in found


def test_the_batch_of_another_tensor() -> None:
    """It is the same one, if all other sizes are known; and may not be, if one is to be found."""
    dense = layer("dense", ["x", 0, 0, {}])
    known = graph(entry(), dense, *measured(), reshaped([SIZE, 16], of="dense"), output="reshape")
    assert known["reshape"]["inbound_nodes"][0][3] == {"shape": [-1, 16]}
    open_ = graph(entry(), dense, *measured(), reshaped([SIZE, -1], of="dense"), output="reshape")
    assert open_["reshape"]["inbound_nodes"][0][3] == {"shape": [SIZE, -1]}


def test_a_shape_that_is_used_elsewhere_stays() -> None:
    other = layer("add", ["reshape", 0, 0, {"y": ["size0", 0, 0]}], "math.add")
    found = graph(entry(), *measured(), reshaped([SIZE, -1]), other, output="add")
    assert list(found) == ["x", "shape0", "size0", "reshape", "add"]


@pytest.mark.parametrize(
    ("function", "arguments", "given", "expected"),
    [
        ("math.add", {}, "float32", "float32"),
        ("math.add", {}, "uint8", "uint8"),
        ("cast", {"dtype": "float16"}, "uint8", "float16"),
        ("math.greater", {"y": 1.0}, "float32", "bool"),
        ("math.argmax", {}, "float32", "int64"),
        ("math.argmax", {"output_type": "int32"}, "float32", "int32"),
        ("one_hot", {"depth": 3}, "int32", "float32"),
        ("image.resize", {"size": [2, 2]}, "uint8", "float32"),
        ("image.resize", {"size": [2, 2], "method": "nearest"}, "uint8", "uint8"),
        ("linalg.strange", {}, "float32", None),
    ],
)
def test_what_a_function_gives(function: str, arguments: Any, given: str, expected: str | None) -> None:
    first = layer("first", ["x", 0, 0, arguments], function)
    found = graph(entry(given), first, layer("second", ["first", 0, 0, {}], "math.exp"), output="second")
    assert found["first"][operands.KEY] == given
    assert found["second"].get(operands.KEY) == expected


def test_what_a_layer_gives() -> None:
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    dense = layer("dense", ["x", 0, 0, {}], dtype=policy)
    found = graph(entry(), dense, layer("exp", ["dense", 0, 0, {}], "math.exp"), output="exp")
    assert found["exp"][operands.KEY] == "float16"
    found = graph(entry("uint8"), dense, layer("exp", ["dense", 0, 0, {}], "math.exp"), output="exp")
    assert operands.KEY not in found["exp"]  # many layers leave whole numbers as they are


def test_the_floating_one_among_operands() -> None:
    truth = layer("truth", ["x", 0, 0, {"y": 0.0}], "math.greater")
    where = layer("where", ["truth", 0, 0, {"x": ["x", 0, 0], "y": [1.0, 2.0]}], "where")
    assert graph(entry(), truth, where, output="where")["where"][operands.KEY] == "float32"


def test_layers_of_other_forms() -> None:
    """A Sequential with a list for a config, a node in Keras 3's form, a node that is damaged."""
    old = {"class_name": "Sequential", "name": "old", "config": [], "inbound_nodes": [[["x", 0, 0]]]}
    new = {**layer("new", None, "reshape"), "inbound_nodes": [{"args": [], "kwargs": {}}]}
    damaged = {**layer("damaged", None, "reshape"), "inbound_nodes": [["x", 0, 0, None]]}
    found = graph(entry(), old, new, damaged, output="new")
    assert (found["old"], found["new"]) == (old, new)
    assert found["damaged"] == {**damaged, operands.KEY: "float32"}
