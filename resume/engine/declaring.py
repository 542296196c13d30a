"""What an attempt declares: all that decides what is computed and is no variable. The next one is held against it."""

from __future__ import annotations

from typing import Any

import keras
import xxhash

from resume import drift, plain
from resume.engine import capture, flavour
from resume.engine.data import Order
from resume.engine.job import Job

_LOOKUPS = ("TextVectorization", "StringLookup", "IntegerLookup")
OF_THE_MODEL = ("layers", "policy", "vocabularies")


def of(job: Job, model: keras.Model, order: Order, spec: Any, *, epoch: int) -> dict[str, Any]:
    """By part, plain values; None for what cannot be told. `spec`: of one batch of the epoch."""
    info, compiled = capture.optimizer_info(model.optimizer), capture.compile_config(model) or {}
    first = keras.tree.flatten(spec)[0]
    return {
        **job.declared,
        "optimizer": drift.optimizer(info.inner.class_name, info.inner.config) if info else None,
        "layers": drift.layers(capture.model_config(model)) or drift.layers(_layer_by_layer(model)) or None,
        "policy": getattr(getattr(model, "dtype_policy", None), "name", None),
        "vocabularies": _vocabularies(model) or None,
        "seed": job.feeding.seed,
        "shuffle": job.feeding.shuffle,
        "compile": {part: compiled.get(part) for part in ("loss", "loss_weights")},
        "batch_size": first.shape[0] or order.batch_size,
        "steps_per_epoch": order.steps(epoch),
    }


def _layer_by_layer(model: Any) -> dict[str, Any]:
    """Of a model whose own config lists none, as a subclass's does; what a layer does not tell is its class alone."""
    return {"config": {"layers": [_told(layer) for layer in model._flatten_layers(include_self=False)]}}


def _told(layer: Any) -> dict[str, Any]:
    try:
        config: dict[str, Any] = flavour.library(flavour.of(layer)).saving.serialize_keras_object(layer)
        plain.encode(config)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return {"class_name": type(layer).__name__, "config": {}}
    return config


def _vocabularies(model: Any) -> dict[str, str]:
    """Digests by place of what lookup layers have been adapted to, which no array holds."""
    lookups = tuple(kind for name in _LOOKUPS for kind in flavour.kinds(f"layers.{name}"))
    layers: list[Any] = [
        item for item in model._flatten_layers(include_self=False) if isinstance(item, lookups)
    ]
    words = ["\0".join(map(str, layer.get_vocabulary())) for layer in layers]
    return {
        f"{place} {type(layer).__name__}": xxhash.xxh3_64_hexdigest(text.encode())
        for place, (layer, text) in enumerate(zip(layers, words, strict=True))
    }
