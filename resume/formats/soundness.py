"""Whether a state that was read can be a training state, as far as the file and its own structure can tell.

`check` looks at names, shapes and configs, costs nothing and is for every read. `demand` reads every array, and is for
whoever is about to use the values (resume.formats.moments knows what optimizers can leave behind).

What only a digest of the original could tell, and this cannot: two weights of one shape exchanged; bits flipped inside
an array of a format without checksums (.h5) that leave a plausible number; a value that the training could have reached
(after many steps, a count of them that is off by one); a config edited into another valid one (an activation); code of
the user's own that has changed under the same name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resume.errors import SourceError
from resume.formats import architecture, h5, layouts, moments, ownership, vocabulary
from resume.formats.moments import Finding
from resume.state import ITERATION, LEARNING_RATE, NUMBERED, OptimizerInfo, TrainState

_DERIVED = "(configuration)"  # a raw name that says: not an array of the file
# Own layers that cannot be without variables once their model has any.
_WEIGHTY = frozenset({
    "Dense", "EinsumDense", "Embedding", "BatchNormalization", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose",
    "Conv2DTranspose", "Conv3DTranspose", "SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D",
    "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "MultiHeadAttention", "CuDNNLSTM", "CuDNNGRU",
})  # fmt: skip
_SIZES = ("units", "filters", "output_dim", "input_dim", "num_heads", "key_dim", "depth_multiplier")
# Of layers whose order of variables Keras has never changed.
_ORDERED = {
    "Dense": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), ("kernel", "bias")),
}
# Roles that a config need not ask for: Keras 2 keeps momenta that are never used, and placeholders.
_OPTIONAL = {"SGD": ("momentum",), "RMSprop": ("momentum", "average_gradient"), "Adam": ("velocity_hat",)}
_NOT_ALWAYS = {"average", "gradient_accumulator", "unused", "hyper"}
_ROLES = ("momentum", "velocity", "velocity_hat")


def check(state: TrainState) -> TrainState:
    """The state itself. Raises SourceError for the first thing in its structure that no training state has."""
    if state.format == "native":
        return state  # has its own digests
    for config in (state.model_config, state.compile_config, _optimizer_config(state)):
        architecture.check(config, state.path)
    for finding in structure(state):
        raise SourceError(
            f"{state.path}: {finding}.\n"
            "The file is damaged or was put together by hand; resume from an earlier checkpoint."
        )
    return state


def demand(state: TrainState, *, accept: Sequence[str] = ()) -> None:
    """Read every array. Raises SourceError unless each value is one that training could have left.

    `accept`: names of arrays, or what they begin with, whose values the user vouches for.
    """
    if state.format == "native":
        return
    found = [f for f in moments.findings(state) if not any(_begins(f.name, item) for item in accept)]
    if found:
        more = f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""
        raise SourceError(
            f"{state.path}: {found[0]}{more}.\n"
            f"The file is damaged; resume from an earlier checkpoint, or vouch for it: accept=[{found[0].name}]."
        )


def _begins(name: str, item: str) -> bool:
    return name == item or name.startswith(f"{item.rstrip('/')}/")


def _optimizer_config(state: TrainState) -> dict[str, Any] | None:
    if state.optimizer is None:
        return None
    return {"class_name": state.optimizer.class_name, "config": dict(state.optimizer.config)}


def structure(state: TrainState) -> Iterator[Finding]:
    """What no array needs to be read for; the learning rate is one number."""
    shapes = {n.removeprefix("model/"): s.shape for n, s in state.specs.items() if n.startswith("model/")}
    layers = ownership.of(state.model_config, shapes)
    yield from _sizes(layers)
    if state.format == "h5":
        yield from _order(layers, state)
    yield from _slot_shapes(state)
    if state.optimizer is not None and state.iterations is not None:
        yield from _roles(state, state.optimizer.inner)
        yield from _learning_rate(state, state.optimizer.inner)


# ---- layers ----


def _sizes(layers: ownership.Ownership) -> Iterator[Finding]:
    """Keras would make what a config asks for, a kernel of 32 GB included, before anybody compared it with the file."""
    if not layers.whole:
        return
    for layer in layers.layers:
        if layer.kind in _WEIGHTY and not layer.variables:
            yield Finding(
                layer.path, f"the configuration has this {layer.kind} layer, and the file no weights of it"
            )
        dimensions = {n for shape in layer.variables.values() for n in shape if n}
        for key, size in _declared(layer.kind, layer.config) if dimensions else ():
            if not any(n % size == 0 for n in dimensions):
                sizes = ", ".join(str(list(shape)) for shape in layer.variables.values())
                yield Finding(
                    layer.path, f"{key} is {size} in the configuration, and the weights are {sizes[:60]}"
                )


def _declared(kind: str, config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The sizes that a layer's config and those of the layers inside it name; of Keras's own layers only."""
    if kind not in vocabulary.LAYERS or kind.startswith("LocallyConnected"):
        return
    yield from ((key, config[key]) for key in _SIZES if isinstance(config.get(key), int) and config[key] > 0)
    for inner in config.values():
        if isinstance(inner, Mapping) and isinstance(inner.get("config"), Mapping):
            yield from _declared(str(inner.get("class_name")), inner["config"])


def _order(layers: ownership.Ownership, state: TrainState) -> Iterator[Finding]:
    """Keras reads whole-model HDF5 files by position: names in another order than Keras writes them are not Keras's."""
    held = [n for n in state.specs if n.startswith("model/") and state.raw_names.get(n) != h5.FROM_CONFIG]
    stored = [name.removeprefix("model/") for name in held]
    first = [layer.path for layer in map(layers.of, stored) if layer is not None]
    met = list(dict.fromkeys(first))
    listed = [layer.path for layer in layers.layers if layer.path in set(met)]
    top = [path for path in listed if "/" not in path]
    if [path for path in met if path in set(top)] != top and layers.whole:
        where = next(a for a, b in zip((p for p in met if p in set(top)), top, strict=True) if a != b)
        yield Finding(where, "layers are listed in another order than the configuration has them")
    for layer in layers.layers:
        wanted = _ORDERED.get(layer.kind, ())
        found = [name.rpartition("/")[2] for name in layer.variables]
        if sorted(found) == sorted(set(found) & set(wanted)) and found != [n for n in wanted if n in found]:
            yield Finding(
                layer.path,
                f"its weights are listed as {', '.join(found)}, an order that Keras does not write",
            )
    yield from _order_of_slots(state)


def _order_of_slots(state: TrainState) -> Iterator[Finding]:
    held = [name for name in state.specs if name.startswith("optimizer/") and name.count("/") == 1]
    slots = list(state.slots)
    order = list(state.specs)
    counted = ITERATION in order  # Keras up to 2.2 has no counter in some of its optimizers
    if counted and held and slots and order.index(ITERATION) > order.index(slots[0]):
        yield Finding(
            "optimizer/iteration",
            "the optimizer's variables are listed in an order that Keras does not write",
        )
        return
    roles: dict[str, list[str]] = defaultdict(list)
    for name in slots:
        _, role, owner = name.split("/", 2)
        roles[owner].append(role)
    for owner, found in roles.items():
        known = [role for role in found if role in _ROLES]
        if (
            known != [role for role in _ROLES if role in known]
            and state.optimizer
            and _in_order(state.optimizer)
        ):
            yield Finding(
                f"optimizer/{known[0]}/{owner}", "slots are listed in an order that Keras does not write"
            )
            return


def _in_order(info: OptimizerInfo) -> bool:
    return info.inner.class_name in ("Adam", "AdamW", "Nadam", "Lamb")


# ---- the optimizer ----


def _slot_shapes(state: TrainState) -> Iterator[Finding]:
    info = state.optimizer.inner if state.optimizer else None
    for name in state.slots:
        _, role, owner = name.split("/", 2)
        weight = state.specs.get(f"model/{owner}")
        free = role == NUMBERED or (info is not None and not _shaped_alike(info))
        if weight is not None and not free and role != "inner" and state.specs[name].shape != weight.shape:
            shapes = f"{list(weight.shape)} -> {list(state.specs[name].shape)}"
            yield Finding(name, f"has another shape than its variable: {shapes}")


def _shaped_alike(info: OptimizerInfo) -> bool:
    """Whether each of its slots has its variable's shape; of a class of the user's, nobody knows."""
    return info.class_name in vocabulary.OPTIMIZERS and info.class_name not in ("Adafactor", "Muon")


def _roles(state: TrainState, info: OptimizerInfo) -> Iterator[Finding]:
    """Slots of every role that the optimizer's class and config demand, of no other, and for the same variables."""
    if info.class_name not in vocabulary.OPTIMIZERS or info.class_name in (
        "MultiOptimizer",
        "Optimizer",
        "TFOptimizer",
    ):
        return
    if not info.config:
        return  # TensorFlow's checkpoints tell the class alone
    demanded = set(layouts.roles(info))
    found: dict[str, set[str]] = defaultdict(set)
    for name in state.slots:
        _, role, owner = name.split("/", 2)
        found[role].add(owner)
    if NUMBERED in found or not (demanded or found):
        return
    spare = {"unused", "hyper"}
    if info.class_name == "SGD" and state.flavour == "tf_keras":
        spare.add("momentum")  # since 2.11 Keras 2's SGD has these slots without momentum too
    possible = demanded | _NOT_ALWAYS | set(_OPTIONAL.get(info.class_name, ()))
    other = sorted(role for role in set(found) - possible if not layouts.leaves_gaps(info, role))
    if other:
        yield Finding(
            f"optimizer/{other[0]}", f"slots that {info.class_name}, as configured here, has none of"
        )
    missing = sorted(demanded - set(found))
    if missing and (found or updates(state)):
        yield Finding(
            f"optimizer/{missing[0]}",
            f"the slots of {info.class_name} are missing, after {state.iterations} steps",
        )
    every = set().union(*found.values()) if found else set()
    for role, owners in found.items():
        gaps = sorted(every - owners)
        if gaps and role in demanded and not layouts.leaves_gaps(info, role):
            yield Finding(
                f"optimizer/{role}/{gaps[0]}", "this slot is missing, and others of its variable are there"
            )


def updates(state: TrainState) -> int:
    """How often the optimizer has changed the weights: with gradient accumulation, not at every step."""
    every = state.optimizer.inner.config.get("gradient_accumulation_steps") if state.optimizer else None
    return (state.iterations or 0) // (every if isinstance(every, int) and every > 0 else 1)


def _learning_rate(state: TrainState, info: OptimizerInfo) -> Iterator[Finding]:
    """Keras writes the rate of the moment into the config too."""
    configured = info.config.get("learning_rate", info.config.get("lr"))
    if LEARNING_RATE not in state.specs or state.raw_names.get(LEARNING_RATE) == _DERIVED:
        return
    rate = float(state.arrays[LEARNING_RATE])
    if not math.isfinite(rate):
        yield Finding(LEARNING_RATE, f"is {rate}")
    elif isinstance(configured, int | float) and not math.isclose(
        rate, configured, rel_tol=1e-2, abs_tol=1e-12
    ):
        yield Finding(LEARNING_RATE, f"is {rate:g}, and {configured:g} in the optimizer's own configuration")
