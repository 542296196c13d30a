"""What is asked about: layers at any depth, calls that say whether to train, losses and metrics in any nesting."""

from __future__ import annotations

from typing import Any

import pytest

from resume.formats import semantics_subject
from resume.formats.semantics_subject import Subject
from resume.state import OptimizerInfo


def layer(kind: str, name: str, /, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def test_layers_at_any_depth() -> None:
    wrapped = layer("TimeDistributed", "t", layer=layer("Sequential", "s", layers=[layer("mine>Block", "b")]))
    nameless = {"class_name": "Model", "config": {"layers": [layer("Dense", "d")]}, "name": "m"}
    found = [
        (item.kind, item.name, item.own)
        for item in semantics_subject.layers([wrapped, nameless, {"class_name": "X"}, 3])
    ]
    assert found == [
        ("TimeDistributed", "t", True),
        ("Sequential", "s", True),
        ("Block", "b", False),
        ("Model", "m", True),
        ("Dense", "d", True),
    ]


def test_calls_that_say_whether_to_train() -> None:
    def called(name: str, *nodes: Any) -> dict[str, Any]:
        return {**layer("Dropout", name), "inbound_nodes": list(nodes)}

    found = semantics_subject.calls(
        [
            called("a", [["x", 0, 0, {"training": False}]], [["x", 0, 0, {"training": True}]]),
            called("b", [["x", 0, 0, {}]], ["x", 0, 0, {"training": None}], [["x", 0, 0]]),
            called("c", [[["x", 0, 0, {"training": True}], ["y", 0, 0, {"training": True}]]]),
            called("d", {"args": [], "kwargs": {"training": True}}),
        ]
    )
    assert [(call.name, call.training) for call in found] == [
        ("a", False), ("a", True), ("c", True), ("d", True),
    ]  # fmt: skip


@pytest.mark.parametrize("config", [None, [], {}, [[], None], 3])
def test_nothing_was_given(config: Any) -> None:
    assert list(semantics_subject.given(config)) == []


def test_losses_by_output() -> None:
    wrapper = {
        "class_name": "MeanMetricWrapper",
        "config": {"fn": {"class_name": "function", "config": "mse"}},
    }
    assert list(semantics_subject.given({"a": ["mse", wrapper], "b": None})) == ["mse", wrapper]


def test_names() -> None:
    assert semantics_subject.named(["a", "b", "a"]) == "a, b"
    assert semantics_subject.named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


@pytest.mark.parametrize(
    ("version", "legacy", "standalone", "expected"),
    [("2.3.1", True, True, False), ("2.10.0", True, False, True), ("2.15.0", False, False, False)],
)
def test_kinds_of_optimizers(version: str, legacy: bool, standalone: bool, expected: bool) -> None:
    subject = Subject((), OptimizerInfo("SGD", {"momentum": 0.5}, legacy=legacy), version)
    assert (subject.is_standalone, subject.is_legacy) == (standalone, expected)
    assert subject.uses("Adam", "SGD")
    assert subject.setting("momentum") == 0.5
    assert Subject((), None, version).setting("momentum") is None
