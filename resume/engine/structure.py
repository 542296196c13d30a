"""Whether live objects are still made of the same things: what was worked out of them holds until they are not.

To find a model's variables, to name them and to serialise its config takes ten times as long as to refer to the
variables. That nothing has changed since is seen in a fraction of that, at every snapshot.
"""

from __future__ import annotations

import itertools
import operator
import sys
import types
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
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
# Nobody writes into these once a layer is made: their names, and what its call() takes.
_SETTLED = frozenset({
    "_tracked", "_auto_config", "call_signature_parameters", "_call_context_args", "_call_has_context_arg",
    "_build_shapes_dict",
})  # fmt: skip
# Nor into how layers are joined: another call of one makes another node.
_SETTLED_KINDS = ("src.ops.node.Node", "src.engine.node.Node", "layers.InputSpec")
# A validation's, which Keras keeps while it lasts: what it reads is not to be held any longer.
_PASSING = ("_eval_epoch_iterator", "_eval_data_handler")
# Of Keras's variables, which are most of all there is: what can be another while the variable is the same.
_OF_A_VARIABLE = (operator.attrgetter("_value"), operator.attrgetter("_trainable"))
_HOLDERS: Any = (tf.Module, types.SimpleNamespace)
_MANY: Any = (list, set, deque)
_FIXED: Any = (tuple, frozenset)
_LEAVES: Any = (
    bool, int, float, complex, str, bytes, type(None), type, np.ndarray, np.generic, tf.Tensor, tf.Variable,
    keras.KerasTensor,
)  # fmt: skip


class _Lasting(Collection[Any]):
    """What a model's attributes hold, without those that come and go."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        self._held = held

    def __iter__(self) -> Iterator[Any]:
        return (member for name, member in self._held.items() if name not in _PASSING)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, member: object) -> bool:
        return any(member is one for one in self)


class Structure:
    """Every container that `roots` are made of, and what is in it now: to be asked later whether it is the same.

    Containers are attributes of Keras's objects and of what the user derives from them, lists, dictionaries and sets,
    of any depth. Whatever else there is (numbers, variables, tensors, functions) counts by its identity.

    `apart`: kinds that are not followed; `met`: those that were come to. `foreign`: whether there is anything of the
    user's own, or that is not followed though it may hold variables: what a config or a property reads there, nobody
    knows, and that all is the same as before says little then.
    """

    def __init__(self, roots: Iterable[Any], *, apart: tuple[Any, ...] = ()) -> None:
        self.met: list[Any] = []
        self.foreign = False
        self._held: list[Collection[Any]] = []
        self._variables: list[keras.Variable] = []
        self._apart = (*apart, *flavour.kinds("callbacks.Callback"))  # a model's History, say
        self._models = flavour.kinds("Model")
        self._followed = tuple(kind for path in _FOLLOWED for kind in flavour.kinds(path))
        self._leaves = (*_LEAVES, *(kind for path in _SETTLED_KINDS for kind in flavour.kinds(path)))
        seen: dict[int, Any] = {}
        todo = deque(roots)
        while todo:
            item = todo.popleft()
            if id(item) not in seen:
                seen[id(item)] = item
                todo.extend(self._members(item))
        self._sizes, self._found = list(map(len, self._held)), list(self._now())

    def holds(self) -> bool:
        """Whether nothing was set, added, removed or replaced; by an equal one is by another one."""
        # In C throughout, and over one chain: this is asked at every snapshot of thousands of members.
        return list(map(len, self._held)) == self._sizes and all(map(operator.is_, self._now(), self._found))

    def _now(self) -> Iterator[Any]:
        attributes = (map(attribute, self._variables) for attribute in _OF_A_VARIABLE)
        return itertools.chain(itertools.chain.from_iterable(self._held), *attributes)

    def _members(self, item: Any) -> Iterable[Any]:
        if isinstance(item, self._leaves):
            return ()
        if isinstance(item, dict):
            self._held += [item.keys(), item.values()]
            return [*item.keys(), *item.values()]
        if isinstance(item, _MANY):
            self._held.append(item)
            return list(item)
        return item if isinstance(item, _FIXED) else self._attributes(item)

    def _attributes(self, item: Any) -> Iterable[Any]:
        if isinstance(item, self._apart):
            self.met.append(item)
            return ()
        followed, home = isinstance(item, self._followed), type(item).__module__.split(".")[0]
        own = home in (*_KERAS, "tensorflow", "numpy") or home in sys.stdlib_module_names
        if not own or (isinstance(item, _HOLDERS) and not followed):
            self.foreign = True
        held = getattr(item, "__dict__", None)
        if held is None or not (followed or home in _KERAS):
            return ()
        if isinstance(item, keras.Variable) and own:
            self._variables.append(item)
        else:
            self._held.append(_Lasting(held) if isinstance(item, self._models) else held.values())
        passed_over = (*_PASSED_OVER, *_PASSING)
        return [m for name, m in held.items() if name not in _SETTLED and not name.startswith(passed_over)]
