"""What two sources declare, in one form for every Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from resume import declaration
from resume.declaration import Leaf
from resume.state import OptimizerInfo, TrainState

Make = Callable[..., TrainState]


def dense(name: str, units: int = 3, **more: Any) -> dict[str, Any]:
    config = {"name": name, "trainable": True, "units": units, "activation": "relu"}
    return {"class_name": "Dense", "config": config | more.pop("config", {}), **more}


def sequential(*layers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": list(layers)}, **more}


def compared(a: dict[str, Any], b: dict[str, Any], *, same_version: bool = True) -> list[Leaf]:
    ours, theirs = ({"layers": declaration.layers(config)} for config in (a, b))
    return declaration.compare(ours, theirs, same_version=same_version)


def test_layers_by_canonical_name() -> None:
    found = declaration.layers(sequential(dense("dense_4"), dense("dense_7", 5)))
    assert found == {
        "dense": {"class": "Dense", "trainable": True, "units": 3, "activation": "relu", "inputs": []},
        "dense_1": {
            "class": "Dense",
            "trainable": True,
            "units": 5,
            "activation": "relu",
            "inputs": ["dense"],
        },
    }


def test_a_setting_a_class_and_a_layer() -> None:
    a = sequential(dense("one"), dense("two"), dense("three"))
    b = sequential(dense("one", 4), {**dense("two"), "class_name": "Mine"}, dense("four"))
    assert compared(a, b) == [
        Leaf("layers.one.units", 3, 4),
        Leaf("layers.two.class", "Dense", "Mine"),
        Leaf("layers.three", "Dense", None, whole=True),
        Leaf("layers.four", None, "Dense", whole=True),
    ]


def test_what_only_says_how_a_file_was_written() -> None:
    a = dense("one", build_config={"input_shape": [None, 2]}, module="keras.layers", registered_name=None)
    assert compared(sequential(a), sequential(dense("one"))) == []


def test_a_list_of_one_number_is_that_number() -> None:
    """Keras 2 writes a BatchNormalization's `axis: [3]`."""
    a, b, c = (sequential(dense("norm", config={"axis": axis})) for axis in ([3], 3, [1, 3]))
    assert compared(a, b) == []
    assert compared(b, c) == [Leaf("layers.norm.axis", 3, [1, 3])]


def test_nested_models() -> None:
    a, b = (sequential({**sequential(dense("inner", units)), "name": "enc"}) for units in (3, 4))
    for model in (a, b):
        model["config"]["layers"][0]["config"]["name"] = "enc"
    assert compared(a, b) == [Leaf("layers.enc/inner.units", 3, 4)]


def functional(*edges: tuple[str, list[str]], keras3: bool) -> dict[str, Any]:
    def node(inputs: list[str]) -> Any:
        if not keras3:
            return [[[name, 0, 0, {}] for name in inputs]]
        tensors = [
            {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}} for name in inputs
        ]
        return [{"args": [tensors], "kwargs": {}}]

    layers = [dense(name, inbound_nodes=node(inputs) if inputs else []) for name, inputs in edges]
    return {"class_name": "Functional", "config": {"name": "m", "layers": layers}}


def test_wiring_is_seen_across_generations() -> None:
    edges = [("a", []), ("b", ["a"]), ("c", ["a", "b"])]
    assert compared(functional(*edges, keras3=True), functional(*edges, keras3=False)) == []
    rewired = functional(*edges[:2], ("c", ["b"]), keras3=False)
    assert compared(functional(*edges, keras3=True), rewired) == [Leaf("layers.c.inputs", ["a", "b"], ["b"])]


def test_order_of_a_sequential() -> None:
    found = compared(sequential(dense("a"), dense("b")), sequential(dense("b"), dense("a")))
    assert [leaf.name for leaf in found] == ["layers.a.inputs", "layers.b.inputs"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("glorot_uniform", {"class_name": "GlorotUniform", "config": {"seed": None}}),
        ({"class_name": "DTypePolicy", "config": {"name": "float32"}}, "float32"),
        ({"class_name": "Policy", "config": {"name": "mixed_float16"}}, "mixed_float16"),
        ({"class_name": "function", "config": "relu", "module": "builtins"}, "relu"),
        ({"class_name": "__tuple__", "items": [3, 3]}, [3, 3]),
        (0.01, 0.009999999776482582),
        ("mse", "mean_squared_error"),
        ("mse", {"class_name": "MeanSquaredError", "config": {"reduction": "auto", "name": "mse"}}),
        (3, 3.0),
        ("mine>wavy", "wavy"),
    ],
)
def test_two_forms_of_one_thing(ours: Any, theirs: Any) -> None:
    a, b = (sequential(dense("one", config={"what": value})) for value in (ours, theirs))
    assert compared(a, b) == []
    assert compared(b, a) == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("glorot_uniform", {"class_name": "HeNormal", "config": {"seed": None}}),
        ({"class_name": "DTypePolicy", "config": {"name": "float32"}}, "mixed_float16"),
        (0.01, 0.0100001),
        (True, 1),
        ("mse", "mae"),
        ([3, 3], [3, 4]),
        ([3, 3], [3, 3, 3]),
        (
            {"class_name": "GlorotUniform", "config": {"seed": 1}},
            {"class_name": "GlorotUniform", "config": {"seed": 2}},
        ),
    ],
)
def test_two_things(ours: Any, theirs: Any) -> None:
    a, b = (sequential(dense("one", config={"what": value})) for value in (ours, theirs))
    assert [leaf.name.split(".")[:3] for leaf in compared(a, b)] == [["layers", "one", "what"]]


def test_a_setting_of_one_version_only() -> None:
    a, b = sequential(dense("one", config={"time_major": True})), sequential(dense("one"))
    assert compared(a, b) == [Leaf("layers.one.time_major", True, None)]
    assert compared(a, b, same_version=False) == []


def test_initializers_are_compared_within_one_version() -> None:
    a, b = (
        sequential(dense("one", config={"kernel_initializer": {"class_name": kind, "config": {}}}))
        for kind in ("VarianceScaling", "GlorotUniform")
    )
    assert compared(a, b) == [Leaf("layers.one.kernel_initializer.class", "VarianceScaling", "GlorotUniform")]
    assert compared(a, b, same_version=False) == []


def test_sequential_as_a_list_of_keras_2_0() -> None:
    old = {"class_name": "Sequential", "config": [dense("dense_1"), dense("dense_2")]}
    assert [*declaration.layers(old)] == ["dense_1", "dense_2"]


# ---- the whole declaration ----


def test_optimizer_and_its_rate(make_state: Make) -> None:
    a = make_state(7)
    b = replace(a, optimizer=OptimizerInfo("SGD", {"learning_rate": 0.5, "momentum": 0.8, "epsilon": 1e-07}))
    found = declaration.compare(declaration.declared(a), declaration.declared(b), same_version=True)
    assert found == [Leaf("optimizer.momentum", 0.9, 0.8)]  # the rate in force is an array of both


def test_a_model_whose_config_names_no_layers_declares_none(make_state: Make) -> None:
    subclassed = make_state(1, model_config={"class_name": "Mine", "config": {"width": 3}})
    assert declaration.declared(subclassed)["layers"] is None


def test_another_optimizer_is_one_leaf(make_state: Make) -> None:
    a = make_state(7)
    b = replace(a, optimizer=OptimizerInfo("Adam", {"beta_1": 0.9}))
    found = declaration.compare(declaration.declared(a), declaration.declared(b), same_version=True)
    assert found == [Leaf("optimizer.class", "SGD", "Adam")]
    found = declaration.compare(
        declaration.declared(a), declaration.declared(replace(a, optimizer=None)), same_version=True
    )
    assert found == [Leaf("optimizer", "SGD", None, whole=True)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mse", ["mean_squared_error"]),
        ([["mae"]], ["mae"]),
        (
            [[{"class_name": "MeanMetricWrapper", "config": {"name": "mae", "fn": "mean_absolute_error"}}]],
            ["mae"],
        ),
        ({"b": "mae", "a": "mse"}, ["mse", "mae"]),
        ([], None),
    ],
)
def test_losses_and_metrics_however_given(make_state: Make, ours: Any, theirs: Any) -> None:
    a, b = (make_state(1, compile_config={"loss": value, "metrics": value}) for value in (ours, theirs))
    assert declaration.compare(declaration.declared(a), declaration.declared(b), same_version=True) == []


def test_another_loss_and_more_metrics(make_state: Make) -> None:
    a = make_state(1, compile_config={"loss": "mse", "metrics": ["mae"]})
    b = make_state(1, compile_config={"loss": "mae", "metrics": ["mae", "acc"]})
    found = declaration.compare(declaration.declared(a), declaration.declared(b), same_version=True)
    assert found == [Leaf("loss", "mse", "mae"), Leaf("metrics", ["mae"], ["mae", "acc"])]


def test_shown() -> None:
    assert [declaration.shown(v) for v in (None, 0.1 + 0.2, [1, 2], {"class": "Adam", "x": 1}, [])] == [
        None, "0.3", "1, 2", "Adam", "none",
    ]  # fmt: skip
    assert declaration.shown("x" * 99) == "x" * 77 + "..."
