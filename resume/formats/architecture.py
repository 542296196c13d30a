"""Whether a serialised model can be one: layers that are told apart, a graph that can be put together, sane numbers.

Keras finds most of this out while it builds, some of it by looping for ever (a cycle, in Keras 2) or by asking for all
memory, and some of it never (a momentum of 2). Formats: the graph of a functional model is a list of calls ("nodes")
for each layer, whose arguments are [layer, call, tensor, arguments] in Keras 2 (keras.engine.network.get_config) and
{"class_name": "__keras_tensor__", "config": {"keras_history": [layer, call, tensor]}} in Keras 3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from resume.errors import SourceError
from resume.formats import vocabulary

_CONSTANT = "_CONSTANT_VALUE"
_MODELS = frozenset({"Functional", "Model", "Network", "Container"})
_KERAS_3 = ("keras.src.models", "keras.models")
_KEPT_NAN = (
    "value",
    "mask",
    "fill",
)  # keys with these words may well be NaN: a mask value, a constant initialiser
_MOST = 1 << 31


def check(config: object, path: Path) -> None:
    """Raise SourceError for the first thing in a model, compile or optimizer config that no model of Keras has."""
    for complaint in complaints(config):
        raise SourceError(
            f"{path}: {complaint}.\nThe configuration in this file is damaged, or was made by hand."
        )


def complaints(config: object, where: str = "") -> Iterator[str]:
    """Sentences on what is wrong, innermost last."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from complaints(item, where)
    if not isinstance(config, Mapping):
        return
    inner = config.get("config")
    here = where
    if "class_name" in config and isinstance(inner, Mapping):
        here = "/".join(part for part in (where, str(inner.get("name") or "")) if part)
        yield from _numbers(str(config["class_name"]), inner, here or str(config["class_name"]))
    members = (
        inner if isinstance(inner, list) else inner.get("layers") if isinstance(inner, Mapping) else None
    )
    if isinstance(members, list):
        yield from _layers(members, inner if isinstance(inner, Mapping) else {}, here or "the model")
    for key, item in config.items():
        if _is_nan(item) and not any(word in str(key) for word in _KEPT_NAN):
            yield f"{here or 'the model'}: {key} is NaN"
        yield from complaints(item, here)


# ---- numbers ----


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _count(value: Any) -> bool:
    return isinstance(value, int | float) and 1 <= value < _MOST and value == int(value)


def _share(value: Any) -> bool:
    return not isinstance(value, int | float) or 0 <= value <= 1


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


_DOMAINS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("units", "filters", "num_heads", "key_dim"), (_count, "a number from 1 on")),
    **dict.fromkeys(
        ("input_dim", "output_dim", "value_dim", "depth_multiplier", "num_bins", "num_tokens", "max_tokens"),
        (
            lambda value: value is None or not isinstance(value, int | float) or _count(value),
            "a number from 1 on",
        ),
    ),
    **dict.fromkeys(
        ("momentum", "beta_1", "beta_2", "rho", "ema_momentum", "renorm_momentum"),
        (_share, "between 0 and 1"),
    ),
    **dict.fromkeys(
        ("epsilon", "learning_rate", "lr", "weight_decay", "decay"), (_finite, "a finite number")
    ),
}


def _numbers(kind: str, config: Mapping[str, Any], here: str) -> Iterator[str]:
    """Keras's own arguments where they are out of any bounds; a class of the user's may mean anything by them."""
    bare = kind.removeprefix("Custom>")
    if bare not in vocabulary.LAYERS and bare not in vocabulary.OPTIMIZERS:
        return
    for key, (fits, wanted) in _DOMAINS.items():
        value = config.get(key)
        plain = key in config and not isinstance(value, Mapping) and not _is_nan(value)
        if plain and (isinstance(value, bool) or not fits(value)):
            yield f"{here}: {key} is {value!r:.40}, not {wanted}"


# ---- layers and their graph ----


def _layers(members: list[Any], config: Mapping[str, Any], here: str) -> Iterator[str]:
    for item in members:
        if (
            not isinstance(item, Mapping)
            or not isinstance(item.get("class_name"), str)
            or "config" not in item
        ):
            yield f"{here}: one of its layers has no class or no configuration"
            return
    names = [_name(item) for item in members]
    for item, name in zip(members, names, strict=True):
        own = item["config"].get("name", name) if isinstance(item["config"], Mapping) else name
        if "name" in item and own != name:
            yield f"{here}: a layer is called {name!r:.60} in the graph, and {own!r:.60} in its configuration"
            return
    twice = [name for name, count in Counter(n for n in names if n is not None).items() if count > 1]
    if twice:
        yield f"{here}: two layers are called {twice[0]}"
    elif "output_layers" in config:
        yield from _graph(members, config, here)


def _name(item: Mapping[str, Any]) -> str | None:
    config = item["config"]
    name = item.get("name", config.get("name") if isinstance(config, Mapping) else None)
    return name if isinstance(name, str) else None


def _graph(members: list[Any], config: Mapping[str, Any], here: str) -> Iterator[str]:
    """Put the calls together as Keras does: each as soon as all that it is called on exists."""
    kinds = {str(_name(item)): item for item in members}
    waiting = {name: _calls(item, kinds) for name, item in kinds.items()}
    loose = {r for calls in waiting.values() for refs in calls for r, _ in refs if r not in kinds}
    loose |= {name for name, _ in _references(_ends(config), kinds, True) if name not in kinds}
    if loose:
        yield f"{here}: its graph refers to a layer {min(loose)!r:.60}, which is not there"
        return
    if not members:
        yield f"{here}: a functional model without layers"
        return
    done: Counter[str] = Counter()
    while _advanced(waiting, kinds, done):
        pass
    stuck = [name for name, calls in waiting.items() if calls]
    if stuck:
        yield f"{here}: its graph has a loop or a loose end at {', '.join(stuck)[:80]}"


def _ends(config: Mapping[str, Any]) -> list[Any]:
    return [config.get("input_layers"), config.get("output_layers")]


def _calls(item: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[list[tuple[str, int]]]:
    nodes = item.get("inbound_nodes") or []
    return [list(_references(node, kinds, True)) for node in nodes] if isinstance(nodes, list) else []


def _references(node: Any, kinds: Mapping[str, Any], direct: bool) -> Iterator[tuple[str, int]]:
    """(layer, call) of every tensor in a node. `direct`: arguments that can be nothing but tensors or constants."""
    if isinstance(node, Mapping):
        history = node["config"].get("keras_history") if _is_tensor(node) else None
        if isinstance(history, list) and len(history) == 3:
            yield str(history[0]), _int(history[1])
            return
        for item in node.values():
            yield from _references(item, kinds, direct and "class_name" not in node and "args" not in node)
    elif isinstance(node, list | tuple):
        if _is_reference(node, kinds, direct):
            if node[0] != _CONSTANT:
                yield node[0], _int(node[1])
            yield from _references(list(node[3:]), kinds, False)
        else:
            for item in node:
                yield from _references(item, kinds, direct)


def _is_tensor(node: Mapping[str, Any]) -> bool:
    return node.get("class_name") == "__keras_tensor__" and isinstance(node.get("config"), Mapping)


def _is_reference(node: Any, kinds: Mapping[str, Any], direct: bool) -> bool:
    if len(node) not in (3, 4) or not isinstance(node[0], str) or not isinstance(node[1], int):
        return False
    return node[0] in kinds or node[0] == _CONSTANT or (direct and isinstance(node[2], int))


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _advanced(
    waiting: dict[str, list[list[tuple[str, int]]]], kinds: Mapping[str, Any], done: Counter[str]
) -> bool:
    before = done.total()
    for name, calls in waiting.items():
        while calls and all(_exists(kinds[layer], call, done[layer]) for layer, call in calls[0]):
            calls.pop(0)
            done[name] += 1
    return done.total() > before


def _exists(item: Mapping[str, Any], call: int, done: int) -> bool:
    """Whether a layer has been called so often; a model has a call of its own, before the first."""
    kind = item["class_name"]
    if not item.get("inbound_nodes") and (kind == "InputLayer" or kind not in vocabulary.LAYERS):
        return True
    if kind in _MODELS and not _is_of_keras_3(item):
        return 0 <= call - 1 < done
    if kind in (*_MODELS, "Sequential") or kind not in vocabulary.LAYERS:
        return max(call - 1, 0) < done or call < done
    return 0 <= call < done


def _is_of_keras_3(item: Mapping[str, Any]) -> bool:
    """By its module or, in .h5 files, which name none, by how its calls are written."""
    nodes = item.get("inbound_nodes") or ()
    called = any(isinstance(node, Mapping) and {"args", "kwargs"} <= node.keys() for node in nodes)
    return called or str(item.get("module")).startswith(_KERAS_3)
