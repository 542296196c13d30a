"""Keras 3 or tf_keras: a file continues in the generation that it was born in.

Both may live in one process. tf_keras is imported when a source, a model or the configuration asks for it: it costs
more than a second, and most runs never do.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from resume.errors import UsageError
from resume.state import TrainState

KERAS, TF_KERAS = "keras", "tf_keras"
# By path and libraries: each snapshot asks dozens of times.
_KINDS: dict[tuple[Any, ...], tuple[Any, ...]] = {}


def library(name: str) -> Any:
    """The Keras of this flavour as a module. Raises UsageError where tf_keras is not installed."""
    if name == KERAS:
        return keras
    try:
        found = importlib.import_module(TF_KERAS)
    except ImportError as error:
        raise UsageError(
            f"a run of Keras 2 continues in tf_keras, which cannot be imported ({error}): pip install tf_keras"
        ) from error
    # Dropout and its like then draw from generators whose state is a variable; the older operations hide theirs.
    found.backend.experimental.enable_tf_random_generator()
    return found


def of(item: object) -> str:
    """The flavour of a model, layer, optimizer or callback, by the classes that it is made of."""
    return (
        TF_KERAS if any(kind.__module__.split(".")[0] == TF_KERAS for kind in type(item).__mro__) else KERAS
    )


def kinds(path: str) -> tuple[Any, ...]:
    """The class at `path` ("callbacks.CSVLogger") in each flavour that is imported: for isinstance."""
    return _kinds(path, *(sys.modules.get(name) for name in (KERAS, TF_KERAS)))


def _kinds(path: str, *libraries: Any) -> tuple[Any, ...]:
    known = _KINDS.get((path, *libraries))
    if known is not None:
        return known
    # Of one that another thread is just importing, not all is there yet.
    whole = not any(getattr(getattr(item, "__spec__", None), "_initializing", False) for item in libraries)
    found = tuple(c for library in libraries if isinstance(c := _at(path, library), type))
    if whole:
        _KINDS[(path, *libraries)] = found
    return found


def _at(path: str, library: Any) -> Any:
    for part in path.split("."):
        library = getattr(library, part, None)
    return library


def imported() -> list[Any]:
    """Keras 3, and tf_keras where anything has imported it."""
    return [library(name) for name in (KERAS, TF_KERAS) if name in sys.modules]


@contextlib.contextmanager
def custom_objects(custom: Mapping[str, Any]) -> Iterator[None]:
    """Within: the libraries find these objects by name."""
    with contextlib.ExitStack() as scopes:
        for found in imported():
            scopes.enter_context(found.saving.custom_object_scope(dict(custom)))
        yield


def set_policy(name: str) -> None:
    """The global dtype policy, in every library that is imported."""
    for found in imported():
        found.mixed_precision.set_global_policy(name)


def is_compiled(model: Any) -> bool:
    return bool(model._is_compiled if of(model) == TF_KERAS else model.compiled)


def spelled(config: Any, born: str) -> Any:
    """A configuration node with Keras's own classes taken from the flavour: `keras.X` becomes `tf_keras.X`.

    So the shipped optimizers and callbacks serve both, and a run of Keras 2 needs no configuration of its own.
    """
    if born == KERAS:
        return config
    if isinstance(config, Mapping):
        return {k: _renamed(v) if k == "_target_" else spelled(v, born) for k, v in config.items()}
    return [spelled(item, born) for item in config] if isinstance(config, list) else config


def _renamed(path: Any) -> Any:
    return f"tf_{path}" if str(path).startswith("keras.") else path


def chosen(wanted: str, state: TrainState | None) -> str:
    """The flavour to continue in: the one that the source was born in; `wanted` where that is unknown, else Keras 3.

    Raises UsageError where another one is asked for: Keras 3 is another training for a source of Keras 2, and what
    differs is for convert to say.
    """
    born = state.flavour if state is not None else None
    if state is None or born is None or wanted in ("auto", born):
        return born or (KERAS if wanted == "auto" else wanted)
    if born == KERAS:
        raise UsageError(f"{state.path}: of Keras 3, and there is no way back to Keras 2: flavour=auto.")
    raise UsageError(
        f"{state.path}: of Keras {state.keras_version or 2}, and flavour=keras asks for Keras 3. Move it first, which "
        f"says what Keras 3 does otherwise, and begin with what was written:\n"
        f"  python -m resume convert {state.path} NAME.keras"
    )
