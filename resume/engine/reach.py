"""What a model leads to beside its layers' weights: optimizers in lists or in other models, variables of losses,
schedules and objects of the user's own.

Followed are attributes of layers, losses, schedules, tf.Modules and whatever class is neither Keras's nor a library's
that Keras is made of, and the members of containers. A path is made of attribute names, keys and places, joined by
dots: the same in every process that builds the model by the same code.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from resume.engine import flavour

_DEPTH = 8  # steps from the model
_MOST = 1000  # members; a longer container holds data
_FOLLOWED = ("layers.Layer", "losses.Loss", "optimizers.schedules.LearningRateSchedule")
_LEFT_OUT = ("metrics.Metric", "callbacks.Callback")  # captured otherwise
_LIBRARIES = {"keras", "tf_keras", "tensorflow", "numpy"}
# Keras's bookkeeping of what an object holds, and how many texts a lookup layer's adapt() has seen.
PASSED_OVER = ("_self_", "_tracker", "num_documents")
_SEQUENCES: Any = (list, tuple, deque)
_VARIABLES: Any = (tf.Variable, keras.Variable)
_GENERATORS: Any = (tf.random.Generator, keras.random.SeedGenerator)


def optimizer_kinds() -> tuple[Any, ...]:
    """Of tf_keras, the legacy optimizers share no class with the others."""
    return (*flavour.kinds("optimizers.Optimizer"), *flavour.kinds("optimizers.legacy.Optimizer"))


@dataclass(frozen=True)
class Reach:
    """By path: optimizers that there are beside `model.optimizer` (a GAN's, one a group of layers), and all variables
    that are come to, generators' states among them; most of these are the layers' own.
    """

    optimizers: Mapping[str, Any]
    variables: Sequence[tuple[str, Any]]


def of(model: Any) -> Reach:
    kinds, mine = optimizer_kinds(), {id(o) for o in _with_inner(getattr(model, "optimizer", None))}
    optimizers, variables = {}, []
    for path, item in _walk(model):
        if isinstance(item, _VARIABLES):
            variables.append((path, item))
        elif isinstance(item, _GENERATORS):
            variables.append((path, item.state))
        elif isinstance(item, kinds) and id(item) not in mine:
            optimizers[path] = item
    return Reach(optimizers, variables)


def _with_inner(optimizer: Any) -> Iterator[Any]:
    if optimizer is not None:
        yield optimizer
        yield from _with_inner(getattr(optimizer, "inner_optimizer", None))
        yield from getattr(optimizer, "_inner_optimizers", ())


def _walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Everything that is come to, the nearest first, and each thing once."""
    followed = tuple(kind for path in _FOLLOWED for kind in flavour.kinds(path))
    left_out = tuple(kind for path in _LEFT_OUT for kind in flavour.kinds(path))
    layer, optimizer = flavour.kinds("layers.Layer"), optimizer_kinds()
    seen: dict[int, Any] = {}
    todo: deque[tuple[tuple[str, ...], Any]] = deque([((), model)])
    while todo:
        path, item = todo.popleft()
        if id(item) in seen or isinstance(item, left_out):
            continue
        seen[id(item)] = item
        yield ".".join(path), item
        if len(path) == _DEPTH:
            continue
        if isinstance(item, optimizer):
            members: Iterable[tuple[str, Any]] = [("learning_rate", getattr(item, "_learning_rate", None))]
        else:
            members = _members(item, follow=isinstance(item, followed))
        if isinstance(item, layer):  # its own variables are found otherwise; others are what Keras counts by
            members = [(name, member) for name, member in members if not isinstance(member, _VARIABLES)]
        todo.extend(((*path, name), member) for name, member in members)


def _members(item: Any, *, follow: bool) -> Iterable[tuple[str, Any]]:
    if isinstance(item, dict):
        return [(str(key), member) for key, member in item.items()] if len(item) <= _MOST else ()
    if isinstance(item, _SEQUENCES):
        return [(str(n), member) for n, member in enumerate(item)] if len(item) <= _MOST else ()
    if not (follow or _is_own(item)):
        return ()
    held = vars(item).items()
    return [(name, member) for name, member in held if not name.startswith(PASSED_OVER)]


def _is_own(item: Any) -> bool:
    """Whether its class is the user's, or that of a library which may hold variables."""
    if isinstance(item, (type, *_VARIABLES)) or not hasattr(item, "__dict__"):
        return False
    home = type(item).__module__.partition(".")[0]
    return isinstance(item, tf.Module) or not (home in _LIBRARIES or home in sys.stdlib_module_names)
