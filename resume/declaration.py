"""What a source declares beside its arrays: layers by name, optimizer, loss, metrics. In one form for every Keras.

Left out is what only says how a file was written: places in Keras's modules, labels, build and input shapes. A layer's
inputs are kept by name, so that another wiring of the same layers is seen. Keras's forms of one and the same thing are
one here: a short name and the object that it stands for, a dtype and its policy, a wrapped function and its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resume import names
from resume.state import LEARNING_RATE, OptimizerInfo, TrainState

_NOT_SETTINGS = frozenset({
    "name", "module", "registered_name", "build_config", "compile_config", "shared_object_id", "inbound_nodes",
    "input_layers", "output_layers", "layers", "batch_shape", "batch_input_shape", "optional", "sparse", "ragged",
    "is_legacy_optimizer", "keras_version", "backend",
})  # fmt: skip
_COMPILED = ("loss", "loss_weights", "metrics", "weighted_metrics")
_SHORT = {
    "mse": "mean_squared_error", "mae": "mean_absolute_error", "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error", "bce": "binary_crossentropy", "acc": "accuracy",
    "kld": "kl_divergence", "kullback_leibler_divergence": "kl_divergence", "cosine_proximity": "cosine_similarity",
}  # fmt: skip
_WRAPPERS = ("MeanMetricWrapper", "LossFunctionWrapper", "SumOverBatchSizeMetricWrapper")
_SAME_CLASS = {"Model": "Functional"}  # Keras up to 2.3
_INITIAL = "_initializer"  # written as another class by other versions, and long past for a trained model
_POLICIES = ("Policy", "DTypePolicy", "FloatDTypePolicy")


def declared(state: TrainState) -> dict[str, Any]:
    """Everything that a source declares, nested by plain keys; a part that it does not hold is None."""
    compiled = state.compile_config or {}
    return {
        "layers": (layers(state.model_config) or None) if state.model_config else None,
        "optimizer": _optimizer(state.optimizer, stored_rate=LEARNING_RATE in state.specs),
        **{part: _objects(compiled.get(part)) for part in _COMPILED},
    }


def layers(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of each layer by canonical name; layers inside a nested model by `<model>/<layer>`."""
    found = list(_members(model_config, ()))
    scheme = names.Scheme.of(model_config)
    labels = scheme.canonical(["/".join((*path, "-")) for path, _, _ in found])
    renamed = {
        path[-1]: label.rpartition("/")[0].rpartition("/")[2]
        for (path, _, _), label in zip(found, labels, strict=True)
    }
    return {
        label.rpartition("/")[0]: settings | {"inputs": [renamed.get(name, name) for name in inputs]}
        for label, (_, settings, inputs) in zip(labels, found, strict=True)
    }


_Member = tuple[tuple[str, ...], dict[str, Any], list[str]]  # where, settings, names of what it takes


def _members(node: Mapping[str, Any], inside: tuple[str, ...]) -> Iterator[_Member]:
    """The layers of a serialised model that are none themselves of an input; nested models' layers after each."""
    config = node.get("config")
    items = (
        config.get("layers") if isinstance(config, Mapping) else config
    )  # Sequential was a list up to Keras 2.2
    before: list[str] = []
    for item in items if isinstance(items, list) else []:
        inner = item.get("config") if isinstance(item, Mapping) else None
        if not isinstance(inner, Mapping | list) or item.get("class_name") == "InputLayer":
            continue
        name = str(inner.get("name") if isinstance(inner, Mapping) else item.get("name", "sequential"))
        wired = sorted(set(_sources(item.get("inbound_nodes"))))
        yield (*inside, name), _settings(item), wired if item.get("inbound_nodes") else before
        yield from _members(item, (*inside, name))
        before = [name]


def _sources(node: Any) -> Iterator[str]:
    """Names of the layers that a node's tensors come from: `[name, node, tensor, ...]`, in every Keras."""
    if isinstance(node, Mapping):
        for item in node.values():
            yield from _sources(item)
    elif isinstance(node, list | tuple):
        if len(node) >= 3 and isinstance(node[0], str) and all(type(part) is int for part in node[1:3]):
            yield node[0]
        else:
            for item in node:
                yield from _sources(item)


def _settings(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_settings(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_name" not in value:
        return {str(key): _settings(item) for key, item in value.items() if key not in _NOT_SETTINGS}
    kind, config = str(value["class_name"]).rpartition(">")[2], value.get("config")
    if kind in _POLICIES and isinstance(config, Mapping):
        return config.get("name")
    if kind == "function" or kind in _WRAPPERS:
        return config if isinstance(config, str) else _wrapped(config)
    if "items" in value:  # __tuple__, TensorShape
        return _settings(value["items"])
    inner = _settings(config) if isinstance(config, Mapping) else {}
    return {"class": _SAME_CLASS.get(kind, kind), **inner}


def _wrapped(config: Any) -> Any:
    function = config.get("fn") if isinstance(config, Mapping) else None
    label = config.get("name") if isinstance(config, Mapping) else None
    return label if isinstance(label, str) else _settings(function)


def _optimizer(info: OptimizerInfo | None, *, stored_rate: bool) -> dict[str, Any] | None:
    """Class and hyperparameters; not a learning rate that the arrays hold too, for it may have moved since."""
    if info is None:
        return None
    settings = _settings(dict(info.config))
    for key in ("learning_rate", "lr"):
        if stored_rate and isinstance(settings.get(key), float | int):
            del settings[key]
    return {"class": info.class_name, **settings}


def _objects(value: Any) -> Any:
    """Losses or metrics as one flat list, whether they were given alone, by output, or in a list an output."""
    if value is None or value == [] or value == {}:
        return None
    if isinstance(value, Mapping) and "class_name" not in value:
        value = [item for _, item in sorted(value.items())]
    if not isinstance(value, list | tuple):
        value = [value]
    flat: list[Any] = []
    for item in value:
        many = isinstance(item, list | tuple) or (isinstance(item, Mapping) and "class_name" not in item)
        flat += (_objects(item) or []) if many else [] if item is None else [_settings(item)]
    return flat or None


@dataclass(frozen=True)
class Leaf:
    """Where two declarations differ. `whole`: a part or layer that one side (None) does not have."""

    name: str
    saved: Any
    found: Any
    whole: bool = False


def compare(saved: Mapping[str, Any], found: Mapping[str, Any], *, same_version: bool) -> list[Leaf]:
    """The leaves in which two declarations differ; of a part that one side does not hold, one leaf.

    Settings that only one side has say nothing where two versions of Keras wrote them (`same_version` false).
    """
    leaves: list[Leaf] = []
    for part in saved:
        ours, theirs = saved[part], found.get(part)
        if ours is None or theirs is None:
            leaves += [Leaf(part, _part(ours), _part(theirs), whole=True)] if ours is not theirs else []
        elif part == "layers":
            leaves += _layers(ours, theirs, same_version=same_version)
        else:
            leaves += _leaves(part, ours, theirs, same_version=same_version)
    return leaves


def _part(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get("class") or f"{len(value)} of them"
    return value


def _layers(saved: Mapping[str, Any], found: Mapping[str, Any], *, same_version: bool) -> Iterator[Leaf]:
    for name in [*saved, *(n for n in found if n not in saved)]:
        if name in saved and name in found:
            yield from _leaves(f"layers.{name}", saved[name], found[name], same_version=same_version)
        else:
            yield Leaf(
                f"layers.{name}",
                saved.get(name, {}).get("class"),
                found.get(name, {}).get("class"),
                whole=True,
            )


def _leaves(name: str, saved: Any, found: Any, *, same_version: bool) -> Iterator[Leaf]:
    if isinstance(saved, Mapping) and isinstance(found, Mapping):
        if saved.get("class") != found.get(
            "class"
        ):  # every setting of another class differs, and says no more
            yield Leaf(f"{name}.class", saved.get("class"), found.get("class"))
            return
        for key in [*saved, *(k for k in found if k not in saved)]:
            if same_version or (key in saved and key in found and not key.endswith(_INITIAL)):
                yield from _leaves(f"{name}.{key}", saved.get(key), found.get(key), same_version=same_version)
    elif _listed(saved) and _listed(found) and len(saved) == len(found):
        for index, (ours, theirs) in enumerate(zip(saved, found, strict=True)):
            where = f"{name}.{index}" if len(saved) > 1 else name
            yield from _leaves(where, ours, theirs, same_version=same_version)
    elif not _same(_alone(saved), _alone(found)):
        yield Leaf(name, saved, found)


def _alone(value: Any) -> Any:
    """`axis: [3]` of a Keras 2 layer is the `axis: 3` of Keras 3."""
    single = _listed(value) and len(value) == 1 and isinstance(value[0], int | float)
    return value[0] if single else value


def _listed(value: Any) -> bool:
    return isinstance(value, list)


def _same(saved: Any, found: Any) -> bool:
    if isinstance(saved, bool) or isinstance(found, bool) or saved is None or found is None:
        return saved is found
    if isinstance(saved, int | float) and isinstance(found, int | float):
        return saved == found or np.float32(saved) == np.float32(
            found
        )  # settings pass through float32 variables
    if isinstance(saved, str | Mapping) and isinstance(found, str | Mapping):
        return _name(saved) == _name(found)
    return bool(saved == found)


def _name(value: Any) -> str:
    """`mse`, `mean_squared_error` and the class MeanSquaredError are one; so are `glorot_uniform` and GlorotUniform."""
    text = (str(value.get("class")) if isinstance(value, Mapping) else str(value)).rpartition(">")[2]
    return _SHORT.get(text.lower(), names.snake_case(text) if text.isidentifier() else text)


def shown(value: Any) -> str | None:
    """A leaf's value in a few words."""
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(shown(item)) for item in value) or "none"
    text = str(value.get("class", value)) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
