"""Where each variable of a live model lies in a `.keras` archive, which stores positions and no names.

Follows keras.src.saving.saving_lib: a saveable's variables are `<path>/vars/<n>`, in the order in which its
`save_own_variables` stores them; children by attribute; members of containers by class name, counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable

from resume import names
from resume.engine import live


def addresses(model: keras.Model) -> dict[str, Any]:
    """Address in the archive -> the model's or optimizer's variable."""
    found = dict(_walk(model, "", set()))
    optimizer = live.optimizer_of(model)
    if optimizer is not None:
        found |= {f"optimizer/vars/{i}": v for i, v in enumerate(optimizer.variables)}
    return found


def _walk(saveable: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(saveable) in seen or isinstance(saveable, keras.optimizers.Optimizer | keras.Metric):
        return
    seen.add(id(saveable))
    yield from _own(saveable, path)
    for attribute, child in saving_lib._walk_saveable(saveable):
        inner = f"{path}/{attribute}" if path else attribute
        if isinstance(child, KerasSaveable):
            yield from _walk(child, inner, seen)
        elif isinstance(child, list | dict | tuple):
            yield from _container(child, inner, seen, set())


def _own(saveable: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(saveable, "save_own_variables"):
        return
    store: dict[str, Any] = {}
    saveable.save_own_variables(store)
    for key, variable in store.items():
        yield f"{path}/vars/{key}" if path else f"vars/{key}", variable


def _container(items: Any, path: str, seen: set[int], containers: set[int]) -> Iterator[tuple[str, Any]]:
    if id(items) in containers:
        return
    containers.add(id(items))
    used: Counter[str] = Counter()
    for item in list(items.values()) if isinstance(items, dict) else items:
        nested = isinstance(item, list | dict | tuple)
        if not nested and not isinstance(item, KerasSaveable):
            continue
        name = "container" if nested else names.snake_case(type(item).__name__)
        inner = f"{path}/{name}_{used[name]}" if used[name] else f"{path}/{name}"
        used[name] += 1
        yield from _container(item, inner, seen, containers) if nested else _walk(item, inner, seen)
