"""Object graphs written by hand: which objects are optimizers, and of what class."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume.errors import SourceError
from resume.formats import keras2, tfoptimizers
from resume.formats.bundle import Bundle, Entry
from resume.formats.graph import Graph, Node, Slot, Stored
from resume.formats.tfoptimizers import NO_CLASS, NO_SETTINGS
from resume.formats.tfslots import Owner


def stored(*nodes: Node) -> Stored:
    """With a scalar float32 for each variable."""
    keys = [node.key for node in nodes if node.key]
    return Stored(
        Graph.of_nodes(nodes), Bundle(Path("ck"), 1, {k: Entry(1, (), 0, 0, 4, 0, 0) for k in keys})
    )


def value(name: str) -> Node:
    return Node({}, name=name, key=f"key/{name}")


def legacy(counter: str, attribute: str = "optimizer") -> Stored:
    return stored(Node({attribute: 1}), Node({"iter": 2}), value(counter))


@pytest.mark.parametrize("attribute", ["optimizer", "opt", "mine"])
def test_the_only_optimizer_is_the_models(attribute: str) -> None:
    found = tfoptimizers.find(legacy("Adam/iter", attribute), model=0)
    assert (found.own, found.beside, found.nodes) == (1, {}, {1})


def test_an_optimizer_inside_another_is_no_other_one() -> None:
    wrapped = stored(
        Node({"optimizer": 1}), Node({"iter": 3, "base_optimizer": 2}), Node({"iter": 3}), value("i")
    )
    assert tfoptimizers.find(wrapped, model=0).nodes == {1}


def test_others_are_named_by_their_attributes() -> None:
    both = stored(Node({"a": 1, "optimizer": 2}), Node({"iter": 3}), Node({"iter": 3}), value("Adam/iter"))
    found = tfoptimizers.find(both, model=0)
    assert (found.own, found.beside) == (2, {"a": 1})


def test_slots_alone_make_an_optimizer() -> None:
    found = tfoptimizers.find(stored(Node({"optimizer": 1}), Node({}, (Slot("m", 0, 0),))), model=0)
    assert found.own == 1


def test_a_crowd_of_optimizers_is_refused() -> None:
    crowd = stored(Node({str(n): n for n in range(1, 200)}), *[Node({}, (Slot("m", 0, 0),))] * 199)
    with pytest.raises(SourceError, match="199 optimizers: not a checkpoint of Keras"):
        tfoptimizers.find(crowd, model=0)


@pytest.mark.parametrize(
    ("counter", "kind"),
    [
        ("Adam/iter", "Adam"),
        ("training/SGD_1/iter", "SGD"),
        ("cond_1/RMSprop/iter", "RMSprop"),
        ("adam_w_3/iteration", "AdamW"),
        ("rm_sprop/iteration", "RMSprop"),
    ],
)
def test_a_class_is_told_by_the_counters_name(counter: str, kind: str) -> None:
    graph = legacy(counter)
    held = tfoptimizers.held(graph, tfoptimizers.find(graph, model=0), [], info=None)
    assert held.info is not None
    assert held.info.class_name == kind
    assert held.info.config == {}
    assert held.notes == (NO_SETTINGS,)


def test_an_optimizer_of_tensorflow_1_inside_kerass_own() -> None:
    """`tf.train.AdamOptimizer` in a compiled model: Keras counts its steps."""
    owner = Owner(4, keras2.Owner("a/kernel", "a/kernel", (), True), member="layer-0")
    slots = (Slot("m", 4, 5), Slot("v", 4, 6))
    graph = stored(
        Node({"optimizer": 1, "layer": 4}), Node({"optimizer": 2, "global_step": 3}),
        Node({"beta1_power": 7}, slots), value("TFOptimizer/iterations"), value("a/kernel"),
        value("training/a/kernel/Adam"), value("training/a/kernel/Adam_1"), value("training/beta1_power"),
    )  # fmt: skip
    found = tfoptimizers.find(graph, model=0)
    assert found.own == 1
    assert tfoptimizers.held(graph, found, [owner], info=None).names == (
        ("optimizer/iteration", 3), ("optimizer/momentum/a/kernel", 5), ("optimizer/velocity/a/kernel", 6),
        ("optimizer/unused/beta1_power", 7),
    )  # fmt: skip


@pytest.mark.parametrize("counter", ["mine/iter", "iter", "Adamant/iter"])
def test_a_name_of_ones_own_tells_no_class(counter: str) -> None:
    graph = legacy(counter)
    held = tfoptimizers.held(graph, tfoptimizers.find(graph, model=0), [], info=None)
    assert (held.info, held.notes) == (None, (NO_CLASS,))
    assert held.names == (("optimizer/iteration", 2),)
