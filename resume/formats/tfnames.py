"""Canonical names for what an object graph reaches from a model, without `model/`, `seeds/` or `metrics/`.

A variable's own name is what an `.h5` file of the same model calls it; where the file describes the model, its nesting
is taken from there. A subclassed model's variables begin with the model's own name, which is in no canonical name. Of
Keras 3, they may leave out the layer (`net/kernel`): then the slots tell it, or the attributes that lead there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resume import names
from resume.formats import keras2, layouts, tfslots
from resume.formats.graph import Path, Stored

KERAS3 = frozenset({"_functional", "_operations", "_tracked"})  # what Keras 3's models hold their layers in
_CONTAINERS = frozenset({*KERAS3, "_layers"})
_STATES = "states"  # the attribute of recurrent layers; SavedModels have it below `keras_api`
SEEDS = ("seed_generator", "_random_generator")  # the attributes of layers that draw


def owner_of_state(path: Path) -> tuple[Path, tuple[int, ...]] | None:
    """Of `lstm/states/1`, which a stateful layer keeps: the layer's path, and the state's place; None for the rest."""
    at = next((i for i, edge in enumerate(path) if edge == _STATES), len(path))
    places = path[at + 1 :]
    if not places or not all(edge.isdecimal() for edge in places):
        return None
    owner = path[:at]
    return owner[:-1] if owner[-1:] == ("keras_api",) else owner, tuple(map(int, places))


@dataclass(frozen=True)
class Layer:
    """What a file says of one Keras object."""

    name: str
    kind: str
    is_metric: bool = False


@dataclass(frozen=True)
class Namer:
    """`config`: the serialised model. `layers`: what the file says of the objects, by node."""

    stored: Stored
    model: int
    config: Mapping[str, Any] | None = None
    layers: Mapping[int, Layer] = field(default_factory=dict)

    def weights(self, found: Mapping[int, Path], *, flavour: str | None, optimizer: int | None) -> list[str]:
        """Of weights by node, with their paths from the model."""
        if flavour == "keras":
            return self._keras3(found, optimizer)
        scopes: dict[Path, str] = {}
        for n, path in found.items():
            if scope := self.stored.name(n).rpartition("/")[0]:
                scopes.setdefault(path[:-1], scope)
        weights = [self._weight(n, path, scopes) for n, path in found.items()]
        if not (self.config or {}).get("config", {}).get("layers"):
            weights = _rootless(weights, list(found.values()))
        return keras2.weight_names(weights, model_config=self.config)

    def seeds(self, found: Mapping[int, Path]) -> list[str]:
        auto = names.automatic((layer.kind, layer.name) for layer in self.layers.values())
        owners = [path[: next(i for i, edge in enumerate(path) if edge in SEEDS)] for path in found.values()]
        return names.canonical([f"{self._at(path)}/seed" for path in owners], root=None, auto=auto)

    def states(self, found: Mapping[int, Path]) -> list[str]:
        """Of what stateful layers hand on, in the order in which each layer has them."""
        places = {n: owner_of_state(path) or ((), ()) for n, path in found.items()}
        order = {
            owner: sorted(at for other, at in places.values() if other == owner)
            for owner, _ in places.values()
        }
        kinds = [(layer.kind, layer.name) for layer in self.layers.values() if not layer.is_metric]
        scheme = keras2.layer_names(self.config, kinds)
        return scheme.canonical(
            [f"{self._layer(owner, n)}/{order[owner].index(at)}" for n, (owner, at) in places.items()]
        )

    def _layer(self, path: Path, state: int) -> str:
        """The layer's own name; where the file does not say it, the scope of its state's."""
        found = self.layers.get(self.stored.graph.at(path, start=self.model) or 0)
        scope = self.stored.name(state).rpartition("/")[0].rpartition("/")[2]
        return found.name if found is not None else scope or "/".join(_plain(path))

    def metrics(self, found: Mapping[int, Path]) -> list[str]:
        return [f"{self._at(path[:-1])}/{path[-1]}" for path in found.values()]

    def _at(self, path: Path) -> str:
        node = self.stored.graph.at(path, start=self.model)
        held = self.layers.get(node) if node is not None else None
        return held.name if held is not None else "/".join(_plain(path)) or "model"

    # ---- Keras 2 ----

    def _weight(self, node: int, path: Path, scopes: Mapping[Path, str]) -> keras2.Weight:
        """As an `.h5` file would describe it. A name without a scope gets that of its object, or the attributes."""
        own, shape, top = self.stored.name(node) or path[-1], self.stored.shape(node), self._top(path)
        if "/" in own or top is not None or len(path) == 1:
            return keras2.Weight(own, shape, top)
        return keras2.Weight(f"{scopes.get(path[:-1]) or '/'.join(_plain(path[:-1]))}/{own}", shape)

    def _top(self, path: Path) -> str | None:
        """The name of the top-level layer that a path leads through, where the file has it."""
        for length in range(1, len(path)):
            node = self.stored.graph.at(path[:length], start=self.model)
            if node is not None and node in self.layers:
                return self.layers[node].name
        return None

    # ---- Keras 3 ----

    def _keras3(self, found: Mapping[int, Path], optimizer: int | None) -> list[str]:
        full, paths = [self.stored.name(n) for n in found], list(found.values())
        root = _root(full, paths)
        own = [name.removeprefix(f"{root}/") if root else name for name in full]
        told = tfslots.told(self.stored, optimizer) if optimizer is not None else {}
        shallow = any(len(_plain(p)) > 1 and "/" not in name for p, name in zip(paths, own, strict=True))
        if told or shallow or len(set(full)) < len(full):
            above = {path[:-1]: told[n].rpartition("/")[0] for n, path in found.items() if n in told}
            own = [
                told[n] if n in told and tfslots.TRAINED in path else _by_attributes(path, above)
                for n, path in found.items()
            ]
        return layouts.scheme({}, own).canonical(own)


def _by_attributes(path: Path, layers: Mapping[Path, str]) -> str:
    """The path itself; with the layer's name in place of the attribute's where that is known beyond doubt."""
    *above, leaf = _plain(path)
    scope = layers[path[:-1]] if len(above) == 1 and path[:-1] in layers else "/".join(above)
    return f"{scope}/{leaf.lstrip('_')}" if scope else leaf.lstrip("_")


def _plain(path: Path) -> Path:
    """A path without Keras 3's containers of layers."""
    return tuple(edge for edge in path if edge not in _CONTAINERS)


def _rootless(weights: Sequence[keras2.Weight], paths: Sequence[Path]) -> list[keras2.Weight]:
    root = _root([weight.name for weight in weights], paths)
    cut = f"{root}/" if root else ""
    return [keras2.Weight(w.name.removeprefix(cut), w.shape, w.layer) for w in weights]


def _root(full: Sequence[str], paths: Sequence[Path]) -> str | None:
    """The root model's own name, if every variable's that has a scope begins with it."""
    split = [name.split("/") for name in full]
    scoped = [(parts, _plain(path)) for parts, path in zip(split, paths, strict=True) if len(parts) > 1]
    firsts = {parts[0] for parts, _ in scoped}
    if len(firsts) != 1 or min(len(parts) for parts, _ in scoped) < 3:
        return None
    # More than one object under one scope, or more scopes than objects: the outermost is the model.
    several = len({path[:1] for _, path in scoped}) > 1
    deeper = all(len(parts) > len(path) for parts, path in scoped)
    return firsts.pop() if several or deeper else None
