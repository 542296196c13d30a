"""Configuration or source -> live objects: custom objects, model, optimizer, data functions, callbacks."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from hydra.errors import HydraException
from hydra.utils import instantiate

from resume.engine.callbacks import without_double_board
from resume.engine.job import Built
from resume.errors import SourceError, UsageError
from resume.settings import Settings
from resume.state import TrainState


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


def callbacks(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Callbacks by their names in the configuration."""
    made = {name: node(config, f"callbacks.{name}") for name, config in nodes.items() if config is not None}
    return without_double_board(made, shipped="tensorboard")


def model_builder(settings: Settings, custom: Mapping[str, Any]) -> Callable[[TrainState | None], Built]:
    """A function that builds and compiles the model, from the configuration where it names one, else from the source.

    With `checkpoint.prefer=checkpoint`, the source's model and optimizer hold wherever it has them.
    """

    def build(state: TrainState | None) -> Built:
        if settings.dtype_policy:
            keras.config.set_dtype_policy(settings.dtype_policy)
        keras.utils.set_random_seed(settings.seed)
        overruled = settings.checkpoint.prefer == "checkpoint" and state is not None
        with keras.saving.custom_object_scope(dict(custom)):
            from_source = settings.model is None or (
                overruled and state is not None and state.model_config is not None
            )
            model = model_of(state, custom) if from_source else node(settings.model, "model")
            if not isinstance(model, keras.Model):
                raise UsageError(f"model: {type(model).__name__} is not a keras.Model.")
            given = {} if overruled else _given(settings.compile)
            compiled = compile_model(model, given, state)
            return Built(model, from_source, compiled.optimizer_from_source, compiled.unheld)

    return build


def _given(compile_settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: node(value, f"compile.{name}")
        if isinstance(value, Mapping) and "_target_" in value
        else _nested(value)
        for name, value in compile_settings.items()
        if value is not None
    }


def _nested(value: Any) -> Any:
    """Lists and dictionaries of metrics or losses may hold nodes themselves."""
    if isinstance(value, Mapping):
        return node(value, "compile") if "_target_" in value else {k: _nested(v) for k, v in value.items()}
    return [_nested(item) for item in value] if isinstance(value, list) else value


def model_of(state: TrainState | None, custom: Mapping[str, Any]) -> keras.Model:
    """The model as the source's own config describes it, built, not compiled, its weights not yet the source's."""
    if state is None:
        raise UsageError("no model: name one (model=...), or a source that has one (+ckpt=...).")
    if state.model_config is None:
        raise SourceError(f"{state.path}: holds no model. Name the one it was trained with (model=...).")
    demand_objects(state, custom)
    try:
        if state.format == "h5":
            known = {**_operations(state.model_config), **custom}
            return keras.models.load_model(str(state.path), custom_objects=known, compile=False)
        config = {k: v for k, v in state.model_config.items() if k != "compile_config"}
        return keras.saving.deserialize_keras_object(config, custom_objects=dict(custom))
    except (TypeError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise _unbuildable(state, error) from error


def _operations(config: Any) -> dict[str, Any]:
    """Keras's own operations (`ops.relu`) that a legacy config names as layers, which Keras then does not find."""
    if isinstance(config, list | tuple):
        return {name: found for item in config for name, found in _operations(item).items()}
    if not isinstance(config, Mapping):
        return {}
    out = {name: found for item in config.values() for name, found in _operations(item).items()}
    kind = config.get("class_name")
    if isinstance(kind, str) and "config" in config and not hasattr(keras.layers, kind):
        kinds = [vars(module).get(kind) for module in _keras_modules()]
        operations = [k for k in kinds if isinstance(k, type) and issubclass(k, keras.Operation)]
        if operations:
            out[kind] = operations[0]
    return out


def _unbuildable(state: TrainState, error: Exception) -> UsageError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return UsageError(
        f"{state.path}: its model cannot be rebuilt: {lines[0] if lines else type(error).__name__}"
    )


def demand_objects(state: TrainState, custom: Mapping[str, Any]) -> None:
    """Raises UsageError that lists all custom objects that the source needs and nobody has named.

    Keras would import whatever module the file names for them: what runs is the configuration's to say, never a file's.
    """
    configs = (
        state.model_config,
        state.compile_config,
        state.optimizer and {"config": dict(state.optimizer.config)},
    )
    _demand(state, configs, custom)


def _demand(state: TrainState, configs: Iterable[Any], custom: Mapping[str, Any]) -> None:
    missing = sorted({name for config in configs for name in unknown_objects(config, custom)})
    if missing:
        lines = "\n".join(f"  '+custom_objects.{name}=YOUR.MODULE.{name}'" for name in missing)
        raise UsageError(
            f"{state.path}: needs custom objects that the configuration does not name. Add:\n{lines}"
        )


def unknown_objects(config: Any, custom: Mapping[str, Any]) -> set[str]:
    """Class and function names in a serialised config that neither Keras nor the configuration knows."""
    if isinstance(config, list | tuple):
        return {name for item in config for name in unknown_objects(item, custom)}
    if not isinstance(config, Mapping):
        return set()
    found = {name for item in config.values() for name in unknown_objects(item, custom)}
    kind = config.get("class_name")
    name = config.get("config") if kind == "function" else kind
    if isinstance(name, str) and "config" in config and not _known(name, config, custom):
        found.add(name)
    return found


def _known(name: str, config: Mapping[str, Any], custom: Mapping[str, Any]) -> bool:
    registered = config.get("registered_name")
    if name in custom or registered in custom or name in keras.saving.get_custom_objects():
        return True
    spelled = [n for n in (name, registered) if isinstance(n, str)]
    if any(keras.saving.get_registered_object(n) is not None for n in spelled):
        return True
    if name.startswith("__") and name != "__lambda__":
        return True  # Keras's own markers, such as __keras_tensor__
    module = str(config.get("module") or "").split(".")[0]
    if config.get("class_name") == "function" or not module:
        return any(hasattr(place, name) for place in _keras_modules())
    return module in ("keras", "builtins")


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


def compile_model(model: keras.Model, given: Mapping[str, Any], state: TrainState | None) -> Compiled:
    """Compile; what is not given stays as the model or the source has it."""
    if model.compiled and not given:
        return Compiled(optimizer_from_source=False)
    base = source_arguments(state, given) if state is not None else {}
    if model.compiled and "optimizer" not in base and "optimizer" not in given:
        base = {"optimizer": model.optimizer, **base}
    arguments = {**base, **given}
    if arguments.get("optimizer") is None:
        raise UsageError(
            "the model is not compiled: set compile.optimizer (optimizer=adam) and compile.loss."
        )
    if state is not None and any(n.startswith("optimizer/loss_scale/") for n in state.specs):
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


def source_arguments(state: TrainState, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` that the source's own config has and the configuration does not give."""
    config = {name: item for name, item in (state.compile_config or {}).items() if name not in given}
    _demand(state, [config], {})
    try:
        if state.format == "h5":
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
    return value


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
