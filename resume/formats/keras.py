"""`.keras` archives: a zip of config.json, metadata.json and model.weights.h5, of Keras 3 and of Keras 2.12 to 2.15.

The weights file is resume.formats.stores': positions, no names. The addresses are exact; the canonical names are
derived from the config and from the tables in resume.formats.layers, layouts and keras2_optimizers. Keras 2 puts the
state of legacy optimizers into no archive, and of a LossScaleOptimizer the inner one's, twice.

Opening executes nothing; the archive's checksums are verified first.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resume import names
from resume.errors import SourceError
from resume.formats import beside, h5, keras2, layers, layouts, stores
from resume.formats.archive import CONFIG, METADATA, WEIGHTS, Source
from resume.formats.beside import Beside
from resume.formats.hdf5 import Tree, check_file, damage, starts_with
from resume.formats.layers import Stored
from resume.formats.stores import Stores
from resume.state import ITERATION, LEARNING_RATE, Arrays, OptimizerInfo, Spec, TrainState

_SIGNATURE = b"PK\x03\x04"
_NUMBERED = "which variable each slot belongs to could not be derived: the slots are numbered"
_NO_SETTINGS = "the optimizer's settings are missing (Keras drops them once it has saved the model as .h5)"
_NO_RATE = (
    "the optimizer's settings are its name alone in this file: what its learning rate was is not there, and it starts "
    "with the rate that is its class's own"
)
_WRAPPED = "the optimizer is wrapped in a LossScaleOptimizer, which the file's settings leave out"
_OPTIMIZER, _INNER = "optimizer", "optimizer/inner_optimizer"


def holds(path: Path) -> bool:
    """Whether `path` is a zip archive that is called .keras or has a Keras config inside; or such a one, unzipped."""
    if path.is_dir():
        return (path / CONFIG).is_file() and (path / METADATA).is_file()
    if not starts_with(path, _SIGNATURE):
        return False
    if path.suffix == ".keras":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return {CONFIG, METADATA} <= set(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def read(path: Path) -> TrainState:
    """The training state in a `.keras` archive; arrays are read when asked for.

    Raises SourceError for an archive that is missing, damaged, of a Keras to come, or with pickled weights (.npz).
    """
    path = Path(path)
    if not path.is_dir():
        check_file(path, _SIGNATURE, kind="a .keras archive (zip)")
    source = Source.of(path)
    metadata, config = source.json(METADATA), source.json(CONFIG)
    version = h5.check_version(_text(metadata.get("keras_version")), path)
    compiled = config.pop("compile_config", None)
    compiled = compiled if isinstance(compiled, dict) else None
    old = h5.is_old(version)
    with source.weights() as file:
        tree = Tree(file, path)
        held = stores.of(tree)
        info = keras2.optimizer_info((compiled or {}).get("optimizer"), keras_version=version)
        if old and info is not None and info.inner is info and _INNER in held.sizes:
            info = _wrapped(info)
        config, more = beside.of(config, source, held, tree, old=old, twice=_minor(version) < (2, 14))
        found = _found(config, held, more, info=info, version=version, path=path)
        h5.check_counters(lambda a: held.array(tree, a), found.addresses, path)
        specs = {name: held.spec(address) for name, address in found.addresses.items()}
        unbuilt = h5.is_unbuilt(specs, lambda name: held.array(tree, found.addresses[name]), info)
    made = (h5.configured(info, specs) if old else {}) | more.texts
    specs |= {name: Spec(array.dtype.name, array.shape) for name, array in made.items()}

    def load(name: str) -> np.ndarray[Any, Any]:
        if name in made:
            return made[name]
        with source.weights() as again:
            return held.array(Tree(again, path), found.addresses[name], expected=specs[name])

    return TrainState(
        format="keras",
        path=path,
        arrays=Arrays(specs, read=load),
        model_config=config,
        compile_config=compiled,
        optimizer=info,
        keras_version=version,
        flavour="tf_keras" if old else "keras",
        raw_names=found.addresses | dict.fromkeys(made, h5.FROM_CONFIG) | more.raw_names,
        places=found.places,
        unheld=(_OPTIMIZER,) if unbuilt else _unheld(info, specs) if old else (),
        notes=(*found.notes, *more.notes, *([h5.UNBUILT] if unbuilt else [])),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _wrapped(info: OptimizerInfo) -> OptimizerInfo:
    """Keras 2 describes the inner optimizer alone."""
    inner = {"class_name": info.class_name, "config": dict(info.config)}
    return OptimizerInfo("LossScaleOptimizer", {"inner_optimizer": inner}, info.legacy)


def _unheld(info: OptimizerInfo | None, specs: Mapping[str, Spec]) -> tuple[str, ...]:
    """What Keras 2 leaves out; with the rate, where the settings are a name alone: the class's own is taken then."""
    known = info is None or bool(info.inner.config) or ITERATION not in specs or LEARNING_RATE in specs
    return (*h5.unheld(info, specs), *(() if known else (LEARNING_RATE,)))


@dataclass(frozen=True)
class _Found:
    """Canonical name -> address, and -> position as Keras's own walk over a live model gives it."""

    addresses: dict[str, str]
    places: dict[str, str]
    notes: tuple[str, ...]


def _found(
    config: dict[str, Any],
    held: Stores,
    more: Beside,
    *,
    info: OptimizerInfo | None,
    version: str | None,
    path: Path,
) -> _Found:
    old = h5.is_old(version)
    ours = keras2.as_keras3(config) if old else config
    sizes = {a: size for a, size in held.of_model(old=old).items() if a not in more.left}
    with damage(path, CONFIG):
        stored, unknown = layers.variables(ours, sizes, twice=_minor(version) < (2, 14), every=not old)
        stored += [Stored(address, address, label, False) for label, address in more.weights]
        stored += [Stored(address, address, address, True, loose=True) for address in more.others]
        unknown += [address.rpartition("/vars/")[0] for address in more.others]
        labels = names.Scheme.of(ours).canonical([v.path for v in stored])
    notes = _nameless(unknown)
    addresses = {f"model/{label}": v.address for label, v in zip(labels, stored, strict=True)}
    places = {f"model/{label}": v.place for label, v in zip(labels, stored, strict=True)}
    if _OPTIMIZER not in held.sizes:
        if info is not None and not (old and info.legacy):
            raise SourceError(
                f"{path}: the optimizer's variables are missing from {WEIGHTS}; the file is damaged."
            )
        return _Found(addresses, places, (*notes, h5.NO_OPTIMIZER))
    named = list(zip(labels, stored, strict=True))
    trains = bool((ours.get("config") or {}).get("trainable", True))
    ways = {
        tuple(found)
        for flags in layers.trained(stored)
        for found in [_ordered(held, named, [flag and trains for flag in flags], info=info, version=version)]
        if found is not None
    }
    slots, note = _numbered(held, info, version, ways.pop() if len(ways) == 1 else None)
    if ITERATION not in slots:
        raise SourceError(f"{path}: the optimizer has no iteration count in {WEIGHTS}; the file is damaged.")
    return _Found(addresses | slots, places | slots, (*notes, *note))


def _nameless(unknown: list[str]) -> list[str]:
    if not unknown:
        return []
    more = f" and of {len(unknown) - 1} more layers" if unknown[1:] else ""
    return [f"the variables of {unknown[0]}{more} have no names in this file: they are numbered"]


# ---- the optimizer ----


def _ordered(
    held: Stores,
    model: list[tuple[str, Stored]],
    trained: list[bool],
    *,
    info: OptimizerInfo | None,
    version: str | None,
) -> list[str] | None:
    """Names of all the optimizer's variables but a LossScaleOptimizer's own; None where they cannot be derived."""
    if info is None:
        return None
    places = held.variables(_OPTIMIZER)[_around(held, version) :]
    shapes = [held.spec(v.address).shape for _, v in model]
    if h5.is_old(version):
        variables = [keras2.Weight(place, held.spec(place).shape) for place in places]
        mine = [
            keras2.Owner(label, v.path, shape, flag)
            for (label, v), shape, flag in zip(model, shapes, trained, strict=True)
        ]
        labels, notes = keras2.optimizer_names(info, variables, mine)
        return None if notes else labels
    owners = [
        layouts.Owner(label, v.path, shape)
        for (label, v), shape, flag in zip(model, shapes, trained, strict=True)
        if flag
    ]
    wanted = [held.spec(place).shape for place in places]
    return layouts.optimizer_names(info.inner, owners, wanted, keras_version=_minor(version))


def _around(held: Stores, version: str | None) -> int:
    """How many variables a LossScaleOptimizer has before those of the one inside it; Keras 2 leaves them out."""
    return len(layouts.LOSS_SCALE) if _INNER in held.sizes and not h5.is_old(version) else 0


def _numbered(
    held: Stores, info: OptimizerInfo | None, version: str | None, ordered: tuple[str, ...] | None
) -> tuple[dict[str, str], list[str]]:
    """Canonical name -> address, and what had to be assumed. Without an order, all but the first are numbered."""
    places, around = held.variables(_OPTIMIZER), _around(held, version)
    notes = [] if info is not None or h5.is_old(version) else [_NO_SETTINGS]
    if h5.is_old(version) and info is not None and not info.inner.config:
        notes.append(_NO_RATE)
    if around and info is not None and info.inner is info:
        notes.append(_WRAPPED)
    if ordered is None:
        inner = info.inner if info else OptimizerInfo("", {"learning_rate": {}})
        known = [ITERATION] if h5.is_old(version) else [name for name, _ in layouts.scalars(inner)]
        ordered = (*known, *places[around + len(known) :])
        notes += [_NUMBERED] if len(places) > around + len(known) else []
    own = [f"optimizer/loss_scale/{name}" for name in layouts.LOSS_SCALE[:around]]
    return dict(zip([*own, *ordered], places, strict=False)), notes


def _minor(version: str | None) -> tuple[int, int]:
    major, minor, *_ = (*(version or "3").split("."), "0")
    return int(major), int(minor) if minor.isdigit() else 0
