"""Where each variable of a live model lies in a `.keras` archive, which stores positions and no names.

Follows keras.src.saving.saving_lib, and that of tf_keras for its models: a saveable's variables are `<path>/vars/<n>`,
in the order in which its `save_own_variables` stores them; children by attribute; members of containers by class name,
counted.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable

from resume import names
from resume.engine import flavour, live, reach


def addresses(model: keras.Model) -> dict[str, Any]:
    """Address in the archive -> the model's or optimizer's variable."""
    found = dict(_walk(model, "", set()))
    optimizer = live.optimizer_of(model)
    if optimizer is not None:
        variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
        found |= {f"optimizer/vars/{i}": v for i, v in enumerate(variables)}
    return found


def _saveable(item: Any) -> bool:
    kinds = [*flavour.kinds("layers.Layer"), *flavour.kinds("Model")]
    return isinstance(item, (KerasSaveable, *kinds))


def _children(saveable: Any) -> Iterator[tuple[str, Any]]:
    """Attributes in the order in which the library visits them: the first way to a layer gives its address."""
    if flavour.of(saveable) == flavour.KERAS:
        return iter(saving_lib._walk_saveable(saveable))
    return iter(importlib.import_module("tf_keras.src.saving.saving_lib")._walk_trackable(saveable))


def _walk(saveable: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(saveable) in seen or isinstance(
        saveable, (*reach.optimizer_kinds(), *flavour.kinds("metrics.Metric"))
    ):
        return
    seen.add(id(saveable))
    yield from _own(saveable, path)
    for attribute, child in _children(saveable):
        inner = f"{path}/{attribute}" if path else attribute
        if _saveable(child):
            yield from _walk(child, inner, seen)
        elif isinstance(child, list | dict | tuple):
            yield from _container(child, inner, seen, set(), deep=flavour.of(saveable) == flavour.KERAS)


def _own(saveable: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(saveable, "save_own_variables"):
        return
    store: dict[str, Any] = {}
    lookup = getattr(saveable, "_lookup_layer", saveable)  # of TextVectorization, which stores what that has
    if hasattr(lookup, "lookup_table"):  # which stores a value, not its variable
        store = {"idf_weights": lookup.idf_weights} if hasattr(lookup, "idf_weights") else {}
    elif flavour.of(saveable) == flavour.TF_KERAS:  # which stores values, not variables
        store = {
            str(i): v for i, v in enumerate(saveable._trainable_weights + saveable._non_trainable_weights)
        }
    else:
        saveable.save_own_variables(store)
    for key, variable in store.items():
        yield f"{path}/vars/{key}" if path else f"vars/{key}", variable


def _container(
    items: Any, path: str, seen: set[int], containers: set[int], *, deep: bool
) -> Iterator[tuple[str, Any]]:
    """`deep`: containers in containers count (Keras 3), and what was met before takes its number again."""
    if id(items) in containers:
        return
    containers.add(id(items))
    used: Counter[str] = Counter()
    for item in list(items.values()) if isinstance(items, dict) else items:
        nested = isinstance(item, list | dict | tuple)
        if (nested and not deep) or not (nested or _saveable(item)) or (not deep and id(item) in seen):
            continue
        name = "container" if nested else names.snake_case(type(item).__name__)
        inner = f"{path}/{name}_{used[name]}" if used[name] else f"{path}/{name}"
        used[name] += 1
        if nested:
            yield from _container(item, inner, seen, containers, deep=deep)
        else:
            yield from _walk(item, inner, seen)
