"""Which layer of the config each variable of a state belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from resume import names

MODEL = "model/"


@dataclass(frozen=True)
class Layer:
    """A member of a model's list of layers: canonical path, class, config, and its variables' names and shapes."""

    path: str
    kind: str
    config: Mapping[str, Any]
    variables: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ownership:
    """The layers of a model in the order of its config. `whole`: every variable belongs to one of them."""

    layers: tuple[Layer, ...]
    whole: bool
    owners: Mapping[str, Layer]

    def of(self, variable: str) -> Layer | None:
        """The innermost listed layer that a variable (without `model/`) belongs to."""
        return self.owners.get(variable)


def of(model_config: Mapping[str, Any] | None, shapes: Mapping[str, tuple[int, ...]]) -> Ownership:
    """`shapes`: of the model's variables, by canonical name without `model/`."""
    members = list(_members(model_config or {}, ()))
    paths = ["/".join((*nest, name, "variable")) for nest, name, _ in members]
    scheme = names.Scheme.of(model_config or {})
    layers: dict[str, Layer] = {}
    for path, (_, _, item) in zip(scheme.canonical(paths) if paths else [], members, strict=True):
        place = path.rpartition("/")[0]
        layers.setdefault(place, Layer(place, str(item["class_name"]).rpartition(">")[2], item["config"]))
    owners = {}
    for name, shape in shapes.items():
        parts = name.split("/")
        prefixes = ("/".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
        layer = next((layers[prefix] for prefix in prefixes if prefix in layers), None)
        if layer is not None:
            layer.variables[name] = shape
            owners[name] = layer
    return Ownership(tuple(layers.values()), bool(shapes) and len(owners) == len(shapes), owners)


def _members(
    model: Mapping[str, Any], nest: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, Mapping[str, Any]]]:
    """(names of the models around it, name, serialised layer) of every layer that is no model; models are entered."""
    config = model.get("config")
    items = (
        config if isinstance(config, list) else config.get("layers") if isinstance(config, Mapping) else None
    )
    for item in items if isinstance(items, list) else []:
        inner = item.get("config") if isinstance(item, Mapping) else None
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(name, str) or "class_name" not in item:
            continue
        if isinstance(inner, Mapping) and isinstance(inner.get("layers"), list):
            yield from _members(item, (*nest, name))
        else:
            yield nest, name, item
