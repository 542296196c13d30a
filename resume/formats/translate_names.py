"""Layer names that Keras 3 does not take: `conv1/conv`, as applications of Keras 2 have them, becomes `conv1_conv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from resume.formats import semantics
from resume.state import Arrays, TrainState


def without_slashes(source: TrainState) -> tuple[TrainState, tuple[str, ...]]:
    """The source with such layers renamed in its configs and its arrays, and a sentence if there are any."""
    layers = sorted(semantics.layers(source.model_config), key=lambda layer: layer.kind == "InputLayer")
    renamed = dict(_renamed([layer.name for layer in layers]))
    if not renamed:
        return source, ()
    longest = sorted(renamed, key=len, reverse=True)

    def array(name: str) -> str:
        padded = f"/{name}/"
        for old in longest:
            padded = padded.replace(f"/{old}/", f"/{renamed[old]}/")
        return padded.strip("/")

    first, *others = renamed.items()
    more = f" (and {len(others)} more like it)" if others else ""
    return _with_names(source, renamed, {name: array(name) for name in source.specs}), (
        f"layer names may have no slash in Keras 3: {first[0]} is {first[1]} now{more}",
    )


def _renamed(names: list[str]) -> Iterator[tuple[str, str]]:
    taken = {name for name in names if "/" not in name}
    for name in dict.fromkeys(name for name in names if "/" in name):
        new = name.replace("/", "_")
        while new in taken:
            new += "_"
        taken.add(new)
        yield name, new


def _with_names(source: TrainState, renamed: Mapping[str, str], arrays: Mapping[str, str]) -> TrainState:
    origin = {new: old for old, new in arrays.items()}
    specs = {new: source.specs[old] for new, old in origin.items()}
    return replace(
        source,
        arrays=Arrays(specs, read=lambda name: source.arrays[origin[name]]),
        model_config=_replaced(source.model_config, renamed),
        compile_config=_replaced(source.compile_config, renamed),
        raw_names={arrays.get(name, name): raw for name, raw in source.raw_names.items()},
        places={arrays.get(name, name): place for name, place in source.places.items()},
    )


def _replaced(found: Any, renamed: Mapping[str, str]) -> Any:
    """Everything that is exactly such a name is that layer: no setting of Keras has a slash in it."""
    if isinstance(found, Mapping):
        return {renamed.get(key, key): _replaced(item, renamed) for key, item in found.items()}
    if isinstance(found, list | tuple):
        return [_replaced(item, renamed) for item in found]
    return renamed.get(found, found) if isinstance(found, str) else found
