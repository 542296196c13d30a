"""Object graphs written by hand: shapes that no Keras would write, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume.errors import SourceError
from resume.formats import graph
from resume.formats.bundle import Bundle
from resume.formats.graph import Graph, Node, Slot

FIXTURES = Path(__file__).parents[1] / "fixtures"


def part(tag: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([tag << 3 | 2, len(data)]) + data


def edge(name: str, node: int) -> bytes:
    return part(1, bytes([8, node]) + part(2, name.encode()))


def variable(name: str, key: str) -> bytes:
    return part(2, part(1, b"VARIABLE_VALUE") + part(2, name.encode()) + part(3, key.encode()))


def chain(length: int) -> Graph:
    return Graph.of_nodes(Node({"next": n + 1} if n + 1 < length else {}) for n in range(length))


def test_nodes_have_edges_values_and_slots() -> None:
    slot = part(3, b"\x08\x01" + part(2, b"m") + b"\x18\x02")
    found = Graph.of(
        part(1, edge("a", 1) + edge("opt", 3))
        + part(1, variable("dense/kernel", "a/K"))
        + part(1, variable("Adam/dense/kernel/m", "a/S"))
        + part(1, slot)
    )
    assert found.nodes[0].children == {"a": 1, "opt": 3}
    assert (found.nodes[1].name, found.nodes[1].key) == ("dense/kernel", "a/K")
    assert found.nodes[3].slots == (Slot("m", 1, 2),)
    assert found.at(("a",)) == 1
    assert found.at(("a", "b")) is None


def test_the_shortest_path_wins_and_circles_end() -> None:
    found = Graph.of_nodes([Node({"long": 1, "short": 2}), Node({"way": 2}), Node({"back": 0})])
    assert found.reach(0) == {0: (), 1: ("long",), 2: ("short",)}
    assert found.reach(0, skip={"short"}) == {0: (), 1: ("long",), 2: ("long", "way")}
    assert found.reach(0, stop={1}) == {0: (), 2: ("short",)}


def test_the_order_finishes_one_object_before_the_next() -> None:
    found = Graph.of_nodes([Node({"a": 1, "b": 2}), Node({"k": 3}), Node({}), Node({"up": 0})])
    assert found.order(0) == [0, 1, 3, 2]


def test_lists_keep_their_positions() -> None:
    found = Graph.of_nodes([Node({"0": 1, "2": 2, "append": 1}), Node({}), Node({})])
    assert found.members(0) == {0: 1, 2: 2}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (part(1, edge("a", 9)), "an object that is not there"),
        (part(1, part(3, b"\x08\x05")), "an object that is not there"),
        (part(1, part(1, b"\x12\x02\xff\xfe")), "utf-8"),
    ],
)
def test_what_is_no_graph_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph.of(data)


def test_a_bottomless_graph_is_refused() -> None:
    assert len(chain(60).reach(0)) == 60
    with pytest.raises(ValueError, match="deeper than 64 edges"):
        chain(5000).reach(0)
    assert len(chain(5000).order(0)) == 5000


def test_a_checkpoint_without_a_graph_is_refused(tmp_path: Path) -> None:
    prefix = FIXTURES / "o18_e215_mlp_adam" / "tf_checkpoint" / "ckpt"
    found = Bundle.of(prefix)
    without = Bundle(prefix, 1, {k: v for k, v in found.entries.items() if k != graph.KEY})
    with pytest.raises(SourceError, match=r"holds variables by name only \(TensorFlow 1, Estimator\)"):
        graph.read(without)
