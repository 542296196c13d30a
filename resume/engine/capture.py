"""Live objects -> TrainState: every variable at a step boundary, with the configs that made it."""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume import plain
from resume.engine import flavour, keras2, live
from resume.state import Arrays, OptimizerInfo, TrainState

_CONFIGS: weakref.WeakKeyDictionary[keras.Model, tuple[list[Any], dict[str, Any] | None]] = (
    weakref.WeakKeyDictionary()
)
_MANY = (list, tuple, dict)
_SIMPLE = (bool, int, float, str, bytes, type(None))
_APART: Any = (
    keras.Variable,
    tf.Variable,
    tf.Module,
    keras.Operation,
    type,
)  # layers are looked at by themselves


def capture(model: keras.Model, *, epoch: int, batch: int) -> TrainState:
    """The training state now, copied; without callbacks, generators and the epoch's logs."""
    found = live.of(model)
    arrays = live.diverged({name: live.value(variable) for name, variable in found.variables.items()})
    return training_state(model, found, Arrays.of(arrays), epoch=epoch, batch=batch, progress={})


def training_state(
    model: keras.Model,
    found: live.Live,
    arrays: Arrays,
    *,
    epoch: int,
    batch: int,
    progress: Mapping[str, Any],
) -> TrainState:
    """Arrays with the configs of the live objects that they were read from. `progress`: sections, encoded."""
    born = flavour.of(model)
    return TrainState(
        format="native",
        path=Path(),
        arrays=arrays,
        model_config=model_config(model),
        compile_config=compile_config(model),
        optimizer=optimizer_info(live.optimizer_of(model)),
        keras_version=flavour.library(born).__version__,
        flavour=born,
        epoch=epoch,
        batch=batch,
        progress=progress,
        raw_names={name: raw for name, raw in found.raw_names.items() if name in arrays},
        still=live.untrained(model, found),
    )


def encoded(section: str, item: Any, arrays: dict[str, Any]) -> Any:
    """A section's plain values; arrays in it are set aside as `<section>/<n>`."""
    count = itertools.count()

    def keep(array: np.ndarray[Any, Any]) -> str:
        name = f"{section}/{next(count)}"
        arrays[name] = np.array(array, order="C")
        return name

    return plain.encode(item, keep=keep)


def section(state: TrainState, name: str, default: Any = None) -> Any:
    """One section of a state's progress, decoded, its arrays read."""
    return (
        plain.decode(state.progress[name], find=state.arrays.__getitem__)
        if name in state.progress
        else default
    )


def model_config(model: keras.Model) -> dict[str, Any] | None:
    """The model as Keras serialises it; None for a model that cannot be (its code is the configuration's then).

    Serialised anew only when something that it is made of has changed: it takes as long as everything else of a
    snapshot together, and is to be left alone by whoever is given it.
    """
    known, now = _CONFIGS.get(model), _fingerprint(model)
    if known is None or known[0] != now:
        known = _CONFIGS[model] = now, _serialised(model)
    return known[1]


def _fingerprint(model: keras.Model) -> list[Any]:
    """What layers hold, and what that holds (a regularizer its factor): numbers and texts, objects by identity."""
    found: list[Any] = []
    apart = (*_APART, *flavour.kinds("callbacks.Callback"))  # the History of a model, say
    for layer in model._flatten_layers():
        found.append(id(layer))
        for attribute, item in vars(layer).items():
            found.append((attribute, _mark(item)))
            inner = getattr(item, "__dict__", None)
            if inner is None or isinstance(item, apart):
                continue
            if not _keras_own(item):
                found.append(object())
            found += [(a, _mark(b)) for a, b in inner.items()]
        if not _keras_own(layer):
            found.append(object())  # what its get_config reads, nobody knows: never equal to anything
    return found


def _mark(item: Any) -> Any:
    """What tells whether an attribute is still the same; lists of simple things by what is in them."""
    if type(item) in _SIMPLE:
        return item
    if isinstance(item, np.generic):
        return item.dtype.str, item.tobytes()
    if isinstance(item, _MANY):
        members = tuple(item.items()) if isinstance(item, dict) else tuple(item)
        flat = [part for m in members for part in (m if isinstance(m, tuple) else (m,))]
        return members if all(isinstance(part, _SIMPLE) for part in flat) else id(item)
    return item if isinstance(item, _SIMPLE) else id(item)


def _keras_own(item: Any) -> bool:
    module = type(item).__module__.split(".")[0]
    return module in ("keras", "tf_keras", "tensorflow", "numpy") or module in sys.stdlib_module_names


def _serialised(model: keras.Model) -> dict[str, Any] | None:
    try:
        saving = flavour.library(flavour.of(model)).saving
        config: dict[str, Any] = saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        plain.encode(config)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    return config


def compile_config(model: keras.Model) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] | None = model.get_compile_config()
        if config and flavour.of(model) == flavour.TF_KERAS:
            # It repeats what compile() was given, and so "adam" without the rate that it has by now.
            saving = flavour.library(flavour.TF_KERAS).saving
            config = {**config, "optimizer": saving.serialize_keras_object(model.optimizer)}
        plain.encode(config)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    return config


def optimizer_info(optimizer: Any) -> OptimizerInfo | None:
    """Class and hyperparameters; those that JSON cannot hold (callables) as their names."""
    if optimizer is None:
        return None
    born = flavour.of(optimizer)
    config = flavour.library(born).saving.serialize_keras_object(optimizer)
    try:
        plain.encode(config)
    except plain.NotPlainError:
        config = {"class_name": type(optimizer).__name__, "config": {}}
    kind = str(config["class_name"]).rpartition(">")[2]
    legacy = born == flavour.TF_KERAS and keras2.is_legacy(optimizer)
    return OptimizerInfo(
        "LossScaleOptimizer" if kind.startswith("LossScaleOptimizer") else kind, config["config"], legacy
    )
