"""Names for the variables of a live optimizer of Keras 3: which is the slot of which trainable variable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from resume import names

Variable = Any  # keras.Variable

# Lists of an optimizer that hold something else than one slot a trainable variable.
_NOT_SLOTS = ("_variables", "_trainable_variables", "_inner_optimizers")


def named(optimizer: Any, owners: Mapping[int, str], *, prefix: str) -> list[tuple[str, Variable]]:
    """Names as in resume.state. A LossScaleOptimizer and a MultiOptimizer wrap others."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        own = [(f"{prefix}loss_scale/{_scalar(optimizer, v)}", v) for v in optimizer._variables]
        return own + named(optimizer.inner_optimizer, owners, prefix=prefix)
    inner = list(getattr(optimizer, "_inner_optimizers", []))
    own = _plain(optimizer, owners, prefix=prefix, slots=prefix)
    for index, part in enumerate(inner):
        own += _plain(part, owners, prefix=f"{prefix}inner/{index}/", slots=prefix)
    return own


def _plain(
    optimizer: Any, owners: Mapping[int, str], *, prefix: str, slots: str
) -> list[tuple[str, Variable]]:
    belongs = _slots(optimizer)
    out = []
    for variable in deduplicated(optimizer._variables):
        role, owner = belongs.get(id(variable), (None, None))
        if role is not None and id(owner) in owners:
            out.append((f"{slots}{role}/{owners[id(owner)]}", variable))
        else:
            out.append((prefix + _scalar(optimizer, variable), variable))
    return out


def _slots(optimizer: Any) -> dict[int, tuple[str, Variable]]:
    """id of a slot variable -> (role, the trainable variable it belongs to).

    Keras's optimizers keep a list a role, one entry a trainable variable: that is exact even where the names are not
    (Adafactor calls its row factors `kernel`; variables may share a path). What is kept otherwise is read by paths.
    """
    trainable = list(optimizer._trainable_variables)
    found: dict[int, tuple[str, Variable]] = {}
    doubtful: set[int] = set()  # a list of the user's may be in another order
    for attribute, items in vars(optimizer).items():
        if attribute in _NOT_SLOTS or not isinstance(items, list) or len(items) != len(trainable):
            continue
        for item, owner in zip(items, trainable, strict=True):
            if isinstance(item, keras.Variable):
                found[id(item)] = (_role(item, owner, attribute), owner)
                if not item.name.startswith(_prefix(owner)):
                    doubtful.add(id(item))
    rest = [v for v in optimizer._variables if id(v) not in found or id(v) in doubtful]
    paths = [path(v) for v in trainable]
    alone = Counter(paths)
    for variable, slot in zip(rest, names.slots([path(v) for v in rest], paths), strict=True):
        if slot and (id(variable) not in found or alone[paths[slot.variable]] == 1):
            found[id(variable)] = (slot.role, trainable[slot.variable])
    return found


def _role(slot: Variable, owner: Variable, attribute: str) -> str:
    prefix = _prefix(owner)
    return slot.name[len(prefix) :] if slot.name.startswith(prefix) else attribute.strip("_")


def _prefix(owner: Variable) -> str:
    return path(owner).replace("/", "_") + "_"


def _scalar(optimizer: Any, variable: Variable) -> str:
    """The variable's own name, or its attribute's where Keras gave it none (Nadam's `variable` is `u_product`)."""
    if names.split_number(variable.name)[0] != "variable":
        return str(variable.name)
    held = [a for a, item in vars(optimizer).items() if item is variable]
    return held[0].strip("_") if held else "variable"


def path(variable: Variable) -> str:
    return str(getattr(variable, "path", None) or variable.name.split(":")[0])


def deduplicated(variables: Iterable[Variable]) -> list[Variable]:
    return list({id(v): v for v in variables}.values())
