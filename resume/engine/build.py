"""Configuration or source -> live objects: custom objects, model, optimizer, data functions, callbacks."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from keras.src.backend.common import global_state
from keras.src.legacy.saving import saving_options, saving_utils

from resume import names
from resume.engine import flavour, lambdas, revival, rng, trusted
from resume.engine.callbacks import without_double_board
from resume.engine.job import Built
from resume.errors import SourceError, UsageError
from resume.formats import trust
from resume.formats.trust import Trust
from resume.settings import Settings
from resume.state import TrainState

_LONGEST = 240  # letters of what Keras says


def custom_objects(paths: Mapping[str, str | None]) -> dict[str, Any]:
    """Objects by the name that a file calls them. Raises UsageError that lists every path that leads nowhere."""
    found: dict[str, Any] = {}
    problems = []
    for name, path in paths.items():
        try:
            if path is not None:
                found[name] = _located(path)
        except (ImportError, AttributeError, ValueError) as error:
            problems.append(f"  custom_objects.{name}: {path}: {error}")
    if problems:
        raise UsageError("custom objects that cannot be imported:\n" + "\n".join(problems))
    return found


def _located(path: str) -> Any:
    module, _, attribute = path.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def node(config: Any, name: str, *, partial: bool = False) -> Any:
    """What a configuration node describes. Raises UsageError with the user's own error as its cause."""
    try:
        return instantiate({**config, "_partial_": True} if partial else config, _convert_="all")
    except HydraException as error:
        cause = error.__cause__ or error
        root = cause.__cause__ or cause
        raise UsageError(f"{name}: {config.get('_target_')}: {type(root).__name__}: {root}") from error


def callbacks(nodes: Mapping[str, Any], born: str = flavour.KERAS) -> dict[str, Any]:
    """Callbacks by their names in the configuration; Keras's own are those of the flavour."""
    named = flavour.spelled(nodes, born).items()
    made = {name: node(config, f"callbacks.{name}") for name, config in named if config is not None}
    return without_double_board(made, shipped="tensorboard")


def model_builder(settings: Settings, custom: Mapping[str, Any]) -> Callable[[TrainState | None], Built]:
    """A function that builds and compiles the model, from the configuration where it names one, else from the source.

    With `checkpoint.prefer=checkpoint`, the source's model and optimizer hold wherever it has them.
    """

    allowed = Trust(settings.trust, tuple(settings.trusted_modules), frozenset(custom))

    def build(state: TrainState | None) -> Built:
        born = _awake(settings, state)
        here = trusted.here(allowed)
        objects = trusted.objects(state, custom, allowed)
        overruled = settings.checkpoint.prefer == "checkpoint" and state is not None
        with flavour.custom_objects(objects):
            from_source = settings.model is None or (
                overruled and state is not None and state.model_config is not None
            )
            model = (
                model_of(state, objects, born=born, allowed=here)
                if from_source
                else node(settings.model, "model")
            )
            check_model(model, born if state is not None or settings.flavour != "auto" else None)
            given = {} if overruled else _given(settings.compile, flavour.of(model))
            compiled = compile_model(model, given, state, allowed=here)
            return Built(model, from_source, compiled.optimizer_from_source, compiled.unheld)

    return build


def _awake(settings: Settings, state: TrainState | None) -> str:
    """The flavour to build in; its library imported, its seeds and policy set before any layer is made."""
    born = flavour.chosen(settings.flavour, state)
    if settings.model is not None:
        target(settings.model, "model")  # the user's module may import tf_keras
    flavour.library(born)
    rng.seed_libraries(settings.seed)
    if settings.dtype_policy:
        flavour.set_policy(settings.dtype_policy)
    return born


def target(config: Mapping[str, Any], name: str) -> None:
    """Import what a node names, without calling it."""
    try:
        get_object(str(config["_target_"]))
    except Exception as error:
        raise UsageError(f"{name}: {config['_target_']}: {type(error).__name__}: {error}") from error


def check_model(model: Any, born: str | None) -> None:
    """Raise UsageError for what is no Keras model, and for one of another generation than `born`."""
    if not isinstance(model, flavour.kinds("Model")):
        raise UsageError(f"model: {type(model).__name__} is not a keras.Model.")
    if born is not None and flavour.of(model) != born:
        raise UsageError(
            f"model: a {flavour.of(model)} model, and this run continues in {born}, where its source was born. Build "
            f"the model with {born}, or move the source: python -m resume convert SOURCE TARGET."
        )


def _given(compile_settings: Mapping[str, Any], born: str) -> dict[str, Any]:
    settings = flavour.spelled(compile_settings, born)
    return {
        name: node(value, f"compile.{name}")
        if isinstance(value, Mapping) and "_target_" in value
        else _nested(value)
        for name, value in settings.items()
        if value is not None
    }


def _nested(value: Any) -> Any:
    """Lists and dictionaries of metrics or losses may hold nodes themselves."""
    if isinstance(value, Mapping):
        return node(value, "compile") if "_target_" in value else {k: _nested(v) for k, v in value.items()}
    return [_nested(item) for item in value] if isinstance(value, list) else value


def model_of(
    state: TrainState | None,
    custom: Mapping[str, Any],
    *,
    born: str = flavour.KERAS,
    allowed: Trust | None = None,
) -> Any:
    """The model as the source's own config describes it, built, not compiled, its weights not yet the source's."""
    if state is None:
        raise UsageError("no model: name one (model=...), or a source that has one (+ckpt=...).")
    if state.model_config is None:
        raise SourceError(f"{state.path}: holds no model. Name the one it was trained with (model=...).")
    allowed = allowed or trusted.here(Trust())
    trust.demand(state, replace(allowed, named=allowed.named | frozenset(custom) - allowed.registered.keys()))
    try:
        if born == flavour.TF_KERAS:
            with trusted.safety(born, allowed):
                return revival.model(state, custom)
        config = lambdas.named(state.model_config, custom)
        config.pop("compile_config", None)
        _reserve_names(state.model_config)
        if "module" in config:
            with trusted.safety(born, allowed):
                return keras.saving.deserialize_keras_object(config, custom_objects=dict(custom))
        known = {**operations(config), **custom}
        with saving_options.keras_option_scope(use_legacy_config=True), trusted.safety(born, allowed):
            return saving_utils.model_from_config(config, custom_objects=known)
    except (TypeError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise _unbuildable(state, error) from error


def _reserve_names(config: Mapping[str, Any]) -> None:
    """Keras names operations that it adds itself (a Concatenate of masks) as it would name a layer; a layer of the
    source may be called so already."""
    taken = global_state.get_global_attribute("object_name_uids", defaultdict(int), set_to_default=True)
    for _, name, _ in names.layers(config):
        base, number = names.split_number(name)
        taken[base] = max(taken[base], number + 1)


def operations(config: Any) -> dict[str, Any]:
    """Keras's own operations (`ops.relu`) that a legacy config names as layers, which Keras then does not find."""
    if isinstance(config, list | tuple):
        return {name: found for item in config for name, found in operations(item).items()}
    if not isinstance(config, Mapping):
        return {}
    out = {name: found for item in config.values() for name, found in operations(item).items()}
    kind = config.get("class_name")
    if isinstance(kind, str) and "config" in config and not hasattr(keras.layers, kind):
        kinds = [vars(module).get(kind) for module in _keras_modules()]
        found = next((k for k in kinds if _is_operation(k)), None)
        out |= {kind: found} if found is not None else {}
    return out


def _is_operation(kind: Any) -> bool:
    """Whether a class is one of Keras's operations on tensors; a layer is an operation, too, and does not count."""
    return isinstance(kind, type) and issubclass(kind, keras.Operation) and not issubclass(kind, keras.Layer)


def _unbuildable(state: TrainState, error: Exception) -> UsageError:
    return UsageError(f"{state.path}: its model cannot be rebuilt: {_cause(error)}")


def _cause(error: Exception) -> str:
    """Keras shows a class's whole config, and at the end what it is about."""
    text = str(error)
    kinds, reason = re.findall(r"Error when deserializing class '(\w+)'", text), text
    if kinds and "Exception encountered:" in text:
        reason = f"{kinds[-1]}: {text.rpartition('Exception encountered:')[2]}"
    lines = " ".join(reason.split("\n\n")[0].split()) or type(error).__name__
    return lines if len(lines) <= _LONGEST else f"{lines[:_LONGEST]}..."


@functools.cache
def _keras_modules() -> list[Any]:
    """Every module of Keras: where it finds its classes and functions when a file names no module."""
    return [module for name, module in sys.modules.items() if name.split(".")[0] == "keras"]


@dataclass(frozen=True)
class Compiled:
    optimizer_from_source: bool
    unheld: tuple[
        str, ...
    ] = ()  # settings that the source's config does not hold: Keras puts its defaults there


def compile_model(
    model: keras.Model, given: Mapping[str, Any], state: TrainState | None, *, allowed: Trust | None = None
) -> Compiled:
    """Compile; what is not given stays as the model or the source has it."""
    born, compiled = flavour.of(model), flavour.is_compiled(model)
    if compiled and not given:
        return Compiled(optimizer_from_source=False)
    base = source_arguments(state, given, born=born, allowed=allowed) if state is not None else {}
    if compiled and "optimizer" not in base and "optimizer" not in given:
        base = {"optimizer": model.optimizer, **base}
    arguments = {**base, **given}
    if arguments.get("optimizer") is None:
        lacking = f"{state.path}: holds no settings of an optimizer, and " if state is not None else ""
        raise UsageError(
            f"{lacking}the model is not compiled: set compile.optimizer (optimizer=adam) and compile.loss."
        )
    scaled = state is not None and any(n.startswith("optimizer/loss_scale/") for n in state.specs)
    if scaled and born == flavour.KERAS:
        arguments["optimizer"] = _scaled(arguments["optimizer"], from_source="optimizer" not in given)
    model.compile(**arguments)
    return Compiled("optimizer" not in given and "optimizer" in base, tuple(_unheld(base.get("loss"))))


def _unheld(loss: Any) -> Iterator[str]:
    """Arguments of Keras's losses that their configs leave out: Huber's `delta` comes back as 1.0."""
    for item in keras.tree.flatten(loss):
        if isinstance(item, keras.losses.Loss) and type(item).__module__.startswith("keras."):
            taken = set(inspect.signature(type(item).__init__).parameters) - {
                "self",
                "name",
                "reduction",
                "dtype",
            }
            yield from (f"loss/{name}" for name in sorted(taken - set(item.get_config()) - {"fn", "kwargs"}))


def _scaled(optimizer: Any, *, from_source: bool) -> Any:
    """Keras wraps an optimizer for mixed_float16 by the policy of the moment; the source says that it was wrapped."""
    wrapped = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer if wrapped or not from_source else keras.optimizers.LossScaleOptimizer(optimizer)


def source_arguments(
    state: TrainState,
    given: Mapping[str, Any],
    *,
    born: str = flavour.KERAS,
    allowed: Trust | None = None,
) -> dict[str, Any]:
    """The arguments of `compile` that the source's own config has and the configuration does not give."""
    config = {name: item for name, item in (state.compile_config or {}).items() if name not in given}
    own = () if "optimizer" in given else trust.configs(state)[2:]
    trust.demand_of(state, [config, *own], allowed or trusted.here(Trust()))
    try:
        if born == flavour.TF_KERAS:
            return revival.arguments(state, config, fresh="optimizer" not in given)
        if state.format == "h5" or "optimizer_config" in config:
            return _legacy_arguments(config, state, fresh="optimizer" not in given)
        arguments: dict[str, Any] = keras.saving.deserialize_keras_object(config)
        return arguments
    except (TypeError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise _unbuildable(state, error) from error


def _legacy_arguments(config: Mapping[str, Any], state: TrainState, *, fresh: bool) -> dict[str, Any]:
    """From the `training_config` of an `.h5` file."""
    readers: dict[str, Callable[[Any], Any]] = {
        "loss": keras.losses.deserialize,
        "metrics": keras.metrics.deserialize,
        "weighted_metrics": keras.metrics.deserialize,
    }
    kept = ("loss_weights", "run_eagerly", "steps_per_execution", "jit_compile", "auto_scale_loss")
    arguments = {name: config[name] for name in kept if config.get(name) is not None}
    arguments |= {
        name: _legacy(config[name], read) for name, read in readers.items() if config.get(name) is not None
    }
    if fresh and state.optimizer is not None:
        arguments["optimizer"] = optimizer_of(state.optimizer.class_name, state.optimizer.config)
    return arguments


def _legacy(value: Any, read: Callable[[Any], Any]) -> Any:
    """Losses or metrics in any nesting; names are left to `compile`, which knows the short ones too."""
    if isinstance(value, list | tuple):
        return [_legacy(item, read) for item in value]
    if isinstance(value, Mapping):
        return read(value) if "class_name" in value else {k: _legacy(v, read) for k, v in value.items()}
    registered = keras.saving.get_registered_object(value) if isinstance(value, str) else None
    return registered or value  # `package>name`, which `compile` does not know


def optimizer_of(class_name: str, config: Mapping[str, Any]) -> Any:
    """A fresh optimizer of this class and with these hyperparameters (its state comes from the arrays)."""
    settings = dict(config)
    if class_name == "LossScaleOptimizer" and isinstance(settings.get("inner_optimizer"), Mapping):
        inner = settings["inner_optimizer"]
        settings["inner_optimizer"] = optimizer_of(inner["class_name"], inner["config"])
        return keras.optimizers.LossScaleOptimizer(**settings)
    # By attribute: Keras's own table of optimizers forgets Lamb.
    kind = keras.saving.get_custom_objects().get(class_name) or getattr(keras.optimizers, class_name, None)
    if kind is None:
        return keras.optimizers.deserialize({"class_name": class_name, "config": settings})
    return kind.from_config(settings)
