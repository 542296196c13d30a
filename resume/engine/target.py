"""A live model -> a file or a directory of some format, read back by our own readers before it gets its name."""

from __future__ import annotations

import contextlib
import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
from keras.src.legacy.saving import saving_options

from resume import formats
from resume.engine import build, capture, live, restore
from resume.engine import flavour as flavours
from resume.errors import ContinuityError, SourceError, UsageError
from resume.formats import native, translate, translate_training, writing
from resume.state import Arrays, Spec, TrainState, is_slot, spec_of

KERAS, H5, NATIVE, SAVEDMODEL = "keras", "h5", "native", "savedmodel"
FORMATS = (KERAS, H5, NATIVE, SAVEDMODEL)

# What a file of Keras never holds; our own checkpoints do.
_OF_A_RUN = ("seeds/", "states/", "objects/", "metrics/", "callbacks/", "rng/")
_SHOWN = 5  # arrays of which an error tells


@dataclass(frozen=True)
class Written:
    """What was found in the target, bit for bit as it was to be."""

    specs: Mapping[str, Spec]
    unheld: tuple[str, ...] = ()  # what the source or the model has, and this format does not hold

    @property
    def slots(self) -> int:
        return sum(is_slot(name, spec) for name, spec in self.specs.items())


def write(
    model: Any,
    source: TrainState,
    target: Path,
    kind: str,
    *,
    overwrite: bool,
    rebuild: Callable[[TrainState], Any] | None = None,
) -> Written:
    """The live model under `target`; the source gives its position. `rebuild`: makes a model of what was read back.

    Raises ContinuityError when what was written reads back different, UsageError when nobody could load it again;
    there is no target then, or the earlier one.
    """
    now = _captured(model, source)
    unheld = () if kind == NATIVE else _without_a_place(now, kind)
    left_out = unheld if kind == NATIVE else (*_OF_A_RUN, *unheld)
    expected = {name: spec for name, spec in now.specs.items() if not name.startswith(left_out or ("\0",))}

    def compare(begun: Path) -> None:
        back = formats.read(begun)
        _demand_equal(target, back if kind == NATIVE else restore.aligned(model, back), expected)
        _demand_same_settings(target, now, back, kind)
        if rebuild is not None and back.model_config is not None:
            _demand_loadable(target, back, kind, rebuild)

    _publish(target, lambda begun: _write(model, now, begun, kind), compare, overwrite=overwrite)
    return Written(expected, (*unheld, *_run_parts(now, source, kind)))


def copy(state: TrainState, target: Path, *, overwrite: bool) -> Written:
    """One of our own checkpoints as another: every array, and the run's position and callbacks with it."""
    expected = {name: spec_of(state.arrays[name]) for name in state.specs}

    def compare(begun: Path) -> None:
        _demand_equal(target, native.read(begun), expected)

    _publish(target, lambda begun: _write_native(begun, state), compare, overwrite=overwrite)
    return Written(expected)


def _publish(
    target: Path, write_to: Callable[[Path], None], compare: Callable[[Path], None], *, overwrite: bool
) -> None:
    with _plainly(target), writing.unfinished(target) as begun:
        write_to(begun)
        try:
            compare(begun)
        except SourceError as error:
            why = str(error).removeprefix(f"{begun}: ")
            raise ContinuityError(f"{target}: cannot be read back, so it was not kept: {why}") from error
        writing.publish(begun, target, overwrite=overwrite)


def _demand_loadable(target: Path, back: TrainState, kind: str, rebuild: Callable[[TrainState], Any]) -> None:
    """Raises UsageError for a model that cannot be made of its own config, by us or by plain Keras."""
    operations = build.operations(back.model_config) if kind == H5 and back.flavour == flavours.KERAS else {}
    if operations:
        raise UsageError(
            f"{target}: the graph has operations ({', '.join(sorted(operations))}), which plain Keras does not find "
            "in an .h5 file: write a .keras file."
        )
    try:
        rebuild(back)
    except UsageError as error:
        why = str(error).removeprefix(f"{back.path}: ")
        hint = " A .keras file may hold it." if kind == H5 else ""
        raise UsageError(f"{target}: could not be loaded again, so it was not kept: {why}{hint}") from error


@contextlib.contextmanager
def _plainly(target: Path) -> Iterator[None]:
    """What Keras says when it cannot serialise something, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror or error}") from error
    except (TypeError, ValueError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{target}: cannot be written: {first}") from error


# ---- written ----


def _captured(model: Any, source: TrainState) -> TrainState:
    """What is live, at the source's position; without what is this process's own, and no part of the source."""
    now = capture.capture(model, epoch=0, batch=0)
    specs = {name: spec for name, spec in now.specs.items() if not name.startswith(("metrics/", "rng/"))}
    arrays = Arrays(specs, read=now.arrays.__getitem__)
    return replace(now, arrays=arrays, epoch=source.epoch, batch=source.batch)


def _write(model: Any, now: TrainState, begun: Path, kind: str) -> None:
    if kind == NATIVE:
        _write_native(begun, now)
    elif flavours.of(model) == flavours.TF_KERAS:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="You are saving your model as an HDF5", category=UserWarning
            )
            model.save(str(begun), save_format={KERAS: "keras", H5: "h5", SAVEDMODEL: "tf"}[kind])
    elif kind == H5:
        writing.write_h5(begun, _whole(model))
    else:
        model.save(begun)


def _write_native(begun: Path, state: TrainState) -> None:
    begun.mkdir()
    native.write(begun, state)


def _without_a_place(now: TrainState, kind: str) -> tuple[str, ...]:
    """Beginnings of names that a format of Keras 2 has no place for. Keras 3's have one for every variable."""
    info = now.optimizer
    if now.flavour != flavours.TF_KERAS:
        return ()
    out = ["optimizer/hyper/"]
    if info is not None and info.inner.class_name == "Nadam" and not info.legacy:
        out.append(translate.PRODUCT)
    if info is not None and info.inner is not info and kind != SAVEDMODEL:
        out.append("optimizer/loss_scale/")
    return tuple(out)


def _run_parts(now: TrainState, source: TrainState, kind: str) -> tuple[str, ...]:
    """What belongs to a run and not to a model, where the source or the model has any."""
    lost = ("callbacks/", "rng/") if kind == NATIVE else _OF_A_RUN
    parts = {name.split("/")[0] for name in source.specs if name.startswith(lost)}
    if kind != NATIVE:
        parts |= {
            part
            for part in ("seeds", "states", "objects")
            for name in now.specs
            if name.startswith(f"{part}/")
        }
        parts |= {"position"} if source.epoch is not None else set()
    return tuple(sorted(parts))


# ---- read back, compared ----


def _demand_equal(target: Path, back: TrainState, expected: Mapping[str, Spec]) -> None:
    """Raises ContinuityError unless each array is what was to be written."""
    wrong = [line for name, spec in expected.items() for line in _different(name, spec, back)]
    if wrong:
        more = f"\n  ... and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        lines = "\n".join(f"  {line}" for line in wrong[:_SHOWN])
        raise ContinuityError(f"{target}: was not written whole, so it was not kept.\n{lines}{more}")


def _different(name: str, spec: Spec, back: TrainState) -> Iterator[str]:
    if name not in back.specs:
        yield f"{name}: not in the written file"
        return
    found = spec_of(back.arrays[name])
    if (found.dtype, found.shape) != (spec.dtype, spec.shape):
        yield f"{name}: reads back as another: {spec} -> {found}"
    elif found != spec:
        yield f"{name}: reads back with other values"


def _demand_same_settings(target: Path, now: TrainState, back: TrainState, kind: str) -> None:
    """The optimizer's class and hyperparameters, and the model's config, as they read back."""
    for what, ours, theirs in _settings(now, back, kind):
        if ours != theirs:
            raise ContinuityError(
                f"{target}: {what} reads back different, so it was not kept: {_short(ours)} -> {_short(theirs)}"
            )


def _settings(now: TrainState, back: TrainState, kind: str) -> Iterator[tuple[str, Any, Any]]:
    if now.flavour == flavours.KERAS and kind in (KERAS, NATIVE):
        yield "the model's config", _core(now.model_config), _core(back.model_config)
    ours, theirs = (s.optimizer.inner if s.optimizer is not None else None for s in (now, back))
    yield "the optimizer", ours and ours.class_name, theirs and theirs.class_name
    if ours is not None and theirs is not None:
        for key in ours.config.keys() & theirs.config.keys():
            yield f"the optimizer's {key}", _bare(ours.config[key]), _bare(theirs.config[key])


def _core(config: Any) -> Any:
    """A model's config without the numbers that Keras gives shared objects anew at each serialisation."""
    if isinstance(config, list | tuple):
        return [_core(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    passed_over = ("shared_object_id", "compile_config")
    return {key: _core(item) for key, item in config.items() if key not in passed_over}


def _bare(value: Any) -> Any:
    """Without what only one of two serialisations writes around an object: its module and its registered name."""
    if isinstance(value, Mapping) and "class_name" in value:
        return {"class_name": value["class_name"], "config": _bare(value.get("config"))}
    if isinstance(value, Mapping):
        return {key: _bare(item) for key, item in value.items()}
    return [_bare(item) for item in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---- the content of an .h5 file of Keras 3 ----


def _whole(model: keras.Model) -> writing.WholeModel:
    with saving_options.keras_option_scope(use_legacy_config=True):
        config = {"class_name": type(model).__name__, "config": model.get_config()}
    top = {id(v) for v in model._trainable_variables + model._non_trainable_variables}
    optimizer = live.optimizer_of(model)
    return writing.WholeModel(
        keras_version=str(keras.__version__),
        backend=keras.backend.backend(),
        model_config=config,
        training_config=_training_config(model) if optimizer is not None else None,
        layers=[(layer.name, _values(_stored(layer))) for layer in model.layers],
        top=_values([v for v in model.weights if id(v) in top]),
        optimizer=_values(optimizer.variables) if optimizer is not None else (),
    )


def _stored(layer: Any) -> list[Any]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _values(variables: Sequence[Any]) -> list[writing.Named]:
    return [(variable.path, live.value(variable)) for variable in variables]


def _training_config(model: keras.Model) -> dict[str, Any]:
    """As Keras writes it, but with names that it can read again: `mse` it cannot."""
    given = dict(model._compile_config.config)  # a copy: Keras's own writer empties the model's
    given.pop("optimizer", None)
    found = {key: _legacy(item, key) for key, item in given.items()}
    optimizer = model.optimizer
    name = keras.saving.get_registered_name(type(optimizer))
    return {**found, "optimizer_config": {"class_name": name, "config": optimizer.get_config()}}


def _legacy(item: Any, key: str) -> Any:
    if isinstance(item, str) and key in ("loss", "metrics", "weighted_metrics"):
        return translate_training.full_name(item)
    if isinstance(item, list | tuple):
        return [_legacy(inner, key) for inner in item]
    if isinstance(item, Mapping):
        return {name: _legacy(inner, key) for name, inner in item.items()}
    if not callable(item):
        return item
    legacy = importlib.import_module("keras.src.legacy.saving.serialization")
    return json.loads(json.dumps(legacy.serialize_keras_object(item), default=str))
