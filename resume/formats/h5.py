"""Whole-model `.h5` files of Keras 3, with their checks that the `.keras` reader shares.

Layout (keras.src.legacy.saving.legacy_h5_format.save_model_to_hdf5):
    attributes keras_version, model_config, training_config (JSON; the last holds optimizer_config)
    model_weights/           attribute layer_names
        <layer>/             attribute weight_names: variable paths, each a dataset below the layer's group
        top_level_model_weights/
    optimizer_weights/       attribute weight_names: optimizer variable paths, each a dataset
Up to Keras 3.2 a weight's name is the last part of its path only (`kernel`): the layer's name is put before it here.
Name lists too long for one attribute are cut into weight_names0, weight_names1, ...

Opening executes nothing and follows no link out of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resume import names
from resume.errors import SourceError
from resume.formats import layouts
from resume.formats.hdf5 import Tree, check_file, opened, starts_with, strict_json
from resume.state import ITERATION, Arrays, OptimizerInfo, Spec, TrainState

NO_OPTIMIZER = "this file was saved without its optimizer"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WRITE_WHOLE = "Save the whole model with model.save('NAME.keras') instead."
_COUNTER_LIMIT = 2**53


def holds(path: Path) -> bool:
    """Whether `path` is a file with the HDF5 signature, whatever its name."""
    return starts_with(path, _SIGNATURE)


def read(path: Path) -> TrainState:
    """The training state in a whole-model `.h5` file of Keras 3; arrays are read when asked for.

    Raises SourceError for a file that is missing, damaged, weights only, or of an earlier Keras.
    """
    path = Path(path)
    check_file(path, _SIGNATURE, kind="an HDF5 file")
    with opened(path) as file:
        version = _version(file, path)
        model_config = _json_attribute(file, "model_config", path)
        training = _json_attribute(file, "training_config", path) if "training_config" in file.attrs else None
        weights = _weights(Tree(file, path).group("model_weights"))
        found, notes = _names(Tree(file, path), weights, model_config=model_config, training=training)
        specs = {name: entry.spec for name, entry in found.items()}
        for name in filter(is_counter, found):
            check_counter(Tree(file, path).array(found[name].address), f"{path}: {found[name].address}")

    def load(name: str) -> np.ndarray[Any, Any]:
        with opened(path) as again:
            return Tree(again, path).array(found[name].address, expected=specs[name])

    return TrainState(
        format="h5",
        path=path,
        arrays=Arrays(specs, read=load),
        model_config=model_config,
        compile_config=training,
        optimizer=optimizer_info((training or {}).get("optimizer_config")),
        keras_version=version,
        raw_names={name: entry.path for name, entry in found.items()},
        notes=notes,
    )


@dataclass(frozen=True)
class Entry:
    """A dataset: the variable path that it stands for, its address in the file, what it holds."""

    path: str
    address: str
    spec: Spec


def is_counter(name: str) -> bool:
    return name.startswith("optimizer/") and name.endswith("/iteration") and name.count("/") <= 3


def check_counter(value: np.ndarray[Any, Any], where: str) -> None:
    """Raise SourceError unless `value` is an iteration count: one finite whole number, 0 to 2**53."""
    try:
        number = float(value) if value.dtype.kind in "iuf" and value.shape == () else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not (0 <= number <= _COUNTER_LIMIT and number == int(number)):
        raise SourceError(
            f"{where}, the iteration count, is {value!s:.40} ({value.dtype}{list(value.shape)}):"
            " not a number of steps.\n"
            "The file is damaged; resume from an earlier checkpoint."
        )


def optimizer_info(serialised: object) -> OptimizerInfo | None:
    """The optimizer in a compile config: Keras's serialised object, or the short name given to compile()."""
    if isinstance(serialised, str):
        return OptimizerInfo(layouts.optimizer_class(serialised), {})
    if not isinstance(serialised, Mapping) or "class_name" not in serialised:
        return None
    config = serialised.get("config")
    return OptimizerInfo(str(serialised["class_name"]), config if isinstance(config, Mapping) else {})


def check_version(version: str | None, path: Path) -> str:
    """Raise SourceError unless a file was written by Keras 3."""
    if version is None or not version.startswith("3."):
        raise SourceError(
            f"{path}: written by Keras {version or '1 or 2 (it does not say)'}; only files of Keras 3 can be read.\n"
            "Load it where it was written, and save it again from Keras 3: model.save('NAME.keras')."
        )
    return version


def _version(file: Any, path: Path) -> str:
    root = Tree(file, path)
    if root.attribute("model_config") is None:
        inside = set(root.children())
        weights_only = (
            inside & {"layers", "vars", "_layer_checkpoint_dependencies"} or "layer_names" in file.attrs
        )
        what = (
            "holds weights only, no architecture"
            if weights_only
            else "has no model_config: not a Keras model"
        )
        raise SourceError(f"{path}: this file {what}. {_WRITE_WHOLE}")
    return check_version(root.attribute("keras_version"), path)


def _json_attribute(file: Any, name: str, path: Path) -> dict[str, Any]:
    return strict_json(Tree(file, path).attribute(name) or "", path, name)


def _weights(group: Tree) -> list[Entry]:
    """The model's variables in the order of its layers, each once."""
    groups, top = group.children(), "top_level_model_weights"
    layers = [*group.names("layer_names"), *([top] if top in groups else [])]
    if sorted(layers) != sorted(groups):
        raise SourceError(
            f"{group.path}: layer_names and the groups of {group.address} differ; the file is damaged."
        )
    entries: dict[str, list[Entry]] = {}
    for layer in layers:
        inside = group.group(layer)
        entries[layer] = [
            Entry(p, f"{inside.address}/{p}", inside.spec(p)) for p in inside.names("weight_names")
        ]
    if not any("/" in entry.path for found in entries.values() for entry in found):
        entries = {
            layer: [replace(e, path=f"{layer}/{e.path}") for e in found] for layer, found in entries.items()
        }
    return _each_once(group, entries)


def _each_once(group: Tree, entries: Mapping[str, Sequence[Entry]]) -> list[Entry]:
    """A shared layer is stored with each model that has it; namesakes that differ are variables of their own."""
    kept: dict[str, list[Sequence[Entry]]] = {}
    for found in entries.values():
        parents: dict[str, list[Entry]] = {}
        for entry in found:
            parents.setdefault(entry.path.rpartition("/")[0], []).append(entry)
        for parent, variables in parents.items():
            if not any(_same(group, variables, earlier) for earlier in kept.get(parent, [])):
                kept.setdefault(parent, []).append(variables)
    wanted = {entry.address for copies in kept.values() for variables in copies for entry in variables}
    return [entry for found in entries.values() for entry in found if entry.address in wanted]


def _same(group: Tree, ours: Sequence[Entry], theirs: Sequence[Entry]) -> bool:
    if [(e.path, e.spec) for e in ours] != [(e.path, e.spec) for e in theirs]:
        return False
    root = Tree(group.group_.file, group.path)
    return all(
        root.array(a.address).tobytes() == root.array(b.address).tobytes()
        for a, b in zip(ours, theirs, strict=True)
    )


def _names(
    file: Tree,
    weights: Sequence[Entry],
    *,
    model_config: Mapping[str, Any],
    training: Mapping[str, Any] | None,
) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """Canonical name -> dataset, and what had to be assumed."""
    paths = [entry.path for entry in weights]
    scheme = layouts.scheme(model_config, paths)
    canonical = scheme.canonical(paths)
    found = {f"model/{name}": entry for name, entry in zip(canonical, weights, strict=True)}
    if "optimizer_weights" not in file.children():
        if training is not None:
            raise SourceError(f"{file.path}: optimizer_weights is missing; the file is damaged.")
        return found, (NO_OPTIMIZER,)
    group = file.group("optimizer_weights")
    entries = [Entry(p, f"{group.address}/{p}", group.spec(p)) for p in group.names("weight_names")]
    info = optimizer_info((training or {}).get("optimizer_config"))
    labels = _optimizer_names(entries, weights, canonical, root=scheme.root, info=info, path=file.path)
    found |= dict(zip(names.unique(labels), entries, strict=True))
    if ITERATION not in found:
        raise SourceError(f"{file.path}: optimizer_weights has no iteration count; the file is damaged.")
    notes = () if info else ("the optimizer's arrays are in this file, its settings are not",)
    loose = [
        e.path for name, e in found.items() if name.count("/") == 1 and name[:6] != "model/" and e.spec.shape
    ]
    return found, (
        *notes,
        *(f"{path} belongs to no variable that could be told by its name" for path in loose),
    )


def _optimizer_names(
    entries: Sequence[Entry],
    weights: Sequence[Entry],
    canonical: Sequence[str],
    *,
    root: str | None,
    info: OptimizerInfo | None,
    path: Path,
) -> list[str]:
    paths = [entry.path for entry in entries]
    owners = names.slots(paths, [entry.path for entry in weights])
    rooted = names.slots(paths, [f"{root}/{entry.path}" for entry in weights])  # up to Keras 3.2, see above
    flat = Counter(entry.path.replace("/", "_") for entry in weights)
    scalars = layouts.scalar_names(paths, info)
    labels = []
    for entry, near, far, scalar in zip(entries, owners, rooted, scalars, strict=True):
        slot = near or far
        if slot is None or entry.path.rpartition("/")[2] in layouts.SCALARS:
            labels.append(scalar)
            continue
        owner = weights[slot.variable]
        if flat[owner.path.replace("/", "_")] > 1:
            raise SourceError(
                f"{path}: {entry.path} could belong to more than one variable called {owner.path}.\n"
                "Give the layers different names, or save as .keras, which keeps them apart."
            )
        if entry.spec.shape != owner.spec.shape:
            raise SourceError(
                f"{path}: the {slot.role} of {owner.path} has another shape than the variable:"
                f" {list(owner.spec.shape)} -> {list(entry.spec.shape)}."
            )
        labels.append(f"optimizer/{slot.role}/{canonical[slot.variable]}")
    return labels
