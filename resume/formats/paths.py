"""What a variable's path tells in whole-model `.h5` files of Keras 3: layer and variable, or slot and owner.

dense/kernel, encoder/dense/kernel      a weight; up to Keras 3.2 `kernel` alone: the layer's name is put before it
adam/dense_kernel_momentum              a slot (resume.names.slots); up to 3.2 with the model's name before it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resume import names
from resume.errors import SourceError
from resume.formats import layouts
from resume.formats.groups import Entry
from resume.state import OptimizerInfo


def with_layers(weights: Sequence[Entry]) -> list[Entry]:
    """The weights under full paths."""
    if any("/" in entry.path for entry in weights):
        return list(weights)
    return [replace(entry, path=f"{entry.layer}/{entry.path}") for entry in weights]


def canonical(
    weights: Sequence[Entry],
    variables: Sequence[Entry],
    *,
    model_config: Mapping[str, Any],
    info: OptimizerInfo | None,
    path: Path,
) -> tuple[dict[str, Entry], list[str]]:
    """Canonical name -> dataset, of the model's and of the optimizer's variables, and what had to be assumed."""
    scheme = layouts.scheme(model_config, [entry.path for entry in weights])
    labels = scheme.canonical([entry.path for entry in weights])
    found = {f"model/{label}": entry for label, entry in zip(labels, weights, strict=True)}
    held = names.unique(_slots(variables, weights, labels, root=scheme.root, info=info, path=path))
    slots = dict(zip(held, variables, strict=True))
    return found | slots, [
        f"{entry.path} belongs to no variable that could be told by its name"
        for name, entry in slots.items()
        if name.count("/") == 1 and entry.spec.shape
    ]


def _slots(
    entries: Sequence[Entry],
    weights: Sequence[Entry],
    labels: Sequence[str],
    *,
    root: str | None,
    info: OptimizerInfo | None,
    path: Path,
) -> list[str]:
    paths = [entry.path for entry in entries]
    owners = names.slots(paths, [entry.path for entry in weights])
    rooted = names.slots(paths, [f"{root}/{entry.path}" for entry in weights])  # up to Keras 3.2, see above
    flat = Counter(entry.path.replace("/", "_") for entry in weights)
    out = []
    for entry, near, far, scalar in zip(
        entries, owners, rooted, layouts.scalar_names(paths, info), strict=True
    ):
        slot = near or far
        if slot is None or entry.path.rpartition("/")[2] in layouts.SCALARS:
            out.append(scalar)
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
        out.append(f"optimizer/{slot.role}/{labels[slot.variable]}")
    return out
