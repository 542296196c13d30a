"""The object graph of a TensorFlow 2 checkpoint: which object holds which, and where each variable is stored.

TrackableObjectGraph (tensorflow/core/protobuf/trackable_object_graph.proto) lies in the checkpoint as a string tensor.
Node 0 is what was saved. An edge is an attribute's name, or a number in a list. A variable is a node with the attribute
VARIABLE_VALUE: `full_name` is the variable's own name, `checkpoint_key` where its value lies. Slot variables of the
older optimizers are no children: their optimizer's node says whose they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from resume.errors import SourceError
from resume.formats import wire
from resume.formats.bundle import Bundle
from resume.formats.hdf5 import damage
from resume.state import Spec

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_CONFIG = "OBJECT_CONFIG_JSON"  # of TensorFlow before 1.14
_DEPTH_LIMIT = 64  # edges between a model and what it holds

Path = tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """A slot variable: of what kind, the node of the variable that it belongs to, its own node."""

    name: str
    owner: int
    variable: int


@dataclass(frozen=True)
class Node:
    """One object. `name` and `key`, of a variable: its own name, and where its value is stored."""

    children: Mapping[str, int]
    slots: tuple[Slot, ...] = ()
    name: str = ""
    key: str | None = None
    others: tuple[str, ...] = ()  # keys of what is neither: tables, iterators

    @classmethod
    def of(cls, fields: Iterator[wire.Field]) -> Node:
        children: dict[str, int] = {}
        slots: list[Slot] = []
        held: dict[str, tuple[str, str]] = {}
        for field in fields:
            if field.tag == 1:
                numbers, texts = _parts(field)
                children[texts.get(2, "")] = numbers.get(1, 0)
            elif field.tag == 2:
                _, texts = _parts(field)
                held[texts.get(1, "")] = texts.get(2, ""), texts.get(3, "")
            elif field.tag == 3:
                numbers, texts = _parts(field)
                slots.append(Slot(texts.get(2, ""), numbers.get(1, 0), numbers.get(3, 0)))
        name, key = held.pop(_VALUE, ("", None))
        held.pop(_CONFIG, None)
        return cls(children, tuple(slots), name, key, tuple(k for _, k in held.values()))


def _parts(field: wire.Field) -> tuple[dict[int, int], dict[int, str]]:
    numbers, texts = {}, {}
    for part in field.message:
        if part.kind == wire.BYTES:
            texts[part.tag] = part.text
        else:
            numbers[part.tag] = part.signed
    return numbers, texts


@dataclass(frozen=True)
class Graph:
    """The nodes by number."""

    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, data: bytes) -> Graph:
        """Raises ValueError for an edge that leads nowhere."""
        return cls.of_nodes(Node.of(field.message) for field in wire.fields(data) if field.tag == 1)

    @classmethod
    def of_nodes(cls, held: Iterable[Node]) -> Graph:
        """Raises ValueError for an edge that leads nowhere."""
        nodes = tuple(held)
        for node in nodes:
            ends = [*node.children.values(), *(n for s in node.slots for n in (s.owner, s.variable))]
            if not all(0 <= end < len(nodes) for end in ends):
                raise ValueError("an edge leads to an object that is not there")
        if not nodes:
            raise ValueError("it is empty")
        return cls(nodes)

    def at(self, path: Path, *, start: int = 0) -> int | None:
        """The node at the end of a path of edges."""
        for edge in path:
            if edge not in self.nodes[start].children:
                return None
            start = self.nodes[start].children[edge]
        return start

    def reach(self, start: int, *, stop: Collection[int] = (), skip: Collection[str] = ()) -> dict[int, Path]:
        """Every node below `start` with its shortest path, as TensorFlow searches; nothing beyond `stop` and `skip`.

        Raises ValueError for a graph that is deeper than any model.
        """
        found: dict[int, Path] = {start: ()}
        queue = deque([start])
        while queue:
            here = queue.popleft()
            for edge, child in self.nodes[here].children.items():
                if child not in found and child not in stop and edge not in skip:
                    found[child] = (*found[here], edge)
                    queue.append(child)
            if len(found[here]) > _DEPTH_LIMIT:
                raise ValueError(f"it goes deeper than {_DEPTH_LIMIT} edges, as no model of Keras does")
        return found

    def order(self, start: int, *, stop: Collection[int] = (), skip: Collection[str] = ()) -> list[int]:
        """The nodes below `start`, each object's parts before the next object: the order of a model's layers."""
        found: dict[int, None] = {}
        stack = [start]
        while stack:
            here = stack.pop()
            if here in found:
                continue
            found[here] = None
            edges = self.nodes[here].children.items()
            stack += reversed([child for edge, child in edges if child not in stop and edge not in skip])
        return list(found)

    def members(self, node: int) -> dict[int, int]:
        """Of a list: position -> node. Members that are no objects (None) are left out of a checkpoint."""
        return {int(edge): child for edge, child in self.nodes[node].children.items() if edge.isdecimal()}


@dataclass(frozen=True)
class Stored:
    """An object graph and the values behind it."""

    graph: Graph
    bundle: Bundle

    def children(self, node: int) -> Mapping[str, int]:
        return self.graph.nodes[node].children

    def is_variable(self, node: int) -> bool:
        return self.graph.nodes[node].key is not None

    def key(self, node: int) -> str:
        return str(self.graph.nodes[node].key)

    def name(self, node: int) -> str:
        """The variable's own name, `dense/kernel`."""
        return self.graph.nodes[node].name

    def leaf(self, node: int) -> str:
        return self.name(node).rpartition("/")[2]

    def spec(self, node: int) -> Spec:
        """Raises SourceError for a variable that is no array of numbers."""
        return self.bundle.spec(self.key(node))

    def shape(self, node: int) -> tuple[int, ...]:
        return self.spec(node).shape

    def listed(self, node: int, edge: str) -> dict[int, int]:
        """Position -> node, of the list that an object holds under `edge`; empty where it holds none."""
        held = self.children(node).get(edge)
        return self.graph.members(held) if held is not None else {}


def read(bundle: Bundle) -> Stored:
    """The object graph in a checkpoint. Raises SourceError for one of TensorFlow 1, which has none."""
    if KEY not in bundle:
        raise SourceError(
            f"{bundle.prefix}: this checkpoint holds variables by name only (TensorFlow 1, Estimator): "
            "which model and optimizer they belong to is not in it.\n"
            "Load it where it was written, and save it again: tf.train.Checkpoint(model=..., optimizer=...)."
        )
    data = bundle.text(KEY)
    with damage(bundle.prefix, "its object graph"):
        return Stored(Graph.of(data), bundle)
