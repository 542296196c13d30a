"""A model of Keras 2, its optimizer and its losses from the source's own config, in tf_keras."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from resume.engine import flavour, lambdas
from resume.state import OptimizerInfo, TrainState

# tf_keras's own reader wants an optimizer beside the losses and metrics; ours is made by `optimizer`.
_PLACEHOLDER = {"class_name": "SGD", "config": {}}


def model(state: TrainState, custom: Mapping[str, Any]) -> Any:
    """The model as the source describes it, not compiled, its weights not yet the source's; in the caller's safe mode.

    Raises what tf_keras and the user's classes raise.
    """
    library = flavour.library(flavour.TF_KERAS)
    config = _importable(lambdas.named(state.model_config or {}, custom))
    config.pop("compile_config", None)
    with library.saving.custom_object_scope(dict(custom)):
        if "module" in config:
            return library.saving.deserialize_keras_object(config, custom_objects=dict(custom))
        return library.models.model_from_config(config, custom_objects=dict(custom))


def _importable(config: Any) -> Any:
    """Private modules of Keras 2.12 where tf_keras has them: `keras.engine.functional` -> `keras.src.engine...`."""
    if isinstance(config, list):
        return [_importable(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    out = {key: _importable(item) for key, item in config.items()}
    module = config.get("module")
    if isinstance(module, str) and "class_name" in config and module.startswith("keras.engine."):
        out["module"] = module.replace("keras.", "keras.src.", 1)
    return out


def arguments(state: TrainState, config: Mapping[str, Any], *, fresh: bool) -> dict[str, Any]:
    """The arguments of `compile` in a source's config; with the optimizer if that is to be made `fresh`."""
    out = _described(config) if _is_training_config(config) else _serialised(config)
    out.pop("optimizer", None)
    if fresh and state.optimizer is not None:
        out["optimizer"] = optimizer(state.optimizer)
    return {name: item for name, item in out.items() if item is not None}


def _is_training_config(config: Mapping[str, Any]) -> bool:
    """As in `.h5` files and SavedModels; `.keras` archives and own checkpoints hold serialised objects."""
    return "optimizer_config" in config or "sample_weight_mode" in config


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    utils = importlib.import_module("tf_keras.src.saving.legacy.saving_utils")
    defaults = {"metrics": None, "weighted_metrics": None, "loss_weights": None, "loss": None}
    found = utils.compile_args_from_training_config({**defaults, **config, "optimizer_config": _PLACEHOLDER})
    # Metrics are a list an output by now, which `compile` would read otherwise.
    return {**found, "from_serialized": True}


def _serialised(config: Mapping[str, Any]) -> dict[str, Any]:
    library = flavour.library(flavour.TF_KERAS)
    kept = {name: item for name, item in config.items() if name != "optimizer"}
    found: dict[str, Any] = library.saving.deserialize_keras_object(kept)
    return found


def optimizer(info: OptimizerInfo) -> Any:
    """A fresh optimizer of this class and kind, with these hyperparameters."""
    library = flavour.library(flavour.TF_KERAS)
    if info.inner is not info:
        kept = {
            k: info.config[k]
            for k in ("dynamic", "initial_scale", "dynamic_growth_steps")
            if k in info.config
        }
        return library.mixed_precision.LossScaleOptimizer(optimizer(info.inner), **kept)
    config = {k: v for k, v in info.config.items() if k != "is_legacy_optimizer"}
    if config.get("epsilon", 0) is None:
        del config["epsilon"]  # standalone Keras: the backend's default
    space = library.optimizers.legacy if info.legacy else library.optimizers
    custom = library.saving.get_custom_objects()
    kind = custom.get(info.class_name) or getattr(space, info.class_name, None)
    if kind is None:
        return library.optimizers.deserialize({"class_name": info.class_name, "config": config})
    return kind.from_config(config)
