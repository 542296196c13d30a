"""State that no checkpoint holds: Python attributes of the user's objects, closures, module globals, generators.

`snapshot` reads all of it as short text, by where it is; two attempts that differ there at the same step name what did
not come back. Only the user's own classes and functions are read: what Keras keeps for itself is in its variables.
"""

from __future__ import annotations

import functools
import itertools
import random
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume import plain
from resume.engine import flavour
from resume.state import digest, spec_of

_LIBRARIES = frozenset({*sys.stdlib_module_names, "keras", "tf_keras", "tensorflow", "numpy", "tensorboard", "h5py",
                        "ml_dtypes", "hydra", "omegaconf", "absl", "scipy", "pandas", "PIL"})  # fmt: skip
_OURS = ("resume.engine", "resume.commands", "resume.formats")
_DEPTH = 4
_MOST_ITEMS = 200
_MOST_BYTES = 1 << 20
_LONG = 60  # letters of a value that are shown; the rest is a digest

Snapshot = dict[str, str]


def snapshot(objects: Mapping[str, Any]) -> Snapshot:
    """What can be read of these objects, by path: `layer noise.calls` -> "12"."""
    reader = _Reader()
    return {path: text for where, item in objects.items() for path, text in reader.read(item, where, 0)}


def generators() -> dict[str, str]:
    """Digests of Python's and NumPy's global generators."""
    python = np.array(random.getstate()[1], np.uint32)
    numpy: Any = np.random.get_state(legacy=True)
    return {
        "python": digest(python)[:16],
        "numpy": digest(np.append(numpy[1], np.uint32(numpy[2])).astype(np.uint32))[:16],
    }


def is_users(item: Any) -> bool:
    """Whether the class or function was written by the user."""
    module = str(getattr(item, "__module__", None) or "builtins")
    return module.split(".")[0] not in _LIBRARIES and not module.startswith(_OURS)


class _Reader:
    def __init__(self) -> None:
        self._seen: set[int] = set()

    def read(self, item: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
        text = _text(item)
        if text is not None:
            yield where, text
        elif depth <= _DEPTH and id(item) not in self._seen:
            self._seen.add(id(item))
            yield from self._inside(item, where, depth)

    def _inside(self, item: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
        if isinstance(item, list | tuple | deque):
            pairs: Iterable[tuple[str, Any]] = ((f"[{i}]", m) for i, m in enumerate(item))
        elif isinstance(item, dict):
            pairs = ((f"[{key!r}]", member) for key, member in item.items())
        elif isinstance(item, functools.partial):
            pairs = (("", item.func), *((f".{k}", v) for k, v in item.keywords.items()))
        elif isinstance(item, types.MethodType):
            pairs = (("", item.__self__), ("", item.__func__))
        elif isinstance(item, types.GeneratorType):
            pairs = ((f".{k}", v) for k, v in _locals(item) if k.isidentifier())
        elif isinstance(item, types.FunctionType):
            pairs = _of_function(item)
        elif isinstance(item, type | types.ModuleType):
            return
        else:
            pairs = _of_object(item)
        for name, member in itertools.islice(pairs, _MOST_ITEMS):
            yield from self.read(member, name[1:] if name.startswith("\0") else where + name, depth + 1)


def _locals(generator: types.GeneratorType[Any, Any, Any]) -> list[tuple[str, Any]]:
    return list(generator.gi_frame.f_locals.items()) if generator.gi_frame else []


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if not is_users(function):
        return
    yield from _closure(function)
    yield from ((f".{name}", item) for name, item in vars(function).items())
    yield from _globals(function.__module__)


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _of_object(item: Any) -> Iterator[tuple[str, Any]]:
    """Attributes of a user's object; of a library's, only what is the user's in it (a function, an object)."""
    held = getattr(item, "__dict__", None)
    if not isinstance(held, dict):
        return
    mine = is_users(type(item))
    for name, member in list(held.items()):
        if name not in _keras_own() and (mine or _is_users_own(member)):
            yield f".{name}", member
    if mine:
        yield from (
            (f".{name}", member) for name, member in vars(type(item)).items() if _counts(name, member)
        )
        yield from _globals(type(item).__module__)


def _is_users_own(member: Any) -> bool:
    if isinstance(member, types.FunctionType | types.MethodType | functools.partial):
        return is_users(getattr(member, "func", member))
    return is_users(type(member)) and not isinstance(member, type)


def _globals(module: str) -> Iterator[tuple[str, Any]]:
    """Of a user's module; the path does not depend on how one came there."""
    for name, item in list(vars(sys.modules.get(module, types)).items()) if module in sys.modules else ():
        if _counts(name, item) or (is_users(type(item)) and not isinstance(item, type | types.FunctionType)):
            yield f"\0module {module}.{name}", item


def _counts(name: str, item: Any) -> bool:
    """Whether a class or module attribute can be state: a value, and no function, class or module."""
    holders = (int, float, list, dict, set, deque, itertools.count, random.Random, np.random.Generator)
    return not name.startswith("__") and isinstance(
        item, (*holders, np.random.RandomState, types.GeneratorType)
    )


@functools.cache
def _keras_own() -> frozenset[str]:
    """Attributes that Keras's own base classes set: their state is in variables, or made again."""
    made = [keras.Model(), keras.layers.Layer(), keras.metrics.Metric(name="drill"), keras.losses.Loss(),
            keras.callbacks.Callback(), keras.optimizers.SGD(), keras.utils.PyDataset()]  # fmt: skip
    names = {name for item in made for name in vars(item)}
    return frozenset(names | {"optimizer", "train_step", "compute_loss", "compile", "history", "model", "params",
                              "_model", "train_function", "test_function", "_metrics", "_loss", "stop_training",
                              "_compile_config", "_maybe_symbolic_build", "finalize_variable_values"})  # fmt: skip


def _text(item: Any) -> str | None:
    """A leaf as text; "" for what is known to hold no state of its own; None for what has to be looked into."""
    if isinstance(item, keras.Variable | tf.Variable | tf.random.Generator | keras.random.SeedGenerator):
        return "a variable"
    if isinstance(item, tf.Tensor):
        return str(spec_of(item.numpy())) + digest(item.numpy())[:8] if hasattr(item, "numpy") else "symbolic"
    if isinstance(item, np.ndarray) and (item.nbytes > _MOST_BYTES or item.dtype.hasobject):
        return f"{item.dtype}{list(item.shape)}"
    if isinstance(item, itertools.count):
        return repr(item)
    if isinstance(item, list | tuple | dict | set | deque) and len(item) > _MOST_ITEMS:
        return f"{len(item)} items"
    if isinstance(item, Iterator) and hasattr(item, "__length_hint__"):
        return f"{item.__length_hint__()} items left"
    if isinstance(item, flavour.kinds("Model")) and not is_users(type(item)):
        return "a model"
    return _plain(item)


def _plain(item: Any) -> str | None:
    try:
        found = str(plain.encode(item, keep=lambda array: f"{spec_of(array)} {digest(array)[:8]}"))
    except (plain.NotPlainError, RecursionError):
        return None
    if len(found) <= _LONG:
        return found
    mark = digest(np.frombuffer(found.encode(errors="replace"), np.uint8))[:8]
    return f"{type(item).__name__} {mark}"
