"""Whether live objects are still made of the same things: what was worked out of them holds until they are not.

To find a model's variables, to name them and to serialise its config takes ten times as long as to refer to the
variables. That nothing has changed since is seen in a fraction of that, at every snapshot.
"""

from __future__ import annotations

import operator
import sys
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume.engine import flavour

_KERAS = ("keras", "tf_keras")
_FOLLOWED = (
    "layers.Layer",
    "optimizers.Optimizer",
    "optimizers.legacy.Optimizer",
    "metrics.Metric",
    "losses.Loss",
)
# Attributes in which Keras and TensorFlow list the others once more.
_PASSED_OVER = ("_tracker", "_self_unconditional_", "_self_name_based_", "_self_saveable_")
_MANY: Any = (list, set, deque)
_FIXED: Any = (tuple, frozenset)
_LEAVES: Any = (
    bool, int, float, complex, str, bytes, type(None), type, np.ndarray, np.generic, tf.Tensor, tf.Variable,
    keras.KerasTensor,
)  # fmt: skip


class Structure:
    """Every container that `roots` are made of, and what is in it now: to be asked later whether it is the same.

    Containers are attributes of Keras's objects and of what the user derives from them, lists, dictionaries and sets,
    of any depth. Whatever else there is (numbers, variables, tensors, functions) counts by its identity.

    `apart`: kinds that are not followed; `met`: those that were come to. `foreign`: whether there is anything of the
    user's own, of whose get_config nobody knows what it reads.
    """

    def __init__(self, roots: Iterable[Any], *, apart: tuple[Any, ...] = ()) -> None:
        self.met: list[Any] = []
        self.foreign = False
        self._held: list[tuple[Collection[Any], list[Any]]] = []
        self._apart = (*apart, *flavour.kinds("callbacks.Callback"))  # a model's History, say
        self._followed = tuple(kind for path in _FOLLOWED for kind in flavour.kinds(path))
        seen: dict[int, Any] = {}
        todo = deque(roots)
        while todo:
            item = todo.popleft()
            if id(item) not in seen:
                seen[id(item)] = item
                todo.extend(self._members(item))

    def holds(self) -> bool:
        """Whether nothing was set, added, removed or replaced; by an equal one is by another one."""
        return all(len(now) == len(then) and all(map(operator.is_, now, then)) for now, then in self._held)

    def _members(self, item: Any) -> Iterable[Any]:
        if isinstance(item, _LEAVES):
            return ()
        if isinstance(item, dict):
            return [*self._hold(item.keys()), *self._hold(item.values())]
        if isinstance(item, _MANY):
            return self._hold(item)
        return item if isinstance(item, _FIXED) else self._attributes(item)

    def _attributes(self, item: Any) -> Iterable[Any]:
        if isinstance(item, self._apart):
            self.met.append(item)
            return ()
        held, home = getattr(item, "__dict__", None), type(item).__module__.split(".")[0]
        if held is None:
            return ()
        if home not in (*_KERAS, "tensorflow", "numpy") and home not in sys.stdlib_module_names:
            self.foreign = True
        if home not in _KERAS and not isinstance(item, self._followed):
            return ()
        self._hold(held.values())
        return [member for name, member in held.items() if not name.startswith(_PASSED_OVER)]

    def _hold(self, members: Collection[Any]) -> list[Any]:
        then = list(members)
        self._held.append((members, then))
        return then
