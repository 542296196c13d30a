"""Plain Python values to strict JSON and back, every bit kept; arrays are set aside by name.

JSON has no tuple, no NaN and no bytes, and its objects have only string keys: each such value is written as an object
with one key that begins with `$`. So are long lists of numbers of one kind, as one array. Nothing here imports or calls
what a file names.
"""

from __future__ import annotations

import base64
import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from resume.state import STORABLE

# Sets an array aside and returns the name under which it is found again; finds it.
Keep = Callable[[np.ndarray[Any, Any]], str]
Find = Callable[[str], np.ndarray[Any, Any]]

_LONG = 1000  # members; shorter lists stay readable
_NUMBERS: dict[type, type] = {float: np.float64, int: np.int64}


class NotPlainError(TypeError):
    """A value that no checkpoint can hold; the argument is its type's name."""


def _no_arrays(_: np.ndarray[Any, Any]) -> str:
    raise NotPlainError("ndarray")


def _storable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array, unless it is of text, objects or another dtype that safetensors lacks."""
    if array.dtype.name not in STORABLE:
        raise NotPlainError(f"ndarray of {array.dtype}")
    return array


def encode(value: Any, *, keep: Keep = _no_arrays) -> Any:
    """The value as strict JSON can hold it. Raises NotPlainError for what is not plain data."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if type(value) is list:
        return _encode_list(value, keep)
    if isinstance(value, np.ndarray):
        return {"$array": keep(_storable(value))}
    if isinstance(value, np.generic):
        return {"$scalar": keep(_storable(np.asarray(value)))}
    if isinstance(value, Mapping) and type(value).__name__ in ("dict", "OrderedDict", "mappingproxy"):
        return _encode_dict(value, keep)
    return _encode_tagged(value, keep)


def bare(value: Any) -> Any:
    """The value with NumPy's numbers, arrays and tensors as numbers and lists; what is not plain at all, as text."""
    if isinstance(value, Mapping):
        return {key: bare(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [bare(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "numpy"):
        found = np.asarray(value).tolist()
        return str(value) if found is value else bare(found)
    try:
        encode(value)
    except NotPlainError:
        return str(value)
    return value


def _encode_list(value: Sequence[Any], keep: Keep) -> Any:
    if len(value) >= _LONG and keep is not _no_arrays and (found := _as_array(value)) is not None:
        kind, array = found
        return {"$list": [kind, keep(array)]}
    return [encode(item, keep=keep) for item in value]


def _as_array(value: Sequence[Any]) -> tuple[str, np.ndarray[Any, Any]] | None:
    """What callbacks collect at each batch is of one kind: by itself each number would take a microsecond."""
    kind, *others = set(map(type, value))
    if others or not (kind in _NUMBERS or _is_scalar(kind)):
        return None
    try:
        array: np.ndarray[Any, Any] = np.fromiter(value, _NUMBERS.get(kind, kind), count=len(value))
    except OverflowError:  # of an int that has more than 64 bits
        return None
    return (kind.__name__ if kind in _NUMBERS else "scalar"), array


def _is_scalar(kind: type) -> bool:
    return issubclass(kind, np.generic) and np.dtype(kind).name in STORABLE


def _encode_dict(value: Mapping[Any, Any], keep: Keep) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: encode(item, keep=keep) for key, item in value.items()}
    return {"$dict": [[encode(k, keep=keep), encode(v, keep=keep)] for k, v in value.items()]}


def _encode_tagged(value: Any, keep: Keep) -> Any:
    if type(value) is tuple:
        return {"$tuple": [encode(item, keep=keep) for item in value]}
    if type(value) in (set, frozenset):
        items = [encode(item, keep=keep) for item in sorted(value, key=repr)]
        return {"$" + type(value).__name__: items}
    if type(value) is deque:
        return {"$deque": [_encode_list(value, keep), value.maxlen]}
    if type(value) is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if type(value) is complex:
        return {"$complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, PurePath):
        return {"$path": str(value)}
    if type(value) is random.Random:
        return {"$random": encode(value.getstate(), keep=keep)}
    if isinstance(value, np.random.Generator):
        return {"$generator": encode(value.bit_generator.state, keep=keep)}
    if isinstance(value, np.random.RandomState):
        return {"$random_state": encode(value.get_state(legacy=True), keep=keep)}
    raise NotPlainError(type(value).__name__)


def _no_names(name: str) -> np.ndarray[Any, Any]:
    raise KeyError(name)


def decode(value: Any, *, find: Find = _no_names) -> Any:
    """The inverse of `encode`. Raises ValueError for a tag that is not known."""
    if isinstance(value, list):
        return [decode(item, find=find) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, body), *_ = value.items()
        if key.startswith("$"):
            return _decode_tagged(key, body, find)
    return {key: decode(item, find=find) for key, item in value.items()}


def _decode_tagged(tag: str, body: Any, find: Find) -> Any:
    decoders: dict[str, Callable[[Any], Any]] = {
        "$float": float,
        "$array": find,
        "$scalar": lambda b: find(b)[()],
        "$list": lambda b: [*find(b[1])] if b[0] == "scalar" else find(b[1]).tolist(),
        "$dict": lambda b: {decode(k, find=find): decode(v, find=find) for k, v in b},
        "$tuple": lambda b: tuple(decode(b, find=find)),
        "$set": lambda b: set(decode(b, find=find)),
        "$frozenset": lambda b: frozenset(decode(b, find=find)),
        "$deque": lambda b: deque(decode(b[0], find=find), maxlen=b[1]),
        "$bytes": base64.b64decode,
        "$complex": lambda b: complex(float(b[0]), float(b[1])),
        "$path": _path,
        "$random": lambda b: _random(decode(b, find=find)),
        "$generator": lambda b: _generator(decode(b, find=find)),
        "$random_state": lambda b: _random_state(decode(b, find=find)),
    }
    if tag not in decoders:
        raise ValueError(f"unknown tag {tag}")
    return decoders[tag](body)


def _path(text: str) -> PurePath:
    from pathlib import Path

    return Path(text)


def _random(state: Any) -> random.Random:
    generator = random.Random()
    generator.setstate(state)
    return generator


def _generator(state: Any) -> np.random.Generator:
    # The four bit generators of NumPy, by name: a file does not choose what is called.
    kinds = {kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937,
                                              np.random.Philox, np.random.SFC64)}  # fmt: skip
    bits = kinds[state["bit_generator"]]()
    bits.state = state
    return np.random.Generator(bits)


def _random_state(state: Any) -> np.random.RandomState:
    generator = np.random.RandomState()
    generator.set_state(state)
    return generator
