"""The state of any Keras callback: what its attributes hold, as plain values, and back.

A callback that offers `get_state` and `set_state` is asked. Any other is read: attributes that are plain data, arrays,
random generators, variables, metrics, or objects of the user's own made of these. What Keras sets up by itself
(writers, files, functions) is left alone; anything else that cannot be held is named.
"""

from __future__ import annotations

import enum
import functools
import io
import json
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume import plain
from resume.engine import flavour, reach
from resume.engine.handed import Remembered
from resume.errors import ContinuityError
from resume.state import digest, spec_of

# What Keras sets itself when a training begins, for the files and writers of this process.
_SET_BY_KERAS = frozenset({
    "_model", "model", "params", "_params", "csv_file", "writer", "append", "append_header", "write_graph",
    "_should_write_train_graph", "_writers", "_prev_summary_state", "_summary_module", "_log_write_dir", "_train_dir",
    "_val_dir",
})  # fmt: skip
_REBUILT = (
    types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, type,
    io.IOBase, np.ufunc,
)  # fmt: skip
_REBUILT_MODULES = (
    "tensorflow",
    "keras",
    "tf_keras",
    "tensorboard",
    "threading",
    "_thread",
    "logging",
    "csv",
    "_csv",
)
_DEPTH = 6
_REFILLED = ("variables", "member", "filled", "object")  # put back into what is there
_REMEDY = "Create it in __init__, or give the callback get_state and set_state."
_MISSED = f"No other attempt can put it back, and this run is refused after a kill. {_REMEDY}"
_in_order = json.JSONEncoder(sort_keys=True).encode  # which json.dumps makes anew each time

Snapshot = Mapping[str, Mapping[str, str]]  # callback -> attribute -> what it holds, as text
# Of each callback: as it was made, and as a training left it.
_HANDED: Remembered[tuple[Mapping[str, str], Mapping[str, str]]] = Remembered()
_NONE = _in_order(plain.encode(("plain", None)))


def names(callbacks: Mapping[str, Any]) -> list[str]:
    """The callbacks that have a state at all."""
    return [
        name
        for name, callback in callbacks.items()
        if not isinstance(callback, flavour.kinds("callbacks.ProgbarLogger"))
    ]


@dataclass(frozen=True)
class Untouched:
    """What callbacks held when they were made, and after on_train_begin: what is still that came from their arguments.

    Arguments are the configuration's. Were they restored, a checkpoint would silently overrule today's `patience`.
    """

    made: Snapshot
    begun: Snapshot = field(default_factory=dict)

    def argument(self, callback: str, attribute: str, held: Any) -> bool:
        made = self.made.get(callback, {}).get(attribute)
        begun = self.begun.get(callback, {}).get(attribute)
        return made is not None and made == begun and made == _text(held)


def snapshot(callbacks: Mapping[str, Any]) -> Snapshot:
    """Every attribute that can be held, as text that is equal for equal values."""
    return {
        name: {
            attribute: _text(held) for attribute, held in _Reader().attributes(callbacks[name], "").items()
        }
        for name in names(callbacks)
        if not _speaks(callbacks[name])
    }


def as_made(callbacks: Mapping[str, Any]) -> Snapshot:
    """Their `snapshot`; of one that this process has trained with, as it was made.

    What the training left in it is no argument; what has been set since then is one.
    """
    found = {}
    for name, now in snapshot(callbacks).items():
        made, left = _HANDED.of(callbacks[name]) or ({}, {})
        found[name] = {a: made.get(a, text) if left.get(a) == text else text for a, text in now.items()}
        _HANDED.note(callbacks[name], (found[name], {}))
    return found


def leave(callbacks: Mapping[str, Any]) -> None:
    """Note what a training that has ended leaves in them."""
    for name, now in snapshot(callbacks).items():
        made, _ = _HANDED.of(callbacks[name]) or ({}, {})
        _HANDED.note(callbacks[name], (made, now))


def states(callbacks: Mapping[str, Any], untouched: Untouched) -> dict[str, Any]:
    """State by callback name, as `plain.encode` takes it; arguments are left out."""
    found = {name: _state(callbacks[name]) for name in names(callbacks)}
    for name, state in found.items():
        if "attributes" in state:
            state["attributes"] = {
                a: held for a, held in state["attributes"].items() if not untouched.argument(name, a, held)
            }
    return found


def _text(held: Any) -> str:
    return _in_order(plain.encode(held, keep=lambda array: str(spec_of(array)) + digest(array)))


def unheld(callbacks: Mapping[str, Any]) -> list[str]:
    """`callback.attribute (type)` for what no checkpoint can hold."""
    missing: list[str] = []
    for name in names(callbacks):
        if not _speaks(callbacks[name]):
            _Reader(missing.append).attributes(callbacks[name], name)
    return missing


def late(callbacks: Mapping[str, Any], states: Mapping[str, Any], untouched: Untouched) -> list[str]:
    """A sentence for each thing that an attempt which begins from these states would miss, and be refused for."""
    return [
        f"callback {name}: {attribute} was created during the training. {_MISSED}"
        for name, state in states.items()
        for attribute, (how, _) in state.get("attributes", {}).items()
        if how in _REFILLED
        and untouched.begun.get(name, {}).get(attribute) in (None, _NONE)
        and getattr(type(callbacks[name]), attribute, None) is None
    ]


def restore(callbacks: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Put saved states back, after `on_train_begin`, which wipes many of them."""
    for name in names(callbacks):
        if name in saved:
            _restore(callbacks[name], saved[name])


def differences(callbacks: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """What differs after `restore`: callbacks that came or went, a sentence each.

    Raises ContinuityError for a callback whose state does not read back as it was saved.
    """
    today = {name: _state(callbacks[name]) for name in names(callbacks)}
    for name in today.keys() & saved.keys():
        for part in ("state", "attributes"):
            before, now = saved[name].get(part), today[name].get(part)
            if part == "attributes" and before is not None:
                before = _ours(before)
                now = {attribute: (now or {}).get(attribute) for attribute in before}
            if before is not None and _text(before) != _text(now):
                raise ContinuityError(f"callback {name}: its state reads back different from what was saved.")
    gone = [
        f"callback {n} of the checkpoint is not configured today: its state is dropped"
        for n in saved
        if n not in today
    ]
    return gone + [f"callback {name} is new: it starts fresh" for name in today if name not in saved]


def _speaks(callback: Any) -> bool:
    return callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None))


def _state(callback: Any) -> dict[str, Any]:
    held = {"class": type(callback).__name__}
    if _speaks(callback):
        return held | {"state": callback.get_state()}
    chosen = getattr(callback, "monitor_op", None) is not None
    return held | {"monitored": chosen, "attributes": _Reader().attributes(callback, "")}


def _restore(callback: Any, saved: Mapping[str, Any]) -> None:
    if "state" in saved:
        callback.set_state(saved["state"])
        return
    if saved["monitored"] and hasattr(callback, "_set_monitor_op"):
        # Chosen lazily by Keras, at a price: it flips the sign of min_delta. Let it do that first; the saved
        # min_delta, flipped once already, then overwrites it.
        callback._set_monitor_op()
    _write_attributes(callback, _ours(saved["attributes"]))


def _ours(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Without what an earlier version of this module held: TensorBoard's folders are the configuration's."""
    return {attribute: held for attribute, held in attributes.items() if attribute not in _SET_BY_KERAS}


class _Reader:
    """Reads attributes; `report` hears of each that cannot be held."""

    def __init__(self, report: Callable[[str], Any] = lambda _: None) -> None:
        self._report = report

    def attributes(self, owner: Any, where: str, depth: int = 0) -> dict[str, Any]:
        out = {}
        for attribute, item in vars(owner).items():
            if attribute in _SET_BY_KERAS:
                continue
            for held in self._item(item, f"{where}.{attribute}", depth, owner):
                out[attribute] = held
        return out

    def _item(self, item: Any, where: str, depth: int, owner: Any) -> Iterator[tuple[str, Any]]:
        """(how, what) for an item that can be held; nothing otherwise."""
        if _is_plain(item):  # as most are: nothing else is worked out for these
            yield "plain", item
            return
        variables = [] if item is getattr(owner, "_model", None) else _variables(item)
        if variables:
            yield "variables", [np.array(v.numpy()) for v in variables]
        elif isinstance(item, tf.Tensor):
            yield "tensor", np.array(item.numpy())
        elif isinstance(item, enum.Enum):
            yield "member", item.name
        elif isinstance(item, list | dict | deque) and _is_plain(bare := _bare(item)):
            yield "filled", bare  # a subclass, such as Counter: filled in place
        elif _is_rebuilt(item):
            return
        elif not isinstance(item, list | tuple | dict | set) and hasattr(item, "__dict__") and depth < _DEPTH:
            yield "object", self.attributes(item, where, depth + 1)
        else:
            self._report(f"{where.lstrip('.')} ({type(item).__name__})")


def _bare(item: Any) -> Any:
    return dict(item) if isinstance(item, dict) else list(item)


def _write_attributes(owner: Any, saved: Mapping[str, Any]) -> None:
    for attribute, (how, held) in saved.items():
        current = getattr(owner, attribute, None)
        if how == "plain":
            _put(owner, attribute, held)
        elif how == "tensor":
            setattr(owner, attribute, tf.constant(held))
        elif current is None:
            raise ContinuityError(
                f"callback {type(owner).__name__}: {attribute} was created during the training, and is not there to be "
                f"restored. {_REMEDY}"
            )
        else:
            _refill(owner, attribute, how, held)


def _refill(owner: Any, attribute: str, how: str, held: Any) -> None:
    """Put state back into an object that is there."""
    current = getattr(owner, attribute)
    if how == "variables":
        for variable, array in zip(_variables(current), held, strict=True):
            variable.assign(array)
    elif how == "member":
        setattr(owner, attribute, type(current)[held])
    elif how == "filled":
        current.clear()
        (current.update if isinstance(current, dict) else current.extend)(held)
    else:
        _write_attributes(current, held)


def _put(owner: Any, attribute: str, held: Any) -> None:
    """Lists and dictionaries are filled in place: others may hold on to them."""
    current = getattr(owner, attribute, None)
    if type(current) is list and type(held) is list:
        current[:] = held
    elif type(current) is dict and type(held) is dict:
        current.clear()
        current.update(held)
    else:
        setattr(owner, attribute, held)


def _variables(item: Any) -> list[Any]:
    """The variables that an item is, has or contains: of variables, metrics, layers, optimizers, generators, and lists.

    Empty for anything else, and for a container that holds something else beside them.
    """
    if isinstance(item, keras.Variable | tf.Variable):
        return [item]
    holders: Any = (
        *flavour.kinds("metrics.Metric"),
        *flavour.kinds("layers.Layer"),
        *reach.optimizer_kinds(),
    )
    if isinstance(item, holders):
        return list(item.variables() if callable(item.variables) else item.variables)
    if isinstance(item, keras.random.SeedGenerator | tf.random.Generator):
        return [item.state]
    if isinstance(item, list | tuple | dict) and item:
        members = [_variables(member) for member in (item.values() if isinstance(item, dict) else item)]
        return [v for member in members for v in member] if all(members) else []
    return []


def _is_plain(item: Any) -> bool:
    try:
        plain.encode(item, keep=lambda _: "")
    except plain.NotPlainError:
        return False
    return True


def _is_rebuilt(item: Any) -> bool:
    """Whether the code that made it makes it again: functions, writers, files, and containers of such."""
    if isinstance(item, dict | list | tuple):
        return all(map(_is_rebuilt, item.values() if isinstance(item, dict) else item))
    module = str(getattr(type(item), "__module__", ""))
    return isinstance(item, _REBUILT) or module.split(".")[0] in _REBUILT_MODULES
