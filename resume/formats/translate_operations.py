"""TensorFlow's functions in a graph of Keras 2 (`x * 2`, `tf.reshape(x, ...)`) as operations of Keras 3.

Keras 2 wraps each call in a layer TFOpLambda or SlicingOpLambda (tf_keras.src.layers.core.tf_op_layer), whose config
names the function; the arguments stand in the node. Keras 3 keeps what its operation's constructor takes in the config,
and the tensors in the node. resume.formats.operations has the table; what is not in it is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from resume.formats import operands, translate_layers
from resume.formats.operations import (
    FLOATS,
    GETITEM,
    LAYERS,
    NUMPY,
    OPERATIONS,
    Operation,
    UntranslatableError,
    is_numbers,
)
from resume.formats.translate_layers import Context

KINDS = operands.KINDS

Call = dict[str, Any]


def placeholder(item: Mapping[str, Any]) -> dict[str, Any]:
    """What stands for the layer until its calls are known."""
    return {"class_name": str(item.get("class_name"))}


def operation(
    item: Mapping[str, Any], calls: Sequence[Call], context: Context
) -> tuple[dict[str, Any], list[Call]]:
    """(serialised operation, its calls). An operation has one set of settings, so calls that differ are refused."""
    name = str((item.get("config") or {}).get("name"))
    where = f"{item.get('class_name')} {name!r}"
    try:
        made = [_translated(item, call) for call in calls or [{"args": [], "kwargs": {}}]]
        if any(one[:2] != made[0][:2] for one in made):
            raise UntranslatableError("is called with different settings")
    except UntranslatableError as why:
        context.refuse(where, str(why))
        return _serialised(Operation(NUMPY, "Absolute"), {"name": name}), [
            {"args": [], "kwargs": {}} for _ in calls
        ]
    known, settings, _ = made[0]
    return _serialised(known, {"name": name, **settings}), [call for *_, call in made[: len(calls)]]


def _serialised(known: Operation, config: Mapping[str, Any]) -> dict[str, Any]:
    if known.module == LAYERS:
        return translate_layers.serialised(known.module, known.name, config)
    return {
        "module": known.module,
        "class_name": known.name,
        "config": dict(config),
        "registered_name": known.name,
    }


# ---- one call ----


def _translated(item: Mapping[str, Any], call: Call) -> tuple[Operation, dict[str, Any], Call]:
    function = operands.function(item)
    if item.get("class_name") == "SlicingOpLambda" and function == GETITEM:
        return Operation(NUMPY, "GetItem"), {}, _sliced(call)
    found = OPERATIONS.get(function)
    if found is None:
        raise UntranslatableError(
            f"tf.{function} in the graph has no translation; wrap it in a layer of your own"
        )
    given = {key: value for key, value in call["kwargs"].items() if key != "name"}
    known, given = (found, given) if isinstance(found, Operation) else found(given)
    tensors, settings = _divided(known, given)
    numbers = _numbers(item)
    _check_dtype(known, function, numbers)
    if known.module == LAYERS:  # a layer casts what it is given to its own dtype
        settings["dtype"] = numbers.dtype
    first = call["args"][0] if call["args"] else []
    if known.listed:
        listed = first if isinstance(first, list | tuple) else [first]
        return known, settings, {"args": [[_operand(part, numbers) for part in listed]], "kwargs": {}}
    known, args = _without_trap(known, [_operand(part, numbers) for part in [*call["args"], *tensors]])
    return known, settings, {"args": args, "kwargs": {}}


def _divided(known: Operation, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments as (tensors, settings). One that is neither, and is not known to change nothing, is refused."""
    names = {*known.tensors, *known.settings, *known.neutral}
    said = {key: value for key, value in given.items() if value is not None or key not in names}
    tensors = [said.pop(key) for key in known.tensors if key in said]
    settings = {ours: said.pop(theirs) for theirs, ours in known.settings.items() if theirs in said}
    left = sorted(key for key, value in said.items() if value not in known.neutral.get(key, ()))
    if left or any(map(_has_tensor, settings.values())):
        raise UntranslatableError(
            f"{', '.join(left) or 'a computed argument'} of its call has no translation"
        )
    return tensors, {**known.defaults, **settings}


def _has_tensor(item: Any) -> bool:
    if isinstance(item, Mapping):
        return item.get("class_name") == "__keras_tensor__" or any(map(_has_tensor, item.values()))
    return isinstance(item, list | tuple) and any(map(_has_tensor, item))


def _without_trap(known: Operation, args: list[Any]) -> tuple[Operation, list[Any]]:
    """x - (-array) for x + array: Keras 3 may take an array for a bias, and add it along another axis than its own.

    What has one dimension above 1 is added along the last axis or axis 1 of x, if either is as long (Keras 3.15,
    keras.src.backend.tensorflow.numpy.add). Both forms give the same bits.
    """
    arrays = [part for part in args if isinstance(part, Mapping) and part.get("class_name") == "__numpy__"]
    if known.name != "Add" or len(args) != 2 or len(arrays) != 1:
        return known, args
    value, dtype = arrays[0]["config"]["value"], arrays[0]["config"]["dtype"]
    negative = np.negative(np.asarray(value, dtype) if "int" in dtype else value).tolist()
    array = {**arrays[0], "config": {"value": negative, "dtype": dtype}}
    return Operation(NUMPY, "Subtract"), [args[0] if args[1] is arrays[0] else args[1], array]


# ---- numbers ----


@dataclass(frozen=True)
class Numbers:
    """The dtype of a call's tensors: found by operands.prepared, or supposed, as the policy says."""

    dtype: str
    supposed: bool = False


def _numbers(item: Mapping[str, Any]) -> Numbers:
    if item.get(operands.KEY):
        return Numbers(str(item[operands.KEY]))
    policy = operands.policy(item)
    return Numbers(policy, policy not in ("float32", "float64"))


def _check_dtype(known: Operation, function: str, numbers: Numbers) -> None:
    sure = known.module == LAYERS or known.only == ("float32",)
    if (known.only and numbers.dtype not in known.only) or (sure and numbers.supposed):
        raise UntranslatableError(
            f"tf.{function} of {numbers.dtype} is computed otherwise in Keras 3; cast before it"
        )


def _operand(item: Any, numbers: Numbers) -> Any:
    """A tensor, a number, or an array of numbers (`x - [0.5, 0.25]`), which TensorFlow takes in the tensors' dtype."""
    if isinstance(item, list | tuple) and _has_tensor(item):
        raise UntranslatableError("a list of tensors among its tensors has no translation; tf.stack them")
    if not isinstance(item, list | tuple) or not is_numbers(item):
        return item
    return {"class_name": "__numpy__", "config": {"value": list(item), "dtype": _dtype_of(item, numbers)}}


def _dtype_of(item: Any, numbers: Numbers) -> str:
    """Whole numbers take any dtype that they meet, in Keras 3; others must have the right one from the start."""
    try:
        found = np.asarray(item)
    except ValueError:
        raise UntranslatableError("lists of different lengths are no array: damaged") from None
    if found.dtype == bool:
        return "bool"
    if found.dtype.kind in "iu":
        least = "int32" if np.abs(found).max() < 2**31 else "int64"
        return numbers.dtype if "int" in numbers.dtype else least
    if numbers.dtype not in FLOATS:
        return "float32"
    half = ml_dtypes.bfloat16 if numbers.dtype == "bfloat16" else numbers.dtype
    if numbers.supposed and not np.array_equal(found.astype(half).astype("float64"), found, equal_nan=True):
        raise UntranslatableError(
            f"numbers that {numbers.dtype} does not hold exactly; cast what they meet before"
        )
    return numbers.dtype


# ---- slices ----


def _sliced(call: Call) -> Call:
    """A key that is no list is a list of one: Keras 3 takes no lone None, slice or ellipsis."""
    kwargs = {key: value for key, value in call["kwargs"].items() if key != "name"}
    given = kwargs.pop("slice_spec", (call["args"][1:] or [[]])[0])
    if left := [key for key, value in kwargs.items() if value is not None]:
        raise UntranslatableError(f"{', '.join(left)} of its call has no translation")
    if _has_tensor(given):
        raise UntranslatableError("a computed index has no translation")
    key = _index(given)
    return {"args": [*call["args"][:1], key if isinstance(key, list | int) else [key]], "kwargs": {}}


def _index(item: Any) -> Any:
    if isinstance(item, list | tuple):
        return [_index(inner) for inner in item]
    if isinstance(item, Mapping) and {"start", "stop", "step"} <= item.keys():
        return {"class_name": "__slice__", "config": {key: item[key] for key in ("start", "stop", "step")}}
    named = item.get("class_name") if isinstance(item, Mapping) else item
    return {"class_name": "__ellipsis__", "config": {}} if named in ("Ellipsis", "__ellipsis__") else item
