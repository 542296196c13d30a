"""HDF5 files with weights and no architecture.

Keras 3 (`.weights.h5`):        resume.formats.stores, positions without variable names; mostly with the optimizer
Keras 1 and 2 (save_weights):   resume.formats.groups at the root, names of layers and variables; never an optimizer
What the model is made of is not in either: canonical names are those that the file's own names allow, and `places`
says where each variable lies, for whoever has the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resume import names
from resume.formats import beside, groups, h5, keras2, layers, layouts, stores
from resume.formats.hdf5 import Tree, check_file, opened, starts_with
from resume.formats.stores import Stores
from resume.state import ITERATION, LEARNING_RATE, Arrays, TrainState

NO_MODEL = "this file holds no architecture: give the model that its weights belong to"
_NAMELESS = "the layers and the optimizer's variables have no names in this file: they are numbered"
_NUMBERED = "the optimizer's variables have no names in this file: they are numbered"
_OPTIMIZER, _METRICS = "optimizer", "metrics"


def holds(path: Path) -> bool:
    """Whether `path` is an HDF5 file of a model's weights without the model. Raises SourceError for a damaged one."""
    if not starts_with(path, h5.SIGNATURE):
        return False
    with opened(path) as file:
        root = Tree(file, path)
        return root.attribute("model_config") is None and (_is_grouped(file) or stores.are_in(root))


def read(path: Path) -> TrainState:
    """The state in a weights file; arrays are read when asked for.

    Raises SourceError for a file that is missing or damaged.
    """
    path = Path(path)
    check_file(path, h5.SIGNATURE, kind="an HDF5 file")
    with opened(path) as file:
        root = Tree(file, path)
        return _grouped(root) if _is_grouped(file) else _stored(root)


def _is_grouped(file: Any) -> bool:
    return groups.LAYERS in file.attrs or f"{groups.LAYERS}0" in file.attrs


def _grouped(root: Tree) -> TrainState:
    """Of Keras 1 or 2; up to 1.0 the file did not say which."""
    version = h5.check_version(root.attribute("keras_version"), root.path)
    entries = groups.weights(root)
    labels = keras2.weight_names([entry.weight for entry in entries], model_config=None)
    found = {f"model/{label}": entry for label, entry in zip(labels, entries, strict=True)}
    specs = {name: entry.spec for name, entry in found.items()}

    def load(name: str) -> np.ndarray[Any, Any]:
        with opened(root.path) as again:
            return Tree(again, root.path).array(found[name].address, expected=specs[name])

    return TrainState(
        format="weights_h5",
        path=root.path,
        arrays=Arrays(specs, read=load),
        keras_version=version,
        flavour="tf_keras",
        raw_names={name: entry.path for name, entry in found.items()},
        places={name: entry.place for name, entry in found.items()},
        notes=(NO_MODEL, h5.NO_OPTIMIZER),
    )


def _stored(root: Tree) -> TrainState:
    """Of Keras 3, or of Keras 2.12 and later, which call a file of weights so, too."""
    held = stores.of(root)
    flavour = _flavour(held)
    named = _named(held, flavour)
    addresses = {name: address for name, (address, _) in named.items()}
    h5.check_counters(lambda a: held.array(root, a), addresses, root.path)
    specs = {name: held.spec(address) for name, address in addresses.items()}

    def load(name: str) -> np.ndarray[Any, Any]:
        with opened(root.path) as again:
            return held.array(Tree(again, root.path), addresses[name], expected=specs[name])

    lacking = [_NAMELESS] if not held.names else [_NUMBERED] if ITERATION in named else []
    return TrainState(
        format="weights_h5",
        path=root.path,
        arrays=Arrays(specs, read=load),
        flavour=flavour,
        raw_names=addresses,
        places={name: place for name, (_, place) in named.items()},
        # Keras 2 keeps the rate in the settings, which this file does not have.
        unheld=(LEARNING_RATE,) if flavour == "tf_keras" and ITERATION in named else (),
        notes=(NO_MODEL, *lacking, *(() if ITERATION in named else (h5.NO_OPTIMIZER,))),
    )


def _flavour(held: Stores) -> str | None:
    """Keras 2 stores the accumulators of metrics, too; Keras 3 the layers' names (from 3.6), and a learning rate."""
    tops = {address.split("/")[0] for address in held.sizes}
    if _METRICS in tops or layers.DEPENDENCIES in tops:
        return "tf_keras"
    return "keras" if held.names or _OPTIMIZER in tops else None


def _named(held: Stores, flavour: str | None) -> dict[str, tuple[str, str]]:
    """Canonical name -> address, and position as Keras's own walk over a live model gives it."""
    old = flavour == "tf_keras"
    regular = layers.regular(held.sizes)
    owners = held.of_model(old=old)
    named = held.named_of_model(old=old)
    weights: list[tuple[str, int | str]] = [
        (address, key)
        for address, size in owners.items()
        for key in (*range(size), *(named.get(address, ()) if not beside.is_copy(address) else ()))
    ]
    labels = _labels(held, weights)
    out = {}
    for label, (address, n) in zip(labels, weights, strict=True):
        parts = [part for part in (address, "vars", str(n)) if part]
        place = [part for part in (regular[address], "vars", str(n)) if part]
        out[f"model/{label}"] = "/".join(parts), "/".join(place)
    if _OPTIMIZER in held.sizes:
        scalars = any(held.spec(address).shape == () for address, _ in out.values())
        out |= {name: (address, address) for name, address in _slots(held, old=old, scalars=scalars)}
    return out


def _slots(held: Stores, *, old: bool, scalars: bool) -> Iterator[tuple[str, str]]:
    """The counter comes first; in Keras 3 a LossScaleOptimizer's own variables before it, the learning rate after it.

    A schedule has no such variable. `scalars`: the model has weights without a shape, and so has slots without one.
    """
    places = held.variables(_OPTIMIZER)
    around = layouts.LOSS_SCALE if not old and f"{_OPTIMIZER}/inner_optimizer" in held.sizes else ()
    known = [*(f"optimizer/loss_scale/{name}" for name in around), ITERATION]
    rate = places[len(known) : len(known) + 1]
    if not old and not scalars and rate and held.spec(rate[0]).shape == ():
        known.append(LEARNING_RATE)
    return zip([*known, *places[len(known) :]], places, strict=False)


# ---- what the names of layers tell ----


def _labels(held: Stores, weights: Sequence[tuple[str, int | str]]) -> list[str]:
    """Names without `model/`: by the names of all layers on the way, where the file has them; else the address."""
    automatic = {name for owner, name in held.names.items() if _is_automatic(owner, name)}
    paths = [f"{_path(held, owner)}/{_variable(held, owner, n)}".lstrip("/") for owner, n in weights]
    return names.Scheme(held.names.get(""), frozenset(automatic)).canonical(paths)


def _path(held: Stores, owner: str) -> str:
    parts = owner.split("/")
    above = ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]
    known = [held.names.get(address) for address in above if address in held.sizes]
    return "/".join(name for name in known if name) if all(known) else owner


def _variable(held: Stores, owner: str, n: int | str) -> str:
    if isinstance(n, str):
        return n
    kind = _kind(held, owner) if owner in held.names else ""
    expected = layers.variables_of_size(kind, held.sizes[owner])
    return expected[n] if expected else f"vars/{n}"


def _kind(held: Stores, owner: str) -> str:
    """The class of a layer: members of lists are addressed by it, other layers tell it by an automatic name."""
    above, _, last = owner.rpartition("/")
    if last.endswith("_dense") and above in held.names and _kind(held, above) == "MultiHeadAttention":
        return "EinsumDense"
    return layers.class_named(last) or layers.class_named(held.names.get(owner, ""))


def _is_automatic(owner: str, name: str) -> bool:
    base, _ = names.split_number(name)
    last = owner.rpartition("/")[2]
    if last in ("forward_layer", "backward_layer"):  # Bidirectional calls its copies `forward_lstm_3`
        name = name.removeprefix("forward_").removeprefix("backward_")
    return base == names.split_number(last)[0] or bool(layers.class_named(name))
