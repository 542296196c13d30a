"""TensorFlow's functions in a graph of Keras 2 (`x * 2`, `tf.reshape(x, ...)`) as operations of Keras 3.

Keras 2 wraps each call in a layer TFOpLambda or SlicingOpLambda (tf_keras.src.layers.core.tf_op_layer), whose config
names the function; the arguments stand in the node. Keras 3 keeps what its operation's constructor takes in the config,
and the tensors in the node (keras.src.ops.numpy and its neighbours). What is not listed here is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resume.formats import translate_layers
from resume.formats.translate_layers import Context

KINDS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
_NUMPY, _NN, _CORE = "keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.core"


@dataclass(frozen=True)
class Operation:
    """One of Keras 3's: what of TensorFlow's arguments are tensors, and what become settings (theirs -> ours)."""

    module: str
    name: str
    tensors: tuple[str, ...] = ()
    settings: Mapping[str, str] | None = None
    unsupported: tuple[str, ...] = ()  # arguments that must have been left alone
    defaults: Mapping[str, Any] | None = None  # ours, where TensorFlow's differ and a call says nothing


_REDUCED = {"axis": "axis", "keepdims": "keepdims"}
_OPERATIONS = {
    **{
        function: Operation(_NUMPY, name, ("y",))
        for function, name in {
            "__operators__.add": "Add", "math.add": "Add", "math.subtract": "Subtract", "math.multiply": "Multiply",
            "math.truediv": "TrueDivide", "math.divide": "Divide", "math.pow": "Power", "math.maximum": "Maximum",
            "math.minimum": "Minimum", "math.floormod": "Mod", "math.floordiv": "FloorDivide",
            "compat.v1.floor_div": "FloorDivide",
        }.items()
    },
    **{
        function: Operation(_NUMPY, name)
        for function, name in {
            "math.exp": "Exp", "math.log": "Log", "math.sqrt": "Sqrt", "math.square": "Square", "math.abs": "Absolute",
            "math.negative": "Negative", "math.tanh": "Tanh", "math.sin": "Sin", "math.cos": "Cos", "math.sign": "Sign",
            "math.log1p": "Log1p",
        }.items()
    },
    **{
        function: Operation(_NN, name)
        for function, name in {
            "nn.relu": "Relu", "math.sigmoid": "Sigmoid", "nn.sigmoid": "Sigmoid", "nn.softplus": "Softplus",
            "math.softplus": "Softplus", "nn.selu": "Selu", "nn.elu": "Elu", "nn.relu6": "Relu6",
        }.items()
    },
    **{
        f"math.reduce_{name.lower()}": Operation(_NUMPY, name, settings=_REDUCED)
        for name in ("Mean", "Sum", "Max", "Min")
    },
    "nn.softmax": Operation(_NN, "Softmax", settings={"axis": "axis"}),
    "nn.gelu": Operation(
        _NN, "Gelu", settings={"approximate": "approximate"}, defaults={"approximate": False}),
    "linalg.matmul": Operation(_NUMPY, "Matmul", ("b",), unsupported=(
        "transpose_a", "transpose_b", "adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse")),
    "reshape": Operation(_NUMPY, "Reshape", settings={"shape": "newshape"}),
    **{
        f"{prefix}transpose": Operation(_NUMPY, "Transpose", settings={"perm": "axes"}, unsupported=("conjugate",))
        for prefix in ("", "compat.v1.")
    },
    "expand_dims": Operation(_NUMPY, "ExpandDims", settings={"axis": "axis"}),
    "squeeze": Operation(_NUMPY, "Squeeze", settings={"axis": "axis"}),
    "compat.v1.squeeze": Operation(
        _NUMPY, "Squeeze", settings={"axis": "axis"}, unsupported=("squeeze_dims",)),
    "concat": Operation(_NUMPY, "Concatenate", settings={"axis": "axis"}),
    "stack": Operation(_NUMPY, "Stack", settings={"axis": "axis"}),
    "cast": Operation(_CORE, "Cast", settings={"dtype": "dtype"}),
    "clip_by_value": Operation(_NUMPY, "Clip", settings={"clip_value_min": "x_min", "clip_value_max": "x_max"}),
}  # fmt: skip

Call = dict[str, Any]


def placeholder(item: Mapping[str, Any]) -> dict[str, Any]:
    """What stands for the layer until its calls are known."""
    return {"class_name": str(item.get("class_name"))}


def operation(
    item: Mapping[str, Any], calls: Sequence[Call], context: Context
) -> tuple[dict[str, Any], list[Call]]:
    """(serialised operation, its calls). An operation has one set of settings, so calls that differ are refused."""
    name = str((item.get("config") or {}).get("name"))
    function = str((item.get("config") or {}).get("function", item.get("class_name")))
    if item.get("class_name") == "SlicingOpLambda" and function == "__operators__.getitem":
        made = [_sliced(call) for call in calls]
        return _serialised(_NUMPY, "GetItem", {"name": name}), made
    known = _OPERATIONS.get(function)
    where = f"{item.get('class_name')} {name!r}"
    if known is None:
        context.refuse(
            where, f"tf.{function} in the graph has no translation; wrap it in a layer of your own"
        )
        return _serialised(_NUMPY, "Absolute", {"name": name}), [{"args": [], "kwargs": {}} for _ in calls]
    parts = [_split(call, known, where, context) for call in calls]
    dtype = _compute_dtype(item)
    if any(settings != parts[0][1] for _, settings in parts):
        context.refuse(where, "is called with different settings")
    config = {"name": name, **(parts[0][1] if parts else {})}
    made = [{**call, "args": [_constant(part, dtype) for part in call["args"]]} for call, _ in parts]
    return _serialised(known.module, known.name, config), made


def _serialised(module: str, class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": dict(config), "registered_name": class_name}


def _split(call: Call, known: Operation, where: str, context: Context) -> tuple[Call, dict[str, Any]]:
    kwargs = {k: v for k, v in call["kwargs"].items() if k != "name" and v is not None}
    args = [*call["args"], *(kwargs.pop(key) for key in known.tensors if key in kwargs)]
    settings = {
        ours: kwargs.pop(theirs) for theirs, ours in (known.settings or {}).items() if theirs in kwargs
    }
    settings = {**(known.defaults or {}), **settings}
    left = sorted(key for key, item in kwargs.items() if item or key not in known.unsupported)
    if left or any(_has_tensor(item) for item in settings.values()):
        context.refuse(where, f"{', '.join(left) or 'a computed argument'} of its call has no translation")
    return {"args": args, "kwargs": {}}, settings


def _compute_dtype(item: Mapping[str, Any]) -> str:
    found = translate_layers.dtype((item.get("config") or {}).get("dtype"))
    name = found["config"]["name"] if isinstance(found, Mapping) else found
    return str(name or "float32").removeprefix("mixed_")


def _constant(item: Any, dtype: str) -> Any:
    """An array of numbers among tensors (`x - [0.5, 0.25]`), which TensorFlow takes in the tensors' dtype."""
    if not isinstance(item, list | tuple):
        return item
    if item and all(_is_numbers(part) for part in item):
        return {"class_name": "__numpy__", "config": {"value": list(item), "dtype": dtype}}
    return [_constant(part, dtype) for part in item]


def _is_numbers(item: Any) -> bool:
    if isinstance(item, list | tuple):
        return bool(item) and all(map(_is_numbers, item))
    return isinstance(item, int | float) and not isinstance(item, bool)


def _has_tensor(item: Any) -> bool:
    if isinstance(item, Mapping):
        return item.get("class_name") == "__keras_tensor__" or any(map(_has_tensor, item.values()))
    return isinstance(item, list | tuple) and any(map(_has_tensor, item))


def _sliced(call: Call) -> Call:
    given = call["kwargs"].get("slice_spec", (call["args"][1:] or [[]])[0])
    return {"args": [call["args"][0], _index(given)], "kwargs": {}}


def _index(item: Any) -> Any:
    if isinstance(item, list | tuple):
        return [_index(inner) for inner in item]
    if isinstance(item, Mapping) and {"start", "stop", "step"} <= item.keys():
        return {"class_name": "__slice__", "config": {key: item[key] for key in ("start", "stop", "step")}}
    named = item.get("class_name") if isinstance(item, Mapping) else item
    return {"class_name": "__ellipsis__", "config": {}} if named in ("Ellipsis", "__ellipsis__") else item
