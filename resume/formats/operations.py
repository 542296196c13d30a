"""Functions of TensorFlow, as a graph of Keras 2 names them, and the operations of Keras 3 that compute the same.

Keras 3 keeps what an operation's constructor takes in its config, and tensors in the call (keras.src.ops). The two
libraries were compared call by call (TensorFlow 2.21, tf_keras 2.21, Keras 3.15): arguments, their defaults, dtypes.
What is not listed is refused by name; so is every argument that is not listed for a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

NUMPY, NN, CORE = "keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.core"
MATH, LINALG, IMAGE = "keras.src.ops.math", "keras.src.ops.linalg", "keras.src.ops.image"
LAYERS = "keras.layers"
GETITEM = "__operators__.getitem"
FLOATS = ("float16", "bfloat16", "float32", "float64")
WIDE = (*FLOATS, "int32", "int64")  # what Keras 3 sums without widening it

Arguments = dict[str, Any]


class UntranslatableError(Exception):
    """Why a call cannot be said in Keras 3."""


@dataclass(frozen=True)
class Operation:
    """One of Keras 3's: what of TensorFlow's arguments are tensors, and what become settings (theirs -> ours)."""

    module: str
    name: str
    tensors: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # ours, where a call says nothing
    # Arguments that Keras 3 lacks, and the values that change nothing.
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    listed: bool = False  # takes a list of tensors, also of one
    only: tuple[str, ...] = ()  # dtypes of tensors for which both compute the same


Choice = Callable[[Arguments], tuple[Operation, Arguments]]


def is_numbers(item: Any) -> bool:
    """Numbers and truth values in any nesting of lists, and no tensor."""
    if isinstance(item, list | tuple):
        return bool(item) and all(map(is_numbers, item))
    return isinstance(item, int | float)


# ---- functions whose arguments decide ----


def _matmul(given: Arguments) -> tuple[Operation, Arguments]:
    """Keras 3's has no argument that transposes; an Einsum does both at once. Nothing in Keras is complex."""
    left, right = (
        bool(given.pop(f"transpose_{side}", None)) | bool(given.pop(f"adjoint_{side}", None)) for side in "ab"
    )
    neutral: dict[str, tuple[Any, ...]] = {"output_type": ()}
    neutral |= dict.fromkeys(("a_is_sparse", "b_is_sparse", "grad_a", "grad_b"), (False,))
    if not (left or right):
        return Operation(NUMPY, "Matmul", ("b",), neutral=neutral, only=FLOATS), given
    subscripts = f"...{'ji' if left else 'ij'},...{'kj' if right else 'jk'}->...ik"
    return Operation(
        NUMPY, "Einsum", ("b",), defaults={"subscripts": subscripts}, neutral=neutral, only=FLOATS
    ), given


def _pad(given: Arguments) -> tuple[Operation, Arguments]:
    mode = str(given.get("mode") or "CONSTANT").lower()
    known = Operation(
        NUMPY, "Pad", ("constant_values",), settings={"paddings": "pad_width"}, defaults={"mode": mode}
    )
    dropped = {"mode"} if mode == "constant" else {"mode", "constant_values"}
    return known, {key: item for key, item in given.items() if key not in dropped}


def _split(given: Arguments) -> tuple[Operation, Arguments]:
    """TensorFlow's sizes as the places where Keras 3 cuts; the size of the last part is what is left."""
    sizes = given.get("num_or_size_splits")
    if isinstance(sizes, list | tuple):
        if not all(isinstance(size, int) and size >= 0 for size in sizes[:-1]):
            raise UntranslatableError("a size of -1 before the last part of tf.split has no translation")
        given["num_or_size_splits"] = list(accumulate(sizes[:-1])) or 1
    settings = {"num_or_size_splits": "indices_or_sections", "axis": "axis"}
    neutral = {"num": (given.pop("num", None),)}
    return Operation(NUMPY, "Split", settings=settings, neutral=neutral), given


def _gather(given: Arguments) -> tuple[Operation, Arguments]:
    indices = given.get("indices")
    if is_numbers(indices) and isinstance(indices, list):  # of a dtype of their own
        given["indices"] = {"class_name": "__numpy__", "config": {"value": indices, "dtype": "int32"}}
    neutral = {"validate_indices": (True,), "batch_dims": (0,)}
    known = Operation(
        NUMPY, "Take", ("indices",), settings={"axis": "axis"}, defaults={"axis": 0}, neutral=neutral
    )
    return known, given


def _one_hot(given: Arguments) -> tuple[Operation, Arguments]:
    on, off = given.pop("on_value", None), given.pop("off_value", None)
    if on not in (None, 1) or off not in (None, 0) or isinstance(on, Mapping) or isinstance(off, Mapping):
        raise UntranslatableError(
            "on_value and off_value of tf.one_hot other than 1 and 0 have no translation"
        )
    dtype = "int32" if type(on) is int or type(off) is int else "float32"
    settings = {"depth": "num_classes", "axis": "axis", "dtype": "dtype"}
    return Operation(NN, "OneHot", settings=settings, defaults={"dtype": dtype}), given


def _where(given: Arguments) -> tuple[Operation, Arguments]:
    if given.get("x") is None or given.get("y") is None:
        raise UntranslatableError(
            "tf.where(condition) gives a shape that depends on values: Keras 3 has no operation for it"
        )
    return Operation(NUMPY, "Where", ("x", "y")), given


def _norm(given: Arguments) -> tuple[Operation, Arguments]:
    """Of a vector, of any order; of a matrix, the Euclidean one (Frobenius'). Keras 3 has none over more axes."""
    order, axis = given.pop("ord", None), given.get("axis")
    axes = len(axis) if isinstance(axis, list | tuple) else 1
    if axis is None or axes > 2:
        raise UntranslatableError("tf.norm over all axes has no translation; name one or two")
    if order == "euclidean" or (order == "fro" and axes == 2):
        order = None
    if order is not None and (axes == 2 or isinstance(order, str)):
        raise UntranslatableError(f"tf.norm of ord={order} over {axes} axes has no translation")
    settings = {"keep_dims": "keepdims", "axis": "axis", "keepdims": "keepdims"}
    return Operation(LINALG, "Norm", settings=settings, defaults={"ord": order}), given


def _l2_normalize(given: Arguments) -> tuple[Operation, Arguments]:
    """TensorFlow bounds the sum of squares by epsilon, Keras 3 the norm. All axes are Keras 3's axis None."""
    bound = given.pop("epsilon", None)
    if bound is not None and (not is_numbers(bound) or isinstance(bound, list) or bound < 0):
        raise UntranslatableError("a computed epsilon of tf.math.l2_normalize has no translation")
    defaults = {"axis": None, "order": 2, "epsilon": (1e-12 if bound is None else bound) ** 0.5}
    return Operation(NN, "Normalize", settings={"axis": "axis", "dim": "axis"}, defaults=defaults), given


def _bias_add(given: Arguments) -> tuple[Operation, Arguments]:
    layout = given.pop("data_format", None)
    if layout not in (None, "NHWC", "NWC", "NDHWC"):
        raise UntranslatableError(
            f"tf.nn.bias_add with data_format={layout} has no translation; add a reshaped bias"
        )
    return Operation(NUMPY, "Add", ("bias",)), given


def _resize(given: Arguments) -> tuple[Operation, Arguments]:
    """Half-pixel centres in both: Keras 3 calls the same function of TensorFlow."""
    method = given.pop("method", None) or "bilinear"
    if method not in ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "area"):
        raise UntranslatableError(f"tf.image.resize by {method} has no translation")
    defaults = {"interpolation": method, "data_format": "channels_last"}
    known = Operation(
        IMAGE,
        "Resize",
        settings={"size": "size", "antialias": "antialias"},
        defaults=defaults,
        neutral={"preserve_aspect_ratio": (False,)},
        only=() if method == "nearest" else ("float32",),
    )
    return known, given


def _slice(given: Arguments) -> tuple[Operation, Arguments]:
    begin, size = given.pop("begin", None), given.pop("size", None)
    parts = [*(begin if isinstance(begin, list) else [None]), *(size if isinstance(size, list) else [None])]
    if not all(isinstance(part, int) for part in parts) or len(begin) != len(size):
        raise UntranslatableError("a computed argument of tf.slice has no translation")
    ends = [
        (start, None if length == -1 else start + length) for start, length in zip(begin, size, strict=True)
    ]
    key = [{"class_name": "__slice__", "config": {"start": a, "stop": b, "step": None}} for a, b in ends]
    return Operation(NUMPY, "GetItem", ("key",)), {**given, "key": key}


def _reshape(given: Arguments) -> tuple[Operation, Arguments]:
    """None stands for the batch dimension of the same tensor, which Keras 3's layer keeps."""
    shape = given.get("shape")
    if not isinstance(shape, list | tuple) or None not in shape:
        return Operation(NUMPY, "Reshape", settings={"shape": "newshape"}), given
    rest = {**given, "shape": list(shape[1:])}
    if shape[0] is not None or None in rest["shape"]:
        raise UntranslatableError("a computed argument of its call has no translation")
    return Operation(LAYERS, "Reshape", settings={"shape": "target_shape"}), rest


def _add_n(given: Arguments) -> tuple[Operation, Arguments]:
    return Operation(LAYERS, "Add", listed=True), given


def _because(why: str) -> Choice:
    def refused(given: Arguments) -> tuple[Operation, Arguments]:
        raise UntranslatableError(why)

    return refused


# ---- the table ----


def _all(module: str, names: Mapping[str, str], **rest: Any) -> dict[str, Operation | Choice]:
    return {function: Operation(module, name, **rest) for function, name in names.items()}


_REDUCED = {"axis": "axis", "keepdims": "keepdims"}
_AXIS = {"axis": "axis"}
_TRANSPOSED = Operation(NUMPY, "Transpose", settings={"perm": "axes"}, neutral={"conjugate": (False,)})
_ARG = {  # the places are int32 in Keras 3, whatever is asked for
    "settings": _AXIS, "defaults": {"axis": 0}, "neutral": {"output_type": ("int32", "int64"), "dimension": ()},
}  # fmt: skip
_SCANNED = {
    "settings": _AXIS,
    "defaults": {"axis": 0},
    "neutral": {"exclusive": (False,), "reverse": (False,)},
}
_BLOCKS = {"settings": {"block_size": "block_size"}, "neutral": {"data_format": ("NHWC",)}}
_LIKE = {"settings": {"dtype": "dtype"}, "neutral": {"optimize": (True,), "layout": ()}}

OPERATIONS: dict[str, Operation | Choice] = {
    **_all(NUMPY, {
        "__operators__.add": "Add", "math.add": "Add", "math.subtract": "Subtract", "math.multiply": "Multiply",
        "math.pow": "Power", "math.maximum": "Maximum",
        "math.minimum": "Minimum", "math.floormod": "Mod", "math.floordiv": "FloorDivide",
        "compat.v1.floor_div": "FloorDivide", "math.divide_no_nan": "DivideNoNan", "math.greater": "Greater",
        "math.greater_equal": "GreaterEqual", "math.less": "Less", "math.less_equal": "LessEqual",
        "math.logical_and": "LogicalAnd", "math.logical_or": "LogicalOr",
    }, tensors=("y",)),
    **_all(NUMPY, {"math.truediv": "TrueDivide", "math.divide": "Divide"}, tensors=("y",), only=FLOATS),
    **_all(NUMPY, {"math.equal": "Equal", "math.not_equal": "NotEqual"}, tensors=("y",),
           neutral={"incompatible_shape_error": (True,)}),
    **_all(NUMPY, {
        "math.exp": "Exp", "math.log": "Log", "math.sqrt": "Sqrt", "math.square": "Square", "math.abs": "Absolute",
        "math.negative": "Negative", "math.tanh": "Tanh", "math.sin": "Sin", "math.cos": "Cos", "math.sign": "Sign",
        "math.log1p": "Log1p", "math.expm1": "Expm1", "math.tan": "Tan", "math.sinh": "Sinh", "math.cosh": "Cosh",
        "math.asin": "Arcsin", "math.acos": "Arccos", "math.atan": "Arctan", "math.rint": "Round",
        "math.round": "Round",
        "math.floor": "Floor", "math.ceil": "Ceil", "math.reciprocal": "Reciprocal", "math.logical_not": "LogicalNot",
        "math.is_nan": "Isnan", "math.is_inf": "Isinf", "math.is_finite": "Isfinite", "identity": "Copy",
    }),
    **_all(NN, {
        "nn.relu": "Relu", "math.sigmoid": "Sigmoid", "nn.sigmoid": "Sigmoid", "nn.softplus": "Softplus",
        "math.softplus": "Softplus", "nn.selu": "Selu", "nn.elu": "Elu", "nn.relu6": "Relu6",
        "nn.softsign": "Softsign", "math.log_sigmoid": "LogSigmoid",
    }),
    **_all(NN, {"nn.silu": "Silu", "nn.swish": "Silu"}, neutral={"beta": (1,)}),
    "math.atan2": Operation(NUMPY, "Arctan2", ("x",)),
    **_all(MATH, {"math.rsqrt": "Rsqrt", "math.erf": "Erf"}),
    **_all(NUMPY, {
        "math.reduce_max": "Max", "math.reduce_min": "Min",
        "math.reduce_any": "Any", "math.reduce_all": "All",
    }, settings=_REDUCED),
    **_all(NUMPY, {"math.reduce_sum": "Sum", "math.reduce_prod": "Prod"}, settings=_REDUCED, only=WIDE),
    **_all(NUMPY, {"math.reduce_mean": "Mean", "math.reduce_std": "Std"}, settings=_REDUCED, only=FLOATS),
    "math.reduce_variance": Operation(NUMPY, "Var", settings=_REDUCED, only=("float32", "float64")),
    "math.reduce_logsumexp": Operation(MATH, "Logsumexp", settings=_REDUCED),
    "nn.leaky_relu": Operation(NN, "LeakyRelu", settings={"alpha": "negative_slope"}, defaults={"negative_slope": 0.2}),
    **_all(NN, {"nn.softmax": "Softmax", "nn.log_softmax": "LogSoftmax", "compat.v1.nn.softmax": "Softmax",
                "compat.v1.nn.log_softmax": "LogSoftmax"},
           settings={"dim": "axis", "axis": "axis"}, defaults={"axis": -1}),
    "nn.gelu": Operation(NN, "Gelu", settings={"approximate": "approximate"}, defaults={"approximate": False}),
    **dict.fromkeys(("math.l2_normalize", "nn.l2_normalize", "linalg.l2_normalize"), _l2_normalize),
    "linalg.matmul": _matmul,
    "tensordot": Operation(NUMPY, "Tensordot", ("b",), settings={"axes": "axes"}, only=FLOATS),
    "nn.bias_add": _bias_add,
    "where": _where,
    "compat.v1.where": _because("tf.compat.v1.where picks rows where its condition is a vector; use tf.where"),
    **dict.fromkeys(("norm", "linalg.norm", "compat.v1.norm"), _norm),
    **_all(NUMPY, {"math.argmax": "Argmax", "math.argmin": "Argmin"}, **_ARG),
    **_all(NUMPY, {"math.cumsum": "Cumsum", "math.cumprod": "Cumprod"}, **_SCANNED),
    "math.add_n": _add_n,
    "math.top_k": Operation(MATH, "TopK", settings={"k": "k", "sorted": "sorted"}, defaults={"k": 1, "sorted": True},
                            neutral={"index_type": ("int32",)}),
    "sort": Operation(NUMPY, "Sort", settings=_AXIS, defaults={"axis": -1}, neutral={"direction": ("ASCENDING",)}),
    "reshape": _reshape,
    **dict.fromkeys(("transpose", "compat.v1.transpose"), _TRANSPOSED),
    "linalg.matrix_transpose": Operation(NUMPY, "Swapaxes", defaults={"axis1": -2, "axis2": -1},
                                         neutral={"conjugate": (False,)}),
    "expand_dims": Operation(NUMPY, "ExpandDims", settings=_AXIS),
    **_all(NUMPY, {"squeeze": "Squeeze", "compat.v1.squeeze": "Squeeze"}, settings=_AXIS,
           neutral={"squeeze_dims": ()}),
    "concat": Operation(NUMPY, "Concatenate", settings=_AXIS, listed=True),
    "stack": Operation(NUMPY, "Stack", settings=_AXIS, defaults={"axis": 0}, listed=True),
    "unstack": Operation(CORE, "Unstack", settings={"num": "num", "axis": "axis"}, defaults={"axis": 0}),
    "split": _split,
    **dict.fromkeys(("gather", "compat.v1.gather"), _gather),
    "slice": _slice,
    "one_hot": _one_hot,
    **dict.fromkeys(("pad", "compat.v1.pad"), _pad),
    "tile": Operation(NUMPY, "Tile", settings={"multiples": "repeats"}),
    "repeat": Operation(NUMPY, "Repeat", settings={"repeats": "repeats", "axis": "axis"}),
    "roll": Operation(NUMPY, "Roll", settings={"shift": "shift", "axis": "axis"}),
    "broadcast_to": Operation(NUMPY, "BroadcastTo", settings={"shape": "shape"}),
    "reverse": Operation(NUMPY, "Flip", settings=_AXIS),
    "image.flip_left_right": Operation(NUMPY, "Flip", defaults={"axis": -2}),
    "image.flip_up_down": Operation(NUMPY, "Flip", defaults={"axis": -3}),
    **_all(NUMPY, {"ones_like": "OnesLike", "zeros_like": "ZerosLike"}, **_LIKE),
    "stop_gradient": Operation(CORE, "StopGradient"),
    "cast": Operation(CORE, "Cast", settings={"dtype": "dtype"}),
    "clip_by_value": Operation(NUMPY, "Clip", settings={"clip_value_min": "x_min", "clip_value_max": "x_max"}),
    "image.resize": _resize,
    **_all(NN, {
        f"{prefix}nn.{function}": name for prefix in ("", "compat.v1.")
        for function, name in {"space_to_depth": "SpaceToDepth", "depth_to_space": "DepthToSpace"}.items()
    }, **_BLOCKS),
    # Refused, with a reason.
    **dict.fromkeys(("shape", "compat.v1.shape"), _because(
        "Keras 3 has no tf.shape in a graph; only in tf.reshape(x, [tf.shape(x)[0], ...]) it is translated")),
    **dict.fromkeys(("boolean_mask", "compat.v1.boolean_mask"), _because(
        "tf.boolean_mask gives a shape that depends on values: Keras 3 has no operation for it")),
    "einsum": _because("tf_keras wrote tf.einsum's formula without its tensors, and cannot load this model itself"),
    **{
        f"__operators__.{name}": _because(
            f"tf_keras wrote `{sign}` without what it compares with, and cannot load this model itself"
        )
        for name, sign in {"eq": "==", "ne": "!="}.items()
    },
    **{
        name: _because(f"tf.{name} does not centre pixels as Keras 3 does; tf.image.resize is translated")
        for name in ("compat.v1.image.resize_images", "compat.v1.image.resize", "compat.v1.image.resize_bilinear",
                     "compat.v1.image.resize_nearest_neighbor", "compat.v1.image.resize_bicubic")
    },
}  # fmt: skip
