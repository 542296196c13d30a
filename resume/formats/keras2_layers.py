"""Where Keras 2 puts a weight's name, and where Keras 3 has the same weight.

A file of Keras 2 groups its weights by top-level layer, and names each by the TensorFlow scope it was made in:
    dense_1/kernel:0                            an ordinary layer (standalone Keras counts from 1)
    dense_1/kernel_1:0, dense_1_1/kernel:0      made unique by TensorFlow's graph mode
    lstm/kernel:0, lstm/lstm_cell_3/kernel:0    recurrent layers before and since 2.4; up to 2.11 cells are numbered
    enc_a/kernel:0, under the layer `encoder`   a weight of a nested model: its nesting is not in the name
    time_distributed/kernel:0                   what TimeDistributed wraps is not in the name
    bidirectional/forward_lstm/...              the config calls the wrapped layer `lstm`
The config tells what was nested where (tf_keras.src.engine.functional, sequential and layers.rnn; measured with
2.21, names of earlier versions from their files). Before Keras 2.2.3 a Sequential's config was a bare list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resume import names
from resume.formats import layers

_RENAMED = {
    ("DepthwiseConv1D", "depthwise_kernel"): "kernel",
    ("DepthwiseConv2D", "depthwise_kernel"): "kernel",
    ("SpectralNormalization", "sn_u"): "vector_u",
    ("StringLookup", "Variable"): "idf_weights",
    ("IntegerLookup", "Variable"): "idf_weights",
    ("TextVectorization", "Variable"): "idf_weights",
}
_NOT_TRAINED = frozenset({
    "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev", "vector_u", "idf_weights",
})  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """A variable as Keras 2 describes it."""

    name: str  # with or without ":0"
    shape: tuple[int, ...]
    layer: str | None = None  # the top-level layer that it is stored under; None if the format does not say


def weight_names(weights: Sequence[Weight], *, model_config: Mapping[str, Any] | None) -> list[str]:
    """Canonical names without `model/`, unique and in the same order."""
    root, places = _placed(weights, model_config)
    config = {"class_name": root.kind, "config": {"name": root.name, "layers": _serialised(root.children)}}
    return names.Scheme.of(config).canonical(["/".join(path) for path, _ in places])


def trained(weights: Sequence[Weight], *, model_config: Mapping[str, Any] | None) -> list[bool]:
    """Which weights are trained, as far as the config and the names tell; an unknown layer's are."""
    _, places = _placed(weights, model_config)
    return [
        all(node.trainable for node in nodes) and not _is_statistic(path[-1], nodes) for path, nodes in places
    ]


def _is_statistic(variable: str, nodes: Sequence[Node]) -> bool:
    return variable in _NOT_TRAINED or bool(nodes and nodes[-1].kind == "Normalization")


def layer_names(model_config: Mapping[str, Any] | None, found: Iterable[tuple[str, str]]) -> names.Scheme:
    """The scheme for paths that begin with a layer's own name. `found`: (class, name) of layers, where no config is."""
    config = (model_config or {}).get("config")
    if model_config is None or not isinstance(config, Mapping) or "layers" not in config:
        return names.Scheme(None, names.automatic(found))
    return names.Scheme.of(as_keras3(model_config))


def as_keras3(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of Keras 2 with nameless models, and the layers inside Bidirectional, called as Keras 3 calls them."""
    found: dict[str, Any] = _as_keras3(model_config)
    return found


def _as_keras3(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_keras3(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    out = {key: _as_keras3(item) for key, item in value.items()}
    config = out.get("config")
    if "class_name" not in value or not isinstance(config, dict):
        return out
    out = frozen_within(out)
    config = out["config"]
    if isinstance(config.get("name"), str):
        config["name"] = _modern(value, config["name"])
    if value["class_name"] == "Bidirectional":
        members = [item for key in ("layer", "backward_layer") for item in _inside(config.get(key))]
        for key, node in zip(
            ("layer", "backward_layer"), _directions(tuple(map(_node, members))), strict=False
        ):
            item = members[-1] if key == "backward_layer" else members[0]
            config[key] = {**item, "config": {**item["config"], "name": node.name}}
    return out


# ---- what is not trained ----

_INSIDE = ("layers", "layer", "forward_layer", "backward_layer", "cell", "cells")


def frozen_within(item: dict[str, Any]) -> dict[str, Any]:
    """A serialised layer, with what is inside it as little trained as itself.

    In Keras 2 nothing inside a frozen model or wrapper is trained; in Keras 3 each layer speaks for itself.
    """
    config = item.get("config")
    if not isinstance(config, Mapping) or config.get("trainable") is not False:
        return item
    return {**item, "config": {**config, **{key: frozen(config[key]) for key in _INSIDE if key in config}}}


def frozen(found: Any) -> Any:
    """Serialised layers, in lists or alone, that are not trained, nor is anything inside them. Inputs are no such."""
    if isinstance(found, list | tuple):
        return [frozen(item) for item in found]
    config = found.get("config") if isinstance(found, Mapping) else None
    if isinstance(config, list):  # a Sequential before Keras 2.2.3
        return {**found, "config": frozen(config)}
    if not isinstance(config, Mapping) or found.get("class_name") == "InputLayer":
        return found
    return frozen_within({**found, "config": {**config, "trainable": False}})


# ---- the tree of layers that a config describes ----


@dataclass(frozen=True)
class Node:
    """A named layer of a config, and the layers inside it."""

    kind: str
    name: str
    children: tuple[Node, ...] = ()
    trainable: bool = True
    alias: str | None = None  # another name by which weights call it


def _node(item: Mapping[str, Any]) -> Node:
    config, kind = item.get("config"), _kind(item)
    if isinstance(config, list):  # a Sequential before Keras 2.2.3
        config = {"name": item.get("name"), "layers": config}
    config = config if isinstance(config, Mapping) else {}
    own = str(config.get("name") or item.get("name") or "")
    children = tuple(_node(child) for child in _inside(config))
    if kind == "Bidirectional":
        children = _directions(children)
    return Node(kind, _modern(item, own), children, bool(config.get("trainable", True)), own)


def _kind(item: Mapping[str, Any]) -> str:
    """Functional models were of the class Model before 2.4."""
    kind = layers.class_of(item)
    return "Functional" if kind == "Model" else kind


def _modern(item: Mapping[str, Any], name: str) -> str:
    """Automatic names that are others in Keras 3: `model_3` of functional models, `batch_normalization_v1` (1.13)."""
    base, _ = names.split_number(name)
    number, given = name[len(base) :], names.snake_case(str(item.get("class_name")))
    if base == "model" and _kind(item) == "Functional":
        return f"functional{number}"
    plain = names.snake_case(layers.class_of(item))
    return f"{plain}{number}" if base == given and given[:-3] == plain else name


def _inside(value: object) -> Iterator[Mapping[str, Any]]:
    """The serialised layers in a config: what has a class and a name."""
    if isinstance(value, list | tuple):
        for member in value:
            yield from _inside(member)
    if not isinstance(value, Mapping):
        return
    if "class_name" not in value:
        for member in value.values():
            yield from _inside(member)
    elif _is_layer(value):
        yield value


def _is_layer(item: Mapping[str, Any]) -> bool:
    config = item.get("config")
    if str(item["class_name"]).endswith("Policy"):
        return False
    return isinstance(config, list) or (isinstance(config, Mapping) and isinstance(config.get("name"), str))


def _directions(children: tuple[Node, ...]) -> tuple[Node, ...]:
    """Bidirectional names its copies of the wrapped layer; a backward layer of its own keeps its name in Keras 3."""
    if not children:
        return ()
    forward, *own = children
    base = forward.name.removeprefix("forward_")
    ahead = replace(forward, name=f"forward_{base}", alias=None)
    if own and own[0].name != base:
        return ahead, replace(own[0], alias=f"backward_{own[0].name}")
    return ahead, replace(forward, name=f"backward_{base}", alias=None)


def _serialised(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    """The tree as Keras 3 would describe it: enough of it for resume.names.Scheme."""
    return [
        {"class_name": n.kind, "config": {"name": n.name, "layers": _serialised(n.children)}} for n in nodes
    ]


# ---- from a weight to its place in the tree ----

Place = tuple[list[str], list[Node]]  # a weight's path, and the layers that lead to it


def _placed(weights: Sequence[Weight], model_config: Mapping[str, Any] | None) -> tuple[Node, list[Place]]:
    root = _node(model_config or {})
    split = [weight.name.removesuffix(":0").split("/") for weight in weights]
    if not root.children:
        split = [_without_root(parts, root) for parts in split]
        root = replace(root, children=_guessed(weights, split))
    tops = {name: node for node in root.children for name in (node.alias, node.name) if name}
    firsts: dict[str, Node] = {}
    for node in root.children:
        for name in filter(None, (node.name, node.alias)):
            firsts.setdefault(name, node)
    found = [
        _under(tops[weight.layer], parts) if weight.layer in tops else _anywhere(root, weight, parts, firsts)
        for weight, parts in zip(weights, split, strict=True)
    ]
    return root, [(path, [root, *nodes]) for path, nodes in found]


def _without_root(parts: list[str], root: Node) -> list[str]:
    """A subclassed model's weights carry the model's own name."""
    return parts[1:] if len(parts) > 2 and parts[0] in (root.name, names.snake_case(root.kind)) else parts


def _anywhere(root: Node, weight: Weight, parts: list[str], firsts: Mapping[str, Node]) -> Place:
    if len(parts) > 1 and parts[0] in firsts:  # what the search would find first, without the search
        return _under(firsts[parts[0]], parts)
    found = _search(root.children, parts)
    if found is not None:
        return found
    inside = weight.layer is not None and parts[0] != weight.layer
    return ([str(weight.layer), *parts] if inside else parts), []


def _under(node: Node, parts: list[str]) -> Place:
    """The place of a weight that belongs to a layer, or to one inside it."""
    rest = _unscoped(parts, node)
    found = _search(node.children, parts) or _search(node.children, rest)
    if found is None:
        child = _implied(node, rest)
        found = _under(child, rest) if child is not None else None
    if found is not None:
        return [node.name, *found[0]], [node, *found[1]]
    cell = layers.CELLS.get(node.kind)
    inner = [cell] if cell is not None and len(rest) <= 2 else rest[:-1]
    kind = layers.CELL_CLASSES[cell] if cell is not None else node.kind
    return [node.name, *inner, _variable(kind, rest[-1])], [node]


def _search(nodes: Sequence[Node], parts: list[str]) -> Place | None:
    """The weight's place below some layers: by the exact name of a layer at any depth, else by a unique-made one."""
    if len(parts) < 2:
        return None
    return _find(nodes, parts, exact=True) or _find(nodes, parts, exact=False)


def _find(nodes: Sequence[Node], parts: list[str], *, exact: bool) -> Place | None:
    called = [node for node in nodes if _scope(parts, node) or (not exact and _is_unique_of(parts[0], node))]
    if called:
        return _under(max(called, key=lambda node: len(node.name)), parts)
    for node in nodes:
        found = _find(node.children, parts, exact=exact)
        if found is not None:
            return [node.name, *found[0]], [node, *found[1]]
    return None


def _scope(parts: Sequence[str], node: Node) -> int:
    """How many parts at the beginning are the layer's name, which may have slashes in Keras 2."""
    for name in (node.name, node.alias):
        own = name.split("/") if name else []
        if own and len(parts) > len(own) and list(parts[: len(own)]) == own:
            return len(own)
    return 0


def _is_unique_of(part: str, node: Node) -> bool:
    return part.startswith(f"{node.name}_") and part[len(node.name) + 1 :].isdigit()


def _unscoped(parts: list[str], node: Node) -> list[str]:
    """What follows the layer's own name, where the weight's name has that."""
    for i in range(len(parts) - 1):
        own = _scope(parts[i:], node)
        if own:
            return parts[i + own :]
    return parts[1:] if len(parts) > 1 and _is_unique_of(parts[0], node) else parts


def _implied(node: Node, rest: Sequence[str]) -> Node | None:
    """The wrapped layer or cell that a weight's name leaves out."""
    if len(node.children) != 1:
        return None
    (child,) = node.children
    known = len(rest) == 1 and names.split_number(rest[0])[0] in layers.variable_names(child.kind)
    return child if known or node.kind == "TimeDistributed" else None


def _variable(kind: str, name: str) -> str:
    """As Keras 3 calls it; without the number that TensorFlow's graph mode gave a variable of a known class."""
    base, _ = names.split_number(name)
    for candidate in (name, base):
        if (kind, candidate) in _RENAMED:
            return _RENAMED[kind, candidate]
    return base if base in layers.variable_names(kind) else name


# ---- layers by name alone, where no config lists them ----


def _guessed(weights: Sequence[Weight], split: Sequence[Sequence[str]]) -> tuple[Node, ...]:
    tops: dict[str, dict[str, None]] = {}
    for weight, parts in zip(weights, split, strict=True):
        name = weight.layer or (parts[0] if len(parts) > 1 else "")
        if name:
            tops.setdefault(name, {}).update({part: None for part in parts[1:2] if len(parts) > 2})
    return tuple(_guess(name, inner) for name, inner in tops.items())


def _guess(name: str, inner: Iterable[str]) -> Node:
    """Keras's automatic names tell the class; a name that a user gave tells nothing."""
    kind = layers.class_named(name)
    wrapped = [part.removeprefix("forward_") for part in inner if part.startswith("forward_")]
    if kind != "Bidirectional" or not wrapped:
        return Node(kind, name)
    return Node(kind, name, _directions((Node(layers.class_named(wrapped[0]), wrapped[0]),)))
