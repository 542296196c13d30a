"""Live objects -> TrainState: a copy of every variable at a step boundary, with the configs that made it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resume import plain
from resume.engine import flavour, keras2, live
from resume.state import Arrays, OptimizerInfo, TrainState


def capture(
    model: keras.Model,
    *,
    epoch: int,
    batch: int,
    progress: Mapping[str, Any],
    kept: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> TrainState:
    """The training state now. `progress`: sections of plain values; arrays in them are set aside as `<section>/<n>`.

    `kept`: values of an earlier moment that hold in the place of today's.
    """
    found, born = live.of(model), flavour.of(model)
    values = {name: live.value(variable) for name, variable in found.variables.items()}
    arrays = live.diverged(values | dict(kept or {}))
    encoded = {section: _encode(section, item, arrays) for section, item in progress.items()}
    return TrainState(
        format="native",
        path=Path(),
        arrays=Arrays.of(arrays),
        model_config=model_config(model),
        compile_config=compile_config(model),
        optimizer=optimizer_info(live.optimizer_of(model)),
        keras_version=flavour.library(born).__version__,
        flavour=born,
        epoch=epoch,
        batch=batch,
        progress=encoded,
        raw_names={name: raw for name, raw in found.raw_names.items() if name in arrays},
    )


def _encode(section: str, item: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
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
    """The model as Keras serialises it; None for a model that cannot be (its code is the configuration's then)."""
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
