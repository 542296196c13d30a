"""Whole-model `.h5` files of Keras 3, written from arrays; and how any target comes to be, whole or not at all.

The layout is that of keras.src.legacy.saving.legacy_h5_format.save_model_to_hdf5, told in resume.formats.h5. Keras's
own writer takes the optimizer out of the live model's compile settings, which spoils every later save of that model;
nothing is taken out of anything here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resume.errors import UsageError
from resume.formats.native import sync_directory

Named = tuple[str, np.ndarray[Any, Any]]  # a variable's path, its value

_LIMIT = 64512  # bytes of an attribute, legacy_h5_format.HDF5_OBJECT_HEADER_LIMIT


@dataclass(frozen=True)
class WholeModel:
    """What such a file holds. `layers`: name -> its variables, trained ones first; `top`: the model's own."""

    keras_version: str
    backend: str
    model_config: Mapping[str, Any]
    training_config: Mapping[str, Any] | None
    layers: Sequence[tuple[str, Sequence[Named]]]
    top: Sequence[Named] = ()
    optimizer: Sequence[Named] = ()


def write_h5(path: Path, whole: WholeModel) -> None:
    """Write a new file, synced. Raises UsageError for variables that the format cannot tell apart."""
    import h5py

    with h5py.File(path, "x") as file:
        file.attrs["keras_version"] = whole.keras_version
        file.attrs["backend"] = whole.backend
        file.attrs["model_config"] = _json(whole.model_config)
        if whole.training_config is not None:
            file.attrs["training_config"] = _json(whole.training_config)
        group = file.create_group("model_weights")
        _name_list(group, "layer_names", [name for name, _ in whole.layers])
        group.attrs["backend"] = whole.backend.encode()
        group.attrs["keras_version"] = whole.keras_version.encode()
        for name, variables in sorted(whole.layers, key=lambda item: item[0]):
            _variables(group.create_group(name), variables)
        _variables(group.create_group("top_level_model_weights"), whole.top)
        if whole.optimizer:
            _variables(file.create_group("optimizer_weights"), whole.optimizer)
    _sync(path)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays in a config, as keras.src.legacy.saving.json_utils writes them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in a config cannot be written to an .h5 file")


def _variables(group: Any, variables: Sequence[Named]) -> None:
    names = [name for name, _ in variables]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{twice[0]}: two variables are called this, which an .h5 file cannot tell apart"
            f"{' (so it is with Adafactor)' if group.name == '/optimizer_weights' else ''}: write a .keras file."
        )
    _name_list(group, "weight_names", names)
    for name, value in variables:
        group.create_dataset(name, data=value)


def _name_list(group: Any, attribute: str, names: Sequence[str]) -> None:
    """A list that is too long for one attribute is cut into parts, numbered."""
    encoded = np.asarray([name.encode() for name in names])
    longest = max(names, key=len, default="")
    if len(longest.encode()) > _LIMIT:
        raise UsageError(f"{longest[:40]}...: a name of {len(longest)} letters, which no .h5 file can hold.")
    parts = 1
    while any(part.nbytes > _LIMIT for part in np.array_split(encoded, parts)):
        parts += 1
    if parts == 1:
        group.attrs[attribute] = [name.encode() for name in names]
        return
    for number, part in enumerate(np.array_split(encoded, parts)):
        group.attrs[f"{attribute}{number}"] = part


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# ---- whole or not at all ----


@contextlib.contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A name beside the target to write under; whatever is there when an exception leaves the block is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = target.with_name(f".unfinished-{uuid.uuid4().hex}{target.suffix}")
    try:
        yield begun
    finally:
        _remove([begun])


def publish(begun: Path, target: Path, *, overwrite: bool) -> None:
    """Give a finished file or directory its name. Raises UsageError where the name is taken."""
    _sync_tree(begun)
    aside = target.with_name(f".replaced-{uuid.uuid4().hex}{target.suffix}")
    if overwrite and os.path.lexists(target):
        if begun.is_file() and target.is_file():
            begun.replace(target)
            sync_directory(target.parent)
            return
        target.rename(aside)
    try:
        _take_name(begun, target)
    except OSError as error:
        taken = os.path.lexists(target)
        if os.path.lexists(aside) and not taken:
            aside.rename(target)
        if taken:
            raise UsageError(f"{target}: exists. Name another, or say --force.") from error
        raise
    sync_directory(target.parent)
    _remove([aside])


def _take_name(begun: Path, target: Path) -> None:
    """Without taking it from another that came to be meanwhile: a hard link does not replace.

    A directory replaces an empty one (rename(2)), so that is looked for first; one with something in it it never does.
    """
    if begun.is_dir():
        if os.path.lexists(target):
            raise FileExistsError(target)
        begun.rename(target)
        return
    try:
        os.link(begun, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        begun.rename(target)


def _sync_tree(path: Path) -> None:
    if path.is_file():
        _sync(path)
        return
    for folder, _, files in os.walk(path):
        for name in files:
            _sync(Path(folder) / name)
        sync_directory(Path(folder))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
