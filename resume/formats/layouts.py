"""Which variables the optimizers of Keras 3 have, and in which order: a `.keras` archive keeps no names.

`vars/<n>` = the variables in the order of `__init__` and `build` (keras.src.optimizers.*, compared between 3.0.5,
3.3.3, 3.6.0, 3.8.0, 3.9.2, 3.10.0, 3.12.0 and 3.15.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resume import names
from resume.formats import layers
from resume.state import OptimizerInfo

# A LossScaleOptimizer's own variables, in its order.
LOSS_SCALE = ("iteration", "learning_rate", "step_counter", "dynamic_scale")
SCALARS = frozenset(LOSS_SCALE)
PAIRS = {
    **dict.fromkeys(("Adam", "AdamW", "Nadam", "Lamb", "ScheduleFreeAdamW"), ("momentum", "velocity")),
    "Adamax": ("momentum", "norm"),
    "Adadelta": ("accumulated_grad", "accumulated_delta_var"),
    "Ftrl": ("accumulator", "linear"),
    "Adagrad": ("accumulator",),
    "Lion": ("momentum",),
}
# Roles that need not have a slot for every trained variable.
_GAPS = {"Muon": ("velocity",), "Adafactor": ("r", "c")}
_OPTIMIZERS = (*PAIRS, "SGD", "RMSprop", "Adafactor", "Muon", "LossScaleOptimizer", "MultiOptimizer")


def optimizer_class(short: str) -> str:
    """`adam`, as given to compile() -> `Adam`; an unknown name as it is."""
    return {name.lower(): name for name in _OPTIMIZERS}.get(short.lower(), short)


def roles(info: OptimizerInfo) -> tuple[str, ...]:
    """The roles that an optimizer must have slots in, by its class and config; of an unknown class, those of any."""
    return (*_own_roles(info), *_base_roles(info))


def _own_roles(info: OptimizerInfo) -> tuple[str, ...]:
    config = info.config
    match info.class_name:
        case "SGD":
            return ("momentum",) if config.get("momentum") else ()
        case "RMSprop":
            momentum = ("momentum",) if config.get("momentum") else ()
            return ("velocity", *momentum, *(("average_gradient",) if config.get("centered") else ()))
        case "Adafactor":
            return ("r", "c", "velocity")
        case "Muon":
            return ("momentum",)
        case kind if kind in PAIRS:
            return (*PAIRS[kind], *(("velocity_hat",) if config.get("amsgrad") else ()))
    return ()


def _base_roles(info: OptimizerInfo) -> tuple[str, ...]:
    keys = {"average": "use_ema", "gradient_accumulator": "gradient_accumulation_steps"}
    return tuple(role for role, key in keys.items() if info.config.get(key))


def leaves_gaps(info: OptimizerInfo, role: str) -> bool:
    """Whether an optimizer may have slots of this role for some trained variables only."""
    return info.class_name == "MultiOptimizer" or role in _GAPS.get(info.class_name, ())


def scheme(model_config: Mapping[str, Any], paths: Iterable[str]) -> names.Scheme:
    """How a file's variable paths become canonical names.

    A subclassed model's config names no layers: there, names built from Keras's own layer classes count as automatic.
    """
    found = names.Scheme.of(model_config)
    if found.places:
        return found
    parts = {part for path in paths for part in path.split("/")[:-1]}
    return names.Scheme(found.root, frozenset(p for p in parts if layers.class_named(p)))


def scalar_names(paths: Sequence[str], info: OptimizerInfo | None) -> list[str]:
    """Canonical names for an optimizer's variables that are no slots, by their paths in a `.h5` file.

    The own variables of wrapping optimizers are told from the inner ones' by the wrappers' names.
    """
    inner = info.inner if info else None
    loss_scale = info.config.get("name") if info and inner is not info else None
    multi = inner.config.get("name") if inner and inner.class_name == "MultiOptimizer" else None
    owners: list[str] = []
    return [_scalar(path.split("/"), loss_scale, multi, owners, inner) for path in paths]


def _scalar(
    parts: list[str], loss_scale: Any, multi: Any, owners: list[str], inner: OptimizerInfo | None
) -> str:
    if loss_scale is not None and parts[0] == loss_scale:
        if len(parts) == 2 and parts[1] in LOSS_SCALE:
            return f"optimizer/loss_scale/{parts[1]}"
        parts = parts[1:]
    leaf = parts[-1]
    if multi is not None and parts[0] == multi and len(parts) > 2:
        parts = parts[1:]
    if multi is not None and parts[0] != multi:
        if parts[0] not in owners:
            owners.append(parts[0])
        return f"optimizer/inner/{owners.index(parts[0])}/{leaf}"
    nadam = inner is not None and inner.class_name == "Nadam"
    return (
        "optimizer/u_product" if nadam and names.split_number(leaf)[0] == "variable" else f"optimizer/{leaf}"
    )


# ---- optimizers of a .keras archive ----

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Owner:
    """A trained variable: canonical name, all that its path may be matched by, shape."""

    name: str
    path: str
    shape: Shape


def optimizer_names(
    info: OptimizerInfo, owners: Sequence[Owner], shapes: Sequence[Shape], *, keras_version: tuple[int, int]
) -> list[str] | None:
    """Canonical names of an optimizer's variables in Keras's order; None unless every shape is as derived.

    Before 3.10 (measured: up to 3.9.2) Nadam's product came before its slots, and averages and gradient accumulators
    alternated. Muon used to treat variables of rank 3 like those of rank 2.
    """
    early = keras_version < (3, 10)
    start = scalars(info) + _base(info, owners, early=early)
    if info.class_name == "Muon":
        candidates = [_muon(info.config, owners, ranks=ranks) for ranks in ((2,), (2, 3))]
    else:
        candidates = [_slots(info, owners, early=early)]
    for slots in candidates:
        if slots is not None and [shape for _, shape in start + slots] == list(shapes):
            return [name for name, _ in start + slots]
    return None


def scalars(info: OptimizerInfo) -> list[tuple[str, Shape]]:
    """What every optimizer has first: the counter, and the learning rate unless a schedule gives it."""
    schedule = isinstance(info.config.get("learning_rate"), Mapping)
    return [(f"optimizer/{name}", ()) for name in ("iteration", "learning_rate")[: 1 if schedule else 2]]


def _each(owners: Sequence[Owner], *roles: str) -> list[tuple[str, Shape]]:
    return [(f"optimizer/{role}/{owner.name}", owner.shape) for owner in owners for role in roles]


def _base(info: OptimizerInfo, owners: Sequence[Owner], *, early: bool) -> list[tuple[str, Shape]]:
    roles = _base_roles(info)
    if early:  # one variable at a time
        return _each(owners, *roles) if roles else []
    return [entry for role in roles for entry in _each(owners, role)]


def _slots(info: OptimizerInfo, owners: Sequence[Owner], *, early: bool) -> list[tuple[str, Shape]] | None:
    config = info.config
    match info.class_name:
        case "SGD" | "RMSprop":
            return [entry for role in _own_roles(info) for entry in _each(owners, role)]
        case "Nadam":
            product: list[tuple[str, Shape]] = [("optimizer/u_product", ())]
            pairs = _each(owners, *PAIRS["Nadam"])
            return product + pairs if early else pairs + product
        case "Adafactor":
            return [entry for owner in owners for entry in _factors(owner)]
        case kind if kind in PAIRS:
            hats = _each(owners, "velocity_hat") if config.get("amsgrad") else []
            return _each(owners, *PAIRS[kind]) + hats
    return None


def _factors(owner: Owner) -> list[tuple[str, Shape]]:
    """Row and column factors of the last two dimensions; below rank 2 Keras keeps a scalar that is never used."""
    shape = owner.shape
    rows, columns = (shape[:-1], (*shape[:-2], shape[-1])) if len(shape) > 1 else ((), ())
    factors = [(f"optimizer/r/{owner.name}", rows), (f"optimizer/c/{owner.name}", columns)]
    return [*factors, (f"optimizer/velocity/{owner.name}", shape)]


def _muon(
    config: Mapping[str, Any], owners: Sequence[Owner], *, ranks: tuple[int, ...]
) -> list[tuple[str, Shape]] | None:
    # exclude_layers are regular expressions out of the file: they are not run here.
    if config.get("exclude_layers"):
        return None
    embeddings = config.get("exclude_embeddings", True)
    out: list[tuple[str, Shape]] = []
    for owner in owners:
        adam = len(owner.shape) not in ranks or (embeddings and "embedding" in owner.path.lower())
        out += _each([owner], "momentum", "velocity") if adam else _each([owner], "momentum")
    return out
