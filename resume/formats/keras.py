"""`.keras` archives of Keras 3: a zip of config.json, metadata.json and model.weights.h5.

The weights file keeps positions and no names (keras.src.saving.saving_lib):
    layers/<class in snake case, counted>/vars/<n>      a layer's variables
    optimizer/vars/<n>                                  the optimizer's, as in `optimizer.variables`
Files of Keras 3.6 and later also carry each layer's own name, as attribute `name` of its `vars`. The addresses are
exact; the canonical names are derived from the config and from the tables in resume.formats.layouts.

Opening executes nothing; the archive's checksums are verified first.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resume import names
from resume.errors import SourceError
from resume.formats import h5, layouts
from resume.formats.archive import CONFIG, METADATA, WEIGHTS, Source
from resume.formats.hdf5 import Tree, check_file, damage, starts_with
from resume.state import ITERATION, Arrays, OptimizerInfo, Spec, TrainState

_SIGNATURE = b"PK\x03\x04"
_NUMBERED = "which variable each slot belongs to could not be derived: the slots are numbered"
_UNBUILT = "the optimizer has no slots in this file: it had not made a step"
_DEPTH_LIMIT = 64  # groups inside groups


def holds(path: Path) -> bool:
    """Whether `path` is a zip archive that is called .keras or has a Keras config inside."""
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
    """The training state in a `.keras` archive of Keras 3; arrays are read when asked for.

    Raises SourceError for an archive that is missing, damaged, of an earlier Keras, or with pickled weights (.npz).
    """
    path = Path(path)
    check_file(path, _SIGNATURE, kind="a .keras archive (zip)")
    source = Source.of(path)
    metadata, config = source.json(METADATA), source.json(CONFIG)
    version = h5.check_version(_text(metadata.get("keras_version")), path)
    compile_config = config.pop("compile_config", None)
    compile_config = compile_config if isinstance(compile_config, dict) else None
    with source.weights() as file:
        tree = Tree(file, path)
        layers = dict(_stores(tree))
        info = h5.optimizer_info((compile_config or {}).get("optimizer"))
        raw, notes = _names(config, layers, info=info, version=version, path=path)
        specs = {
            name: layers[address.rpartition("/vars/")[0]].specs[address] for name, address in raw.items()
        }
        for name in filter(h5.is_counter, raw):
            h5.check_counter(tree.array(raw[name]), f"{path}: {raw[name]}")

    def load(name: str) -> np.ndarray[Any, Any]:
        with source.weights() as again:
            return Tree(again, path).array(raw[name], expected=specs[name])

    return TrainState(
        format="keras",
        path=path,
        arrays=Arrays(specs, read=load),
        model_config=config,
        compile_config=compile_config,
        optimizer=info,
        keras_version=version,
        raw_names=raw,
        notes=notes,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(frozen=True)
class _Store:
    """What one layer or optimizer stores: its own name where the file has it, and its arrays by address."""

    name: str | None
    specs: Mapping[str, Spec]


def _stores(tree: Tree, address: str = "", depth: int = 0) -> Iterator[tuple[str, _Store]]:
    """(address of a layer or optimizer, what it stores), for every one with a group `vars`."""
    if depth > _DEPTH_LIMIT:
        raise SourceError(f"{tree.path}: {address:.80} lies too deep: not a file of Keras.")
    children = tree.children()
    if "vars" in children:
        held = tree.group("vars")
        numbered = sorted(held.children(), key=lambda n: (len(n), n))
        if numbered != [str(n) for n in range(len(numbered))]:
            raise SourceError(f"{tree.path}: {held.address} holds {numbered[:9]}, which is not 0, 1, 2, ...")
        prefix = f"{address}/vars" if address else "vars"
        yield address, _Store(held.attribute("name"), {f"{prefix}/{n}": held.spec(n) for n in numbered})
    for child in children:
        if child != "vars" and tree.is_group(child):
            yield from _stores(tree.group(child), f"{address}/{child}" if address else child, depth + 1)


def _names(
    config: Mapping[str, Any],
    stores: Mapping[str, _Store],
    *,
    info: OptimizerInfo | None,
    version: str,
    path: Path,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Canonical name -> address, and what had to be assumed."""
    sizes = {a: len(s.specs) for a, s in stores.items()}
    with damage(path, CONFIG):
        stored, unknown = layouts.variables(config, sizes)
        labels = names.Scheme.of(config).canonical([v.path for v in stored])
    notes = [f"the variables of {layer} have no names in this file: they are numbered" for layer in unknown]
    raw = {f"model/{label}": v.address for label, v in zip(labels, stored, strict=True)}
    if "optimizer" not in stores:
        if info is not None:
            raise SourceError(
                f"{path}: the optimizer's variables are missing from {WEIGHTS}; the file is damaged."
            )
        return raw, (*notes, h5.NO_OPTIMIZER)
    trained = config.get("config", {}).get("trainable", True)
    root = config.get("config", {}).get("name")
    owners = [
        layouts.Owner(label, f"{root}/{v.path}", _spec(stores, v.address).shape)
        for label, v in zip(labels, stored, strict=True)
        if v.trainable and trained
    ]
    found, note = _optimizer(stores, info, owners, version=version)
    if ITERATION not in found:
        raise SourceError(f"{path}: the optimizer has no iteration count in {WEIGHTS}; the file is damaged.")
    return raw | found, (*notes, *note)


def _spec(stores: Mapping[str, _Store], address: str) -> Spec:
    return stores[address.rpartition("/vars/")[0]].specs[address]


def _optimizer(
    stores: Mapping[str, _Store], info: OptimizerInfo | None, owners: list[layouts.Owner], *, version: str
) -> tuple[dict[str, str], list[str]]:
    """The optimizer's variables: scalars by name, slots by name where the whole order can be derived."""
    addresses = list(stores["optimizer"].specs)
    shapes = [spec.shape for spec in stores["optimizer"].specs.values()]
    notes, start = [], 0
    if info is None:
        notes.append(
            "the optimizer's settings are missing (Keras drops them once it has saved the model as .h5)"
        )
    wrapped = "optimizer/inner_optimizer" in stores
    if wrapped:
        start = len(layouts.LOSS_SCALE)
        if info is not None and info.inner is info:
            notes.append(
                "the optimizer is wrapped in a LossScaleOptimizer, which the file's settings leave out"
            )
    inner = info.inner if info else OptimizerInfo("", {"learning_rate": {}})
    labels = layouts.optimizer_names(inner, owners, shapes[start:], keras_version=_minor(version))
    if labels is None:
        known = [name for name, _ in layouts.scalars(inner)]
        labels = known + [f"optimizer/vars/{n}" for n in range(start + len(known), len(addresses))]
        notes.append(_NUMBERED if len(labels) > len(known) else _UNBUILT)
    own = [f"optimizer/loss_scale/{name}" for name in layouts.LOSS_SCALE[:start]]
    return dict(zip(own + labels, addresses, strict=False)), notes


def _minor(version: str) -> tuple[int, int]:
    major, minor, *_ = (*version.split("."), "0")
    return int(major), int(minor) if minor.isdigit() else 0
