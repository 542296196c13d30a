"""Canonical variable names: the same for the same architecture, whatever the process built before it.

Keras numbers layers that nobody named by a counter of the process: the second model's `dense` is `dense_2`. Here such
names are counted again from the model itself, in the order of their numbers, so that `sequential_1/dense_2/kernel`
and `sequential/dense/kernel` are both `dense/kernel` (the root model's own name is left out). Names that the user
gave are kept.

A variable's path also depends on how its layer was built: a Dense inside a nested Sequential is `enc/dense/kernel` in
the process that wrote it, and `dense/kernel` once the model is rebuilt from its config, which builds every layer on
its own. So the path is completed (or shortened) to the place that the config gives the layer.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Beginnings of automatic names in Keras 2 -> in Keras 3.
_FORMER = {"model": "functional"} | {
    f"{base}_v{version}": base
    for base in ("batch_normalization", "gru", "gru_cell", "lstm", "lstm_cell")
    for version in (1, 2)
}
_NUMBERED = re.compile(r"^(?P<base>.*?)(?:_(?P<number>\d+))?$", re.DOTALL)
# Roles of Keras's own optimizers: `w_velocity_hat` is a slot of `w`, even where a variable is called `w_velocity`.
_ROLES = frozenset({
    "momentum", "velocity", "velocity_hat", "norm", "accumulator", "linear", "accumulated_grad",
    "accumulated_delta_var", "average_gradient", "average", "gradient_accumulator",
})  # fmt: skip


def snake_case(class_name: str) -> str:
    """The base of Keras's automatic names (keras.src.utils.naming.to_snake_case): `LayerNorm2D` -> `layer_norm2d`."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def split_number(name: str) -> tuple[str, int]:
    """`dense_12` -> (`dense`, 12); `dense` -> (`dense`, 0)."""
    match = _NUMBERED.match(name)
    assert match is not None  # the pattern matches every string
    number = match["number"]
    return (match["base"], int(number)) if number else (name, 0)


def automatic(layers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Of (class name, layer name) pairs, the layer names that Keras has chosen itself.

    Bidirectional calls its copies of a layer `forward_lstm_3` and `backward_lstm_3`. A model that was moved from
    Keras 2 to 3 has the names that Keras 2 chose: `model_3` of a functional one, `batch_normalization_v1`.
    """
    bases = ((name, _today(split_number(name)[0]), snake_case(cls)) for cls, name in layers)
    return frozenset(n for n, base, cls in bases if base in (cls, f"forward_{cls}", f"backward_{cls}"))


def _today(base: str) -> str:
    """What Keras 3 would have called a layer that nobody named."""
    return _FORMER.get(base, base)


def layers(model_config: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(class name, name, names of what it is nested in) of every named object in a serialised model, the model first.

    Wrappers' inner layers and cells included; the model's own name is left out of the nesting.
    """
    config = model_config.get("config")
    if isinstance(config, Mapping):
        yield str(model_config.get("class_name")), str(config.get("name")), ()
        yield from _nested(config, ())


def _nested(node: object, inside: tuple[str, ...]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if isinstance(node, list):
        for item in node:
            yield from _nested(item, inside)
    if not isinstance(node, Mapping):
        return
    config = node.get("config")
    name = config.get("name") if isinstance(config, Mapping) and "class_name" in node else None
    if isinstance(name, str):
        yield str(node["class_name"]), name, inside
        yield from _nested(config, (*inside, name))
    else:
        for item in node.values():
            yield from _nested(item, inside)


@dataclass(frozen=True)
class Scheme:
    """How one model's variable paths become canonical names."""

    root: str | None
    auto: frozenset[str]
    places: Mapping[str, frozenset[tuple[str, ...]]] = field(
        default_factory=dict
    )  # layer -> what it is nested in

    @classmethod
    def of(cls, model_config: Mapping[str, Any]) -> Scheme:
        """The scheme of a serialised model (of `keras.saving.serialize_keras_object(model)`, or of a file's config)."""
        found = list(layers(model_config))
        root, inner = found[0][1] if found else None, found[1:]
        places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for _, name, inside in inner:
            places[name].add(inside)
        auto = automatic((kind, name) for kind, name, _ in inner)
        return cls(root, auto, {name: frozenset(found) for name, found in places.items()})

    def canonical(self, paths: Sequence[str]) -> list[str]:
        """Canonical names for variable paths, unique and in the same order."""
        parts = [self._placed(_without_root(path.split("/"), self.root)) for path in paths]
        rank = _ranks(self.auto)
        return unique(["/".join([*(_renamed(n, rank) for n in p[:-1]), p[-1]]) for p in parts])

    def _placed(self, parts: list[str]) -> list[str]:
        """The path from the innermost layer that the config names, behind the config's nesting of that layer.

        A layer in more than one place (shared, or namesakes in two nested models) stands without any nesting.
        """
        if parts[0] not in self.places:
            return parts
        i = 0
        while i + 2 < len(parts) and any(p[-1:] == (parts[i],) for p in self.places.get(parts[i + 1], ())):
            i += 1
        places = self.places[parts[i]]
        return [*(next(iter(places)) if len(places) == 1 else ()), *parts[i:]]


def canonical(paths: Sequence[str], *, root: str | None, auto: frozenset[str]) -> list[str]:
    """Canonical names for variable paths, unique and in the same order, where no config says how layers are nested.

    `root` is the model's own name, dropped where a path begins with it; `auto` the layer names that Keras chose.
    """
    return Scheme(root, auto).canonical(paths)


def _without_root(parts: list[str], root: str | None) -> list[str]:
    return parts[1:] if len(parts) > 1 and parts[0] == root else parts


def _ranks(auto: Iterable[str]) -> dict[str, str]:
    """Automatic name -> the name it would have in a process that built nothing else.

    Counted over all of `auto`, so that any subset of a model's variables gets the same names.
    """
    numbers: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for base, number in map(split_number, auto):
        numbers[_today(base)].add((number, base))
    return {
        f"{base}_{number}" if number else base: f"{today}_{index}" if index else today
        for today, found in numbers.items()
        for index, (number, base) in enumerate(sorted(found))
    }


def _renamed(name: str, rank: Mapping[str, str]) -> str:
    return rank.get(name, name)


def unique(names: Sequence[str]) -> list[str]:
    """The names, later duplicates marked `~2`, `~3`, ... in order of appearance."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name}~{seen[name]}")
    return out


@dataclass(frozen=True)
class Slot:
    """An optimizer variable that belongs to the trainable variable number `variable`."""

    role: str
    variable: int


def slots(optimizer_paths: Sequence[str], variable_paths: Sequence[str]) -> list[Slot | None]:
    """What each optimizer variable of Keras 3 belongs to, by its path; None for scalars such as the iteration count.

    Keras 3 names a slot `<optimizer>/<variable path with / as _>_<role>`
    (keras.src.optimizers.base_optimizer.add_variable_from_reference). Variables whose flat paths are equal get their
    slots in the order of the variables, which is the order in which the optimizer creates them.
    """
    flat: dict[str, list[int]] = defaultdict(list)
    for index, path in enumerate(variable_paths):
        flat[path.replace("/", "_")].append(index)
    taken: Counter[tuple[str, str]] = Counter()
    return [_slot(path.rsplit("/", 1)[-1], flat, taken) for path in optimizer_paths]


def _slot(leaf: str, flat: Mapping[str, list[int]], taken: Counter[tuple[str, str]]) -> Slot | None:
    # The longest owner wins: `dense_kernel_momentum` belongs to `dense_kernel`, not to a variable called `dense`.
    cuts = [cut for cut in range(len(leaf) - 2, 0, -1) if leaf[cut] == "_" and leaf[:cut] in flat]
    for cut in sorted(cuts, key=lambda cut: leaf[cut + 1 :] not in _ROLES):
        owner, role = leaf[:cut], leaf[cut + 1 :]
        nth = taken[owner, role]
        taken[owner, role] += 1
        return Slot(role, flat[owner][nth]) if nth < len(flat[owner]) else None
    return None
