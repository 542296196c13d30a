"""What Keras 2 calls an optimizer's variables, and what Keras 3 calls the same.

    Adam/dense/kernel/m:0           tf.keras 1.14 to 2.10, and the legacy classes since (OptimizerV2.add_slot)
    training/Adam/dense/kernel/m:0  the same in graph mode
    Adam/m/dense/kernel:0           the classes of 2.11 and later; without `Adam/` under mixed precision
    training/Adam/m_0_1:0           standalone Keras 2.3; Variable_104:0 before that: the order alone tells
    optimizer/vars/3                `.keras` archives: the order alone tells
Where the order tells (resume.formats.keras2_orders), every shape must be as derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resume import names
from resume.formats import layouts
from resume.formats.keras2_layers import Weight
from resume.formats.keras2_orders import Owner, Shape, names_by_order
from resume.state import OptimizerInfo

_ADAM = {"m": "momentum", "v": "velocity", "vhat": "velocity_hat"}
_ROLES: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("Adam", "AdamW", "Nadam", "LAMB", "Lamb", "LazyAdam", "RectifiedAdam"), _ADAM),
    "Adamax": {"m": "momentum", "v": "norm", "u": "norm"},
    "SGD": {"m": "momentum", "momentum": "momentum"},
    "SGDW": {"momentum": "momentum"},
    "RMSprop": {"rms": "velocity", "velocity": "velocity", "momentum": "momentum", "mg": "average_gradient",
                "average_gradient": "average_gradient"},
    "Adagrad": {"accumulator": "accumulator"},
    "Adadelta": {"accum_grad": "accumulated_grad", "accum_var": "accumulated_delta_var",
                 "accumulated_grad": "accumulated_grad", "accumulated_delta_var": "accumulated_delta_var"},
    "Ftrl": {"accumulator": "accumulator", "linear": "linear"},
    "Lion": {"m": "momentum"},
    "Adafactor": {"r": "r", "c": "c", "v": "velocity"},
}  # fmt: skip
_SCALARS = {
    "iter": "iteration",
    "iterations": "iteration",
    "iteration": "iteration",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "momentum_cache": "u_product",
    "m_schedule": "u_product",
    "u_product": "u_product",
    "loss_scale": "loss_scale/current_loss_scale",
    "current_loss_scale": "loss_scale/current_loss_scale",
    "good_steps": "loss_scale/good_steps",
}
_HYPER = ("beta_1", "beta_2", "decay", "epsilon", "momentum", "rho", "initial_accumulator_value")
_OTHER_SHAPE = ("r", "c")  # of Adafactor: factors of the variable


def role(class_name: str, raw: str) -> str:
    """Keras 3's word for a slot that Keras 2 calls `raw`; `raw` itself where Keras has no such class or slot."""
    return _ROLES.get(class_name.rpartition(">")[2], {}).get(raw, raw)


# ---- the optimizer as a config describes it ----


def optimizer_info(serialised: object, *, keras_version: str | None) -> OptimizerInfo | None:
    """The optimizer of a training or compile config of any generation: serialised, or the name given to compile()."""
    if isinstance(serialised, str):
        old = keras_version is not None and _version(keras_version) < (2, 11)
        return OptimizerInfo(layouts.optimizer_class(serialised), {}, legacy=old)
    if not isinstance(serialised, Mapping) or "class_name" not in serialised:
        return None
    name, config = _own_name(serialised), serialised.get("config")
    config = dict(config) if isinstance(config, Mapping) else {}
    wrapped = config.get("inner_optimizer", config.get("optimizer"))
    if not name.startswith("LossScaleOptimizer") or not isinstance(wrapped, Mapping):
        return OptimizerInfo(name, config, legacy=_is_legacy(serialised, config, keras_version))
    inner = optimizer_info(wrapped, keras_version=keras_version)
    config["inner_optimizer"] = {**wrapped, "class_name": inner.class_name if inner else None}
    return OptimizerInfo("LossScaleOptimizer", config, legacy=inner is not None and inner.legacy)


def _own_name(serialised: Mapping[str, Any]) -> str:
    """Keras 2.11 to 2.15 register their own classes under `Custom>`, the package of what has none."""
    return str(serialised["class_name"]).removeprefix("Custom>")


def _is_legacy(serialised: Mapping[str, Any], config: Mapping[str, Any], version: str | None) -> bool:
    if "is_legacy_optimizer" in config:
        return bool(config["is_legacy_optimizer"])
    if "legacy" in str(serialised.get("module")).split("."):
        return True
    if version is not None and _version(version) >= (3, 0):
        return False
    if any(key in config for key in ("use_ema", "jit_compile", "weight_decay")) and "decay" not in config:
        return False
    return version is not None or "decay" in config or "lr" in config


def _version(text: str) -> tuple[int, int]:
    numbers = [part for part in text.replace("-", ".").split(".") if part.isdigit()]
    major, minor, *_ = (*numbers, "0", "0")
    return int(major), int(minor)


def configured_rate(info: OptimizerInfo | None) -> np.ndarray[Any, Any] | None:
    """The learning rate of an optimizer that does not store it, where its config has a plain number."""
    config = info.inner.config if info is not None else {}
    rate = config.get("learning_rate", config.get("lr"))
    plain = isinstance(rate, int | float) and not isinstance(rate, bool)
    return np.asarray(rate, "float32") if plain else None


# ---- its variables ----


def optimizer_names(
    info: OptimizerInfo | None, variables: Sequence[Weight], owners: Sequence[Owner]
) -> tuple[list[str], list[str]]:
    """Canonical names for an optimizer's variables, in the same order, and what could not be told, in plain words.

    `owners`: all of the model's variables, in the model's order. Raises ValueError where a slot of one of Keras's own
    optimizers has another shape than the variable that its name gives it.
    """
    inner = info.inner if info is not None else None
    found = _by_name(inner, variables, owners)
    notes: list[str] = []
    if any(name is None for name in found):
        ordered = names_by_order(
            inner, found, [v.shape for v in variables], [owner for owner in owners if owner.trainable]
        )
        if ordered is not None:
            return names.unique(ordered), []
        notes = [
            f"which variable {v.name} of the optimizer belongs to could not be derived: it is numbered"
            for name, v in zip(found, variables, strict=True)
            if name is None
        ]
    labels = [name or f"optimizer/vars/{n}" for n, name in enumerate(found)]
    return names.unique(labels), notes[:1] + ([f"and {len(notes) - 1} more like it"] if notes[1:] else [])


def _by_name(
    inner: OptimizerInfo | None, variables: Sequence[Weight], owners: Sequence[Owner]
) -> list[str | None]:
    """The names that the variables' own names give; None where these tell nothing."""
    kind = inner.class_name if inner is not None else ""
    index: dict[str, list[Owner]] = {}
    for owner in owners:
        index.setdefault(owner.raw.removesuffix(":0"), []).append(owner)
    taken: dict[tuple[str, str], int] = {}
    out: list[str | None] = []
    for variable in variables:
        parts = variable.name.removesuffix(":0").split("/")
        slot = _slot(kind, parts, index)
        if slot is None:
            out.append(_scalar(parts, variable.shape))
            continue
        raw, held = slot
        nth = taken[raw, held[0].raw] = taken.get((raw, held[0].raw), -1) + 1
        out.append(_label(kind, raw, variable, held[nth]) if nth < len(held) else None)
    return out


def _slot(
    kind: str, parts: Sequence[str], index: Mapping[str, list[Owner]]
) -> tuple[str, list[Owner]] | None:
    """(Keras 2's word for the slot, the variables with the name that it was made for); the longest owner wins."""
    for start in range(len(parts) - 1):
        old, new = "/".join(parts[start:-1]), "/".join(parts[start + 1 :])
        if new in index:
            return parts[start], index[new]
        if old in index:
            return _plain(kind, parts[-1]), index[old]
    return None


def _plain(kind: str, raw: str) -> str:
    """Without the number that graph mode adds to a name in use."""
    base, _ = names.split_number(raw)
    return base if raw not in _ROLES.get(kind, {}) and base in _ROLES.get(kind, {}) else raw


def _label(kind: str, raw: str, variable: Weight, owner: Owner) -> str:
    word = role(kind, raw)
    ours = kind in _ROLES and raw in (*_ROLES[kind], "average")
    if ours and word not in _OTHER_SHAPE and variable.shape != owner.shape:
        raise ValueError(
            f"{variable.name} has another shape than {owner.raw}, the variable that it belongs to:"
            f" {list(owner.shape)} -> {list(variable.shape)}"
        )
    return f"optimizer/{word}/{owner.name}"


def _scalar(parts: Sequence[str], shape: Shape) -> str | None:
    base = names.split_number(parts[-1])[0].lstrip("_")
    for leaf in (parts[-1], base):
        if shape == () and leaf in _SCALARS:
            return f"optimizer/{_SCALARS[leaf]}"
        if shape == () and leaf in _HYPER:
            return f"optimizer/hyper/{leaf}"
    nameless = base.isdigit() or base in ("", "Variable", "param") or parts[-2:-1] == ["vars"]
    return f"optimizer/{parts[-1]}" if shape == () and not nameless else None
