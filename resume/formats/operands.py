"""What no single call of a TensorFlow function says: the dtype of its tensors, and dimensions that a graph computes.

Keras 2 writes neither dtypes nor shapes of tensors, and `tf.reshape(x, [tf.shape(x)[0], -1])` as four layers. Keras 3
promotes dtypes where TensorFlow keeps them or refuses, and has no tf.shape in a graph. Nothing is imported or built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resume.formats import translate_layers
from resume.formats.operations import FLOATS, GETITEM, OPERATIONS

KINDS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
KEY = "operands"  # of a layer's item: the dtype of its tensors
_SHAPES = ("shape", "compat.v1.shape")
_TRUTHS = (
    *("equal", "not_equal", "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_or"),
    *("logical_not", "reduce_any", "reduce_all", "is_nan", "is_inf", "is_finite"),
)
# Functions whose result is of another dtype than their tensors: the argument that says which, and what it is without.
_RESULTS = {
    **dict.fromkeys(("math.argmax", "math.argmin"), ("output_type", "int64")),
    **dict.fromkeys((*_SHAPES, "size", "compat.v1.size"), ("out_type", "int32")),
    **dict.fromkeys((f"math.{name}" for name in _TRUTHS), ("", "bool")),
    "one_hot": ("dtype", "float32"),
}

Layers = Mapping[str, Mapping[str, Any]]


def prepared(config: Mapping[str, Any]) -> dict[str, Any]:
    """A functional model's config of Keras 2, with dtypes at its functions and without tf.shape in tf.reshape."""
    given = {_name(item): item for item in config["layers"]}
    layers = {name: _reshaped(item, given) for name, item in given.items()}
    if any(layers[name] is not given[name] for name in given):
        layers = _needed(layers, config["output_layers"])
    dtypes: dict[str, str | None] = {}
    for name, item in layers.items():
        operands = _operands(item, dtypes)
        dtypes[name] = _result(item, operands)
        if item.get("class_name") in KINDS and operands:
            layers[name] = {**item, KEY: operands}
    return {**config, "layers": list(layers.values())}


def function(item: Mapping[str, Any]) -> str:
    """What a layer calls, as TensorFlow names it."""
    return str(_config(item).get("function", item.get("class_name")))


def policy(item: Mapping[str, Any]) -> str:
    """The dtype that a layer's policy computes in."""
    found = translate_layers.dtype(_config(item).get("dtype"))
    name = found["config"]["name"] if isinstance(found, Mapping) else found
    return str(name or "float32").removeprefix("mixed_")


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("name") or _config(item).get("name"))


def _config(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """A Sequential of old has a list of layers there."""
    found = item.get("config")
    return found if isinstance(found, Mapping) else {}


# ---- references ----


def _leaves(item: Any) -> Iterator[Sequence[Any]]:
    """Every [layer, call, tensor] or [layer, call, tensor, arguments] in any nesting, those in arguments included."""
    if _is_reference(item):
        yield item
    if isinstance(item, list | tuple | Mapping):
        for inner in item.values() if isinstance(item, Mapping) else item:
            yield from _leaves(inner)


def _is_reference(item: Any) -> bool:
    return (
        isinstance(item, list | tuple)
        and len(item) in (3, 4)
        and isinstance(item[0], str)
        and type(item[1]) is int
    )


def _only_node(item: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
    """(tensor, arguments) of a layer that is called once, with one tensor first."""
    nodes = item.get("inbound_nodes")
    found = nodes[0] if isinstance(nodes, list) and len(nodes) == 1 else None
    if not isinstance(found, list | tuple) or not _is_reference(found) or len(found) != 4:
        return None
    return tuple(found[:3]), found[3] if isinstance(found[3], Mapping) else {}


# ---- tf.shape in tf.reshape ----


def _reshaped(item: Mapping[str, Any], layers: Layers) -> Mapping[str, Any]:
    """tf.reshape with computed dimensions: None for the batch of its own tensor, -1 for one more that is not known."""
    node = _only_node(item)
    shape = node[1].get("shape") if node is not None and function(item) == "reshape" else None
    if node is None or not isinstance(shape, list | tuple) or not any(map(_is_reference, shape)):
        return item
    own = _is_reference(shape[0]) and _batch_of(shape[0], layers) == node[0]
    unknown = [part for part in shape[int(own) :] if type(part) is not int or part < 0]
    if len(unknown) > 1 or not all(type(part) is int or _is_reference(part) for part in shape):
        return item
    new: list[Any] = [part if type(part) is int else -1 for part in shape]
    if own and unknown:
        new[0] = None
    return {**item, "inbound_nodes": [[*node[0], {**node[1], "shape": new}]]}


def _batch_of(reference: Sequence[Any], layers: Layers) -> tuple[Any, ...] | None:
    """The tensor x, where a reference is to tf.shape(x)[0]."""
    index = layers.get(reference[0], {})
    taken = _only_node(index)
    if taken is None or function(index) != GETITEM or taken[1].get("slice_spec") != 0:
        return None
    shape = layers.get(taken[0][0], {})
    measured = _only_node(shape)
    return measured[0] if measured is not None and function(shape) in _SHAPES else None


def _needed(layers: Layers, outputs: Any) -> dict[str, Mapping[str, Any]]:
    """Without the functions that nothing uses any more."""
    used = {leaf[0] for leaf in _leaves([[item.get("inbound_nodes") for item in layers.values()], outputs])}
    kept = {
        name: item for name, item in layers.items() if name in used or item.get("class_name") not in KINDS
    }
    return kept if len(kept) == len(layers) else _needed(kept, outputs)


# ---- dtypes ----


def _operands(item: Mapping[str, Any], dtypes: Mapping[str, str | None]) -> str | None:
    """The dtype of a call's tensors: the first floating one's, or else the first one's. None where any is unknown."""
    found = [dtypes.get(leaf[0]) for leaf in _leaves(item.get("inbound_nodes")) if leaf[0] in dtypes]
    if not found or None in found:
        return None
    return next((dtype for dtype in found if dtype in FLOATS), found[0])


def _result(item: Mapping[str, Any], operands: str | None) -> str | None:
    config = _config(item)
    if item.get("class_name") == "InputLayer":
        return str(config.get("dtype") or "float32")
    if item.get("class_name") in KINDS:
        return _result_of(function(item), item.get("inbound_nodes"), operands)
    return policy(item) if operands in FLOATS and "dtype" in config else None


def _result_of(name: str, nodes: Any, operands: str | None) -> str | None:
    said: Mapping[str, Any] = next(
        (leaf[3] for leaf in _leaves(nodes) if len(leaf) == 4 and isinstance(leaf[3], Mapping)), {}
    )
    if name in _RESULTS:
        key, usual = _RESULTS[name]
        return str(said.get(key) or usual)
    if name == "image.resize" and said.get("method") != "nearest":
        return "float32"
    known = name in OPERATIONS or name == GETITEM
    return (said.get("dtype") or operands) if known else None
