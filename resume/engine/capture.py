"""Live objects -> TrainState: every variable at a step boundary, with the configs that made it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from resume import plain
from resume.engine import flavour, keras2, live
from resume.state import Arrays, OptimizerInfo, TrainState

_HOLDING_ARRAYS = ("callbacks", "rng")  # the others are read from a manifest alone


@dataclass(frozen=True)
class Configs:
    """What the objects were made by; each None where there is none, or where it cannot be told."""

    model: Mapping[str, Any] | None  # to be left alone by whoever is given it
    compile: Mapping[str, Any] | None
    optimizer: OptimizerInfo | None


def capture(model: keras.Model, *, epoch: int, batch: int) -> TrainState:
    """The training state now, copied; without callbacks, generators and the epoch's logs."""
    found = live.of(model)
    arrays = live.diverged({name: live.value(variable) for name, variable in found.variables.items()})
    return training_state(
        model,
        Arrays.of(arrays),
        configs=configs(model),
        raw_names={name: raw for name, raw in found.raw_names.items() if name in arrays},
        still=live.untrained(model, found),
        epoch=epoch,
        batch=batch,
    )


def training_state(model: keras.Model, arrays: Arrays, *, configs: Configs, **facts: Any) -> TrainState:
    """Arrays with the configs of the live objects that they were read from. `facts`: other fields of it."""
    born = flavour.of(model)
    return TrainState(
        format="native",
        path=Path(),
        arrays=arrays,
        model_config=configs.model,
        compile_config=configs.compile,
        optimizer=configs.optimizer,
        keras_version=flavour.library(born).__version__,
        flavour=born,
        **facts,
    )


def encoded(section: str, item: Any, arrays: dict[str, Any]) -> Any:
    """A section's plain values; arrays in it are set aside as `<section>/<n>`, in those sections that may hold any."""
    if section not in _HOLDING_ARRAYS:
        return plain.encode(item)
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


def configs(model: keras.Model) -> Configs:
    return compiled_anew(model, model_config(model))


def compiled_anew(model: keras.Model, config: Mapping[str, Any] | None) -> Configs:
    """`config`: the model's own, known already."""
    return Configs(config, compile_config(model), optimizer_info(live.optimizer_of(model)))


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
