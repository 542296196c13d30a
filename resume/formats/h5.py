"""Whole-model `.h5` files of every Keras, with the checks that other readers share.

Layout (keras.src.legacy.saving.legacy_h5_format, tf_keras.src.saving.legacy.hdf5_format):
    attributes keras_version, model_config, training_config (JSON; the last holds optimizer_config)
    model_weights/           as in resume.formats.groups
    optimizer_weights/       attribute weight_names: the optimizer's variables, each a dataset
Names are told by resume.formats.paths (Keras 3) and resume.formats.keras2 (before).

Opening executes nothing and follows no link out of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resume import names
from resume.errors import SourceError
from resume.formats import adapted, groups, keras2, keras2_frozen, layouts, paths
from resume.formats.groups import Entry
from resume.formats.hdf5 import Tree, check_file, opened, starts_with, strict_json
from resume.state import ITERATION, LEARNING_RATE, Arrays, OptimizerInfo, Spec, TrainState

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NO_OPTIMIZER = "this file was saved without its optimizer"
UNBUILT = "the optimizer has no slots in this file: it had not made a step"
UNTRAINED = (
    "the optimizer has no variables in this file: Keras 2 writes none before the first step. If this model had been "
    "trained, the file is not whole"
)
NO_SETTINGS = "the optimizer's arrays are in this file, its settings are not"
FROM_CONFIG = "(configuration)"  # in the place of a raw name: the config's value, no variable
_COUNTERLESS = ("RMSprop", "Adagrad", "Adadelta")  # of standalone Keras before 2.3
_COUNTER_LIMIT = 2**53


def holds(path: Path) -> bool:
    """Whether `path` is a file with the HDF5 signature, whatever its name; resume.formats.weights is asked first."""
    return starts_with(path, SIGNATURE)


def read(path: Path) -> TrainState:
    """The training state in a whole-model `.h5` file; arrays are read when asked for.

    Raises SourceError for a file that is missing, damaged, weights only, or of a Keras to come.
    """
    path = Path(path)
    check_file(path, SIGNATURE, kind="an HDF5 file")
    with opened(path) as file:
        root = Tree(file, path)
        model_config = _model_config(root)
        version = check_version(root.attribute("keras_version"), path)
        training = _json_attribute(root, "training_config")
        old = is_old(version)
        info = keras2.optimizer_info((training or {}).get("optimizer_config"), keras_version=version)
        found, notes, model_config = (_old if old else _new)(root, model_config, info, version=version)
        specs = {name: entry.spec for name, entry in found.items()}
        check_counters(root.array, {name: entry.address for name, entry in found.items()}, path)
        unbuilt = is_unbuilt(specs, lambda name: root.array(found[name].address), info)
        if UNTRAINED in notes and _is_fresh(root, found):
            unbuilt, notes = True, []
    made = configured(info, found) if old else _weights(model_config)
    specs |= {name: Spec(array.dtype.name, array.shape) for name, array in made.items()}

    def load(name: str) -> np.ndarray[Any, Any]:
        if name in made:
            return made[name]
        with opened(path) as again:
            return Tree(again, path).array(found[name].address, expected=specs[name])

    state = TrainState(
        format="h5",
        path=path,
        arrays=Arrays(specs, read=load),
        model_config=model_config,
        compile_config=training,
        optimizer=info,
        keras_version=version,
        flavour="tf_keras" if old else "keras",
        raw_names={name: entry.path for name, entry in found.items()} | dict.fromkeys(made, FROM_CONFIG),
        places={n: e.place for n, e in found.items() if n.startswith("model/") and e.layer} if old else {},
        unheld=("optimizer",) if unbuilt else unheld(info, found) if old else (),
        notes=(*notes, UNBUILT) if unbuilt else tuple(notes),
    )
    return adapted.without_summaries(state, _summaries(found) if old else {})


def _weights(model_config: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Variables of lookup layers that Keras 3 keeps in the settings alone."""
    found = list(adapted.weights(model_config))
    labels = names.Scheme.of(model_config).canonical([path for path, _ in found])
    return {f"model/{label}": array for label, (_, array) in zip(labels, found, strict=True)}


def _summaries(found: Mapping[str, Entry]) -> dict[str, str]:
    """Names of what Discretization layers of Keras 2 have counted, by the layers' own names."""
    out = {}
    for name, entry in found.items():
        *scope, leaf = entry.path.removesuffix(":0").split("/")
        if leaf == adapted.SUMMARY and name.startswith("model/"):
            out[scope[-1] if scope else entry.layer] = name  # adapt() makes it outside of any scope
    return out


# ---- what other readers share ----


def is_old(version: str | None) -> bool:
    """Whether a Keras before 3 wrote this; those before 1.0.8 did not say."""
    return version is None or not version.startswith("3.")


def check_version(version: str | None, path: Path) -> str | None:
    """Raise SourceError for a file of a Keras that is not known here."""
    if version is not None and version.partition(".")[0] not in ("0", "1", "2", "3"):
        raise SourceError(
            f"{path}: written by Keras {version:.40}; files of Keras 1 to 3 can be read.\n"
            "Install a newer keras-resume, or save it from Keras 3: model.save('NAME.keras')."
        )
    return version


def check_counters(
    read: Callable[[str], np.ndarray[Any, Any]], addresses: Mapping[str, str], path: Path
) -> None:
    """Raise SourceError unless each iteration count is a number of steps. `read`: by address."""
    for name in filter(is_counter, addresses):
        check_counter(read(addresses[name]), f"{path}: {addresses[name]}")


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


def is_unbuilt(
    specs: Mapping[str, Spec],
    read: Callable[[str], np.ndarray[Any, Any]],
    info: OptimizerInfo | None,
) -> bool:
    """Whether an optimizer that works with slots has counted no step and has none: there is nothing to lose."""
    if info is None or ITERATION not in specs or not layouts.roles(info.inner):
        return False
    slots = any(name.startswith("optimizer/") and spec.shape for name, spec in specs.items())
    return not slots and int(read(ITERATION)) == 0


def unheld(info: OptimizerInfo | None, found: Mapping[str, Any]) -> tuple[str, ...]:
    """What Keras 2 leaves out of its HDF5 and `.keras` files where the optimizer's state is in them."""
    if info is None or ITERATION not in found:
        return ()
    scale = ("optimizer/loss_scale",) if info.inner is not info else ()
    product = info.inner.class_name == "Nadam" and "optimizer/u_product" not in found
    return (*scale, "optimizer/u_product") if product else scale


def configured(info: OptimizerInfo | None, found: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The learning rate as a variable, where a format of Keras 2 keeps it in the config alone."""
    rate = keras2.configured_rate(info)
    return {LEARNING_RATE: rate} if rate is not None and LEARNING_RATE not in found else {}


# ---- the file ----


def _model_config(root: Tree) -> Mapping[str, Any]:
    config = _json_attribute(root, "model_config")
    if config is None:
        raise SourceError(f"{root.path}: this file has no model_config: not a Keras model.")
    return config


def _json_attribute(root: Tree, name: str) -> dict[str, Any] | None:
    text = root.attribute(name)
    return strict_json(text, root.path, name) if text is not None else None


def _variables(root: Tree) -> list[Entry] | None:
    if "optimizer_weights" not in root.children():
        return None
    return groups.listed(root.group("optimizer_weights"))


def _new(
    root: Tree, model_config: Mapping[str, Any], info: OptimizerInfo | None, *, version: str | None
) -> tuple[dict[str, Entry], list[str], Mapping[str, Any]]:
    """Canonical name -> dataset; what had to be assumed; the model's config, as completed by what the arrays tell."""
    weights = groups.weights(root.group("model_weights"), prepare=paths.with_layers)
    variables = _variables(root)
    if variables is None and root.attribute("training_config") is not None:
        raise SourceError(f"{root.path}: optimizer_weights is missing; the file is damaged.")
    found, notes = paths.canonical(
        weights, variables or (), model_config=model_config, info=info, path=root.path
    )
    if variables is None:
        return found, [NO_OPTIMIZER], model_config
    if ITERATION not in found:
        raise SourceError(f"{root.path}: optimizer_weights has no iteration count; the file is damaged.")
    return found, notes if info else [NO_SETTINGS, *notes], model_config


def _old(
    root: Tree, model_config: Mapping[str, Any], info: OptimizerInfo | None, *, version: str | None
) -> tuple[dict[str, Entry], list[str], Mapping[str, Any]]:
    """The same of Keras 1 and 2."""
    entries = groups.weights(root.group("model_weights"))
    weights = [entry.weight for entry in entries]
    labels = keras2.weight_names(weights, model_config=model_config)
    found = {f"model/{label}": entry for label, entry in zip(labels, entries, strict=True)}
    variables = _variables(root)
    if variables is None:
        return found, [_without_variables(root, info)], model_config
    trained = keras2.trained(weights, model_config=model_config)

    def owners(frozen: str | None) -> list[keras2.Owner]:
        out = [
            keras2.Owner(
                label, weight.name, weight.shape, flag and (frozen is None or weight.layer != frozen)
            )
            for label, weight, flag in zip(labels, weights, trained, strict=True)
        ]
        if version is not None and _parts(version) < (2, 0, 6):
            out.sort(key=lambda owner: owner.raw)  # so were the optimizer's until Keras 2.0.6, by name
        return out

    held_weights = [entry.weight for entry in variables]
    try:
        held = keras2_frozen.explained(info, held_weights, owners, model_config)
    except ValueError as error:
        raise SourceError(
            f"{root.path}: {error}.\nThe file is damaged; resume from an earlier checkpoint."
        ) from None
    notes = held.notes
    if ITERATION not in held.names:
        notes = [*notes, _without_counter(root, held.names, info, version)]
    if held.frozen is not None:  # Keras 2 lists its variables in another order then
        found = {name: replace(e, layer="") if e.layer == held.frozen else e for name, e in found.items()}
        model_config = keras2_frozen.frozen(model_config, held.frozen)
    found |= dict(zip(held.names, variables, strict=True))
    return found, notes if info else [NO_SETTINGS, *notes], model_config


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _without_variables(root: Tree, info: OptimizerInfo | None) -> str:
    """Legacy optimizers have no variables before their first step, and Keras 2 then writes no group; later ones do."""
    if info is not None and not info.legacy:
        raise SourceError(f"{root.path}: optimizer_weights is missing; the file is damaged.")
    return UNTRAINED if info is not None else NO_OPTIMIZER


def _is_fresh(root: Tree, found: Mapping[str, Entry]) -> bool:
    """Whether all that begins as zero is zero still (an LSTM's forget gate as one): a single step would change it."""
    starts = [n for n in found if n.rpartition("/")[2] in ("bias", "beta", "moving_mean")]
    return bool(starts) and all(bool(np.isin(root.array(found[n].address), (0, 1)).all()) for n in starts)


def _without_counter(
    root: Tree, names: Sequence[str], info: OptimizerInfo | None, version: str | None
) -> str:
    numbered = any(name.startswith("optimizer/vars/") for name in names)
    if numbered and (info is None or info.class_name not in _COUNTERLESS):
        return "which of the optimizer's variables counts its steps could not be derived"
    if info is None or not info.legacy or info.class_name not in _COUNTERLESS:
        raise SourceError(f"{root.path}: optimizer_weights has no iteration count; the file is damaged.")
    return f"Keras {version or '1'} did not save how many steps {info.class_name} had made"
