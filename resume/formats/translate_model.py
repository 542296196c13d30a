"""Models of Keras 1 and 2 as Keras 3 describes them: the graph of layers, models inside models, the way in.

A functional model's graph is a list of calls ("nodes") a layer. Keras 2 (tf_keras.src.engine.functional) writes a call
as tensors [layer, call, tensor, arguments] in any nesting, Keras 3 (keras.src.models.functional) as {"args", "kwargs"}
with __keras_tensor__ in them. A model inside a model counts its calls from 1 in Keras 2, a Sequential too where it knew
its input; in Keras 3 only a functional one does, and only among the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resume.formats import keras2_layers, operands, translate_layers, translate_operations
from resume.formats.translate_layers import Context, serialised

_CONSTANT = "_CONSTANT_VALUE"
_LEFT_OUT = ("mask", "training", "initial_state", "constants")  # of a call, where they are None
_FUNCTIONAL = ("Functional", "Model", "Network", "Container")
_RECURRENT = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional"}
)


def layer(item: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """A serialised layer or model. What is in several models at once carries the same number in each."""
    shared = {key: item[key] for key in ("shared_object_id",) if item.get(key) is not None}
    return keras2_layers.frozen_within(_layer(item, context)) | shared


def _layer(item: Mapping[str, Any], context: Context) -> dict[str, Any]:
    config = item.get("config")
    kind = translate_layers.bare(item)
    if isinstance(config, list):  # a Sequential before Keras 2.2.3
        config = {"name": item.get("name") or "sequential", "layers": config}
    own = translate_layers.is_own(item, context)
    if own and kind == "Sequential" and isinstance(config, Mapping):
        return serialised("keras", "Sequential", _sequential(config, context))
    if isinstance(config, Mapping) and _is_functional({"config": config}):
        graph = _functional(config, context)
        if own and kind in _FUNCTIONAL:
            return serialised("keras.src.models.functional", "Functional", graph)
        return translate_layers.custom({**item, "config": {}}, context) | {"config": graph}
    if not own:
        return translate_layers.custom(item, context)
    if kind in translate_operations.KINDS:
        return translate_operations.placeholder(item)
    class_name, settings = translate_layers.settings({**item, "config": config}, context)
    return serialised("keras.layers", class_name, settings)


# ---- Sequential ----


def _sequential(config: Mapping[str, Any], context: Context) -> dict[str, Any]:
    given = list(config.get("layers") or [])
    members = [layer(item, context) for item in given]
    shape = _input_shape(given[0]) if given else None
    if members and members[0]["class_name"] != "InputLayer" and shape is not None:
        members.insert(0, _input(given[0], shape))
    kept = {key: config[key] for key in ("name", "trainable", "build_input_shape") if key in config}
    policy = translate_layers.dtype(config.get("dtype"))
    return {**kept, **({"dtype": policy} if policy is not None else {}), "layers": members}


def _input(first: Mapping[str, Any], shape: Any) -> dict[str, Any]:
    """Keras 2 before 2.4 left the input to the first layer's own arguments."""
    config = first["config"] if isinstance(first.get("config"), Mapping) else {}
    dtype = config.get("dtype")
    kind = dtype if isinstance(dtype, str) and "_" not in dtype else "float32"
    name = f"{config.get('name', 'layer')}_input"
    return serialised("keras.layers", "InputLayer", {"batch_shape": shape, "dtype": kind, "name": name})


def _input_shape(item: Mapping[str, Any]) -> Any:
    """The shape that a layer, or a model that stands in the first place, says it takes."""
    config = item.get("config")
    members = (
        config if isinstance(config, list) else config.get("layers") if isinstance(config, Mapping) else None
    )
    if isinstance(config, Mapping) and config.get("batch_input_shape") is not None:
        return config["batch_input_shape"]
    if isinstance(config, Mapping) and isinstance(config.get("batch_shape"), list | tuple):
        return config["batch_shape"]
    if not isinstance(members, list) or not members:
        return None
    entries = config.get("input_layers") if isinstance(config, Mapping) else None
    names = [ref[0] for ref in _tensors(entries)] if entries else []
    named = [m for m in members if isinstance(m.get("config"), Mapping) and m["config"].get("name") in names]
    return _input_shape(named[0] if len(named) == 1 else members[0]) if len(names) < 2 else None


# ---- functional models ----


@dataclass(frozen=True)
class Graph:
    """Layers by name, and for each what Keras 2 and Keras 3 count its first call as."""

    layers: Mapping[str, Mapping[str, Any]]
    first: Mapping[str, int]

    def tensor(self, reference: Sequence[Any]) -> dict[str, Any]:
        name, call, number = reference[:3]
        # The shape and the dtype are Keras's to find out; what stands here is replaced unread.
        history = [name, call - self.first.get(name, 0), number]
        config = {"shape": [], "dtype": "float32", "keras_history": history}
        return {"class_name": "__keras_tensor__", "config": config}

    def end(self, reference: Sequence[Any], functional: bool) -> list[Any]:
        name, call, number = reference[:3]
        return [name, call - self.first.get(name, 0) + int(functional), number]

    def is_reference(self, item: Any) -> bool:
        return _is_reference(item) and item[0] in self.layers


def _functional(config: Mapping[str, Any], context: Context) -> dict[str, Any]:
    config = operands.prepared(config)
    given = {_name(item): item for item in config["layers"]}
    graph = Graph(given, _first_calls(config))
    members = [_member(item, graph, context) for item in config["layers"]]
    kinds = {item["name"]: _is_functional(item) for item in members}
    out = {key: config[key] for key in ("name", "trainable") if config.get(key) is not None}
    out["layers"] = members
    for key in ("input_layers", "output_layers"):
        out[key] = _ends(config[key], graph, kinds)
    return out


def _is_functional(item: Mapping[str, Any]) -> bool:
    """Also a user's own class of model, if it was made from inputs and outputs."""
    config = item.get("config")
    return isinstance(config, Mapping) and {"layers", "input_layers", "output_layers"} <= config.keys()


def _name(item: Mapping[str, Any]) -> str:
    config = item.get("config")
    return str(item.get("name") or (config.get("name") if isinstance(config, Mapping) else None))


def _first_calls(config: Mapping[str, Any]) -> dict[str, int]:
    """The lowest call that anything refers to: only calls that lead to the outputs are written, counted on."""
    first: dict[str, int] = {}
    names = {_name(item) for item in config["layers"]}
    nodes = [item.get("inbound_nodes") for item in config["layers"]]
    for name, call, *_ in _tensors([*nodes, config["input_layers"], config["output_layers"]]):
        if name in names:
            first[name] = min(call, first.get(name, call))
    return first


def _tensors(item: Any) -> Iterator[Sequence[Any]]:
    """Every [layer, call, tensor] in any nesting, those in the arguments of calls included."""
    if _is_reference(item):
        yield item
        if len(item) > 3:
            yield from _tensors(item[3])
    elif isinstance(item, list | tuple):
        for inner in item:
            yield from _tensors(inner)
    elif isinstance(item, Mapping):
        for inner in item.values():
            yield from _tensors(inner)


def _is_reference(item: Any) -> bool:
    if not isinstance(item, list | tuple) or len(item) not in (3, 4) or not isinstance(item[0], str):
        return False
    numbers = item[1:3] if item[0] != _CONSTANT else item[1:2]
    return all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)


def _ends(found: Any, graph: Graph, kinds: Mapping[str, bool]) -> Any:
    """Inputs or outputs in their nesting; a list of one is that one, as Keras 2 takes it."""
    if _is_reference(found):
        return graph.end(found, kinds.get(found[0], False))
    if isinstance(found, Mapping):
        return {key: _ends(item, graph, kinds) for key, item in found.items()}
    ends = [_ends(item, graph, kinds) for item in found]
    return ends[0] if len(ends) == 1 else ends


def _member(item: Mapping[str, Any], graph: Graph, context: Context) -> dict[str, Any]:
    made, name = layer(item, context), _name(item)
    calls = [_call(item, node, graph, context) for node in item.get("inbound_nodes") or []]
    if translate_layers.bare(item) in translate_operations.KINDS and translate_layers.is_own(item, context):
        made, calls = translate_operations.operation(item, calls, context)
    return {**made, "name": name, "inbound_nodes": calls}


def _call(item: Mapping[str, Any], node: Any, graph: Graph, context: Context) -> dict[str, Any]:
    """One call of a layer. Keras 3's own form is left as it is."""
    if isinstance(node, Mapping) and {"args", "kwargs"} <= node.keys():
        return dict(node)
    leaves = [leaf for leaf in _leaves(node) if len(leaf) > 3 and leaf[3]]
    kwargs = {key: _argument(v, graph) for key, v in (leaves[0][3] if leaves else {}).items()}
    kwargs = {key: v for key, v in kwargs.items() if not (v is None and key in _LEFT_OUT)}
    given = _input_structure(node, graph)
    kind = translate_layers.renamed(translate_layers.bare(item))
    if kind in _RECURRENT and isinstance(given, list) and translate_layers.is_own(item, context):
        return _recurrent(item, given, kwargs, context)
    return {"args": [given], "kwargs": kwargs}


def _leaves(node: Any) -> Iterator[Sequence[Any]]:
    if _is_reference(node):
        yield node
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _leaves(item)
    elif isinstance(node, Mapping):
        for item in node.values():
            yield from _leaves(item)


def _input_structure(node: Any, graph: Graph) -> Any:
    """The first argument of a call; a list of one tensor is that tensor."""
    if _is_reference(node):
        return node[2] if node[0] == _CONSTANT else graph.tensor(node)
    if isinstance(node, Mapping):
        return {key: _input_structure(item, graph) for key, item in node.items()}
    found = [_input_structure(item, graph) for item in node]
    return found[0] if len(found) == 1 else found


def _argument(found: Any, graph: Graph) -> Any:
    if graph.is_reference(found):
        return graph.tensor(found)
    if isinstance(found, list | tuple):
        return [_argument(item, graph) for item in found]
    if isinstance(found, Mapping):
        return {key: _argument(item, graph) for key, item in found.items()}
    return found


def _recurrent(
    item: Mapping[str, Any], given: list[Any], kwargs: dict[str, Any], context: Context
) -> dict[str, Any]:
    """Keras 2 hands the initial state over as further inputs."""
    sequence, *state = given
    if kwargs.get("constants") or (item.get("config") or {}).get("num_constants"):
        context.refuse(f"{item['class_name']} {_name(item)!r}", "constants have no equivalent in Keras 3")
    if state and not kwargs.get("initial_state"):
        kwargs = {**kwargs, "initial_state": state}
    return {"args": [sequence], "kwargs": kwargs}
