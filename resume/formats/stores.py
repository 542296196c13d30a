"""The weights file of Keras's newer formats: variables by the place of their layer, without names.

Layout (keras.src.saving.saving_lib, tf_keras.src.saving.saving_lib), inside `.keras` archives and as `.weights.h5`:
    layers/<class in snake case, counted>/vars/<n>      a layer's variables
    <layer>/vars/<name>                                 those that a layer's own `save_own_variables` gives names
    optimizer/vars/<n>                                  the optimizer's, as in `optimizer.variables`
Files of Keras 3.6 and later also carry each layer's own name, as attribute `name` of its `vars`. Keras 2 on Windows
put backslashes between the layers, so that `dec\\layers\\dense` is one group of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from resume.errors import SourceError
from resume.formats.hdf5 import Tree
from resume.state import Spec

_DEPTH_LIMIT = 64  # groups inside groups


@dataclass(frozen=True)
class Stores:
    """What a weights file holds: arrays by address, and how many each layer or optimizer has."""

    specs: Mapping[str, Spec]
    actual: Mapping[str, str]  # address of an array -> the one to read it at, where the two differ
    sizes: Mapping[str, int]
    names: Mapping[str, str]  # address of a layer -> its own name, where the file has it
    named: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # address -> variables that are not numbered

    def spec(self, address: str) -> Spec:
        return self.specs[address]

    def array(self, tree: Tree, address: str, *, expected: Spec | None = None) -> np.ndarray[Any, Any]:
        return tree.array(self.actual.get(address, address), expected=expected)

    def variables(self, owner: str) -> list[str]:
        return [f"{owner}/vars/{n}" for n in range(self.sizes[owner])]

    def named_of_model(self, *, old: bool) -> dict[str, tuple[str, ...]]:
        """As `of_model`: the variables with names of their own, by the address of their layer."""
        return {address: self.named[address] for address in self.of_model(old=old) if address in self.named}

    def of_model(self, *, old: bool) -> dict[str, int]:
        """The sizes of what belongs to the model. Keras 2 stores the accumulators of metrics beside it."""
        apart = ("optimizer", "metrics") if old else ("optimizer",)
        return {address: size for address, size in self.sizes.items() if address.split("/")[0] not in apart}


def of(tree: Tree) -> Stores:
    """Everything in a weights file. Raises SourceError for what Keras does not write."""
    specs: dict[str, Spec] = {}
    actual: dict[str, str] = {}
    sizes: dict[str, int] = {}
    names: dict[str, str] = {}
    named: dict[str, tuple[str, ...]] = {}
    for found, name, held in _stores(tree, "", 0):
        address = found.replace("\\", "/")
        if address in sizes:
            raise SourceError(f"{tree.path}: {address:.80} is there twice: not a file of Keras.")
        own = [key.rpartition("/")[2] for key in held]
        sizes[address] = sum(name.isdigit() for name in own)
        if sizes[address] < len(held):
            named[address] = tuple(name for name in own if not name.isdigit())
        specs |= {key.replace("\\", "/"): spec for key, spec in held.items()}
        actual |= {key.replace("\\", "/"): key for key in held if "\\" in key}
        if name is not None:
            names[address] = name
    return Stores(specs, actual, sizes, names, named)


def are_in(tree: Tree, depth: int = 0) -> bool:
    """Whether this is such a file, looked for where Keras would have it: never behind a link."""
    if depth > _DEPTH_LIMIT:
        return False
    groups = [tree.group(child) for child in tree.children() if tree.is_group(child)]
    return any(group.address.rpartition("/")[2] == "vars" or are_in(group, depth + 1) for group in groups)


def _stores(tree: Tree, address: str, depth: int) -> Iterator[tuple[str, str | None, dict[str, Spec]]]:
    """(address, own name, arrays) of every layer or optimizer: of every group that has a group `vars`."""
    if depth > _DEPTH_LIMIT:
        raise SourceError(f"{tree.path}: {address:.80} lies too deep: not a file of Keras.")
    children = tree.children()
    if "vars" in children:
        held = tree.group("vars")
        prefix = f"{address}/vars" if address else "vars"
        yield address, held.attribute("name"), {f"{prefix}/{n}": held.spec(n) for n in _keys(held)}
    for child in children:
        if child != "vars" and tree.is_group(child):
            yield from _stores(tree.group(child), f"{address}/{child}" if address else child, depth + 1)


def _keys(held: Tree) -> list[str]:
    """Numbers first, in order. Only a layer can have names of its own beside them, or instead."""
    keys = held.children()
    named = [key for key in keys if key.isidentifier() and not held.address.startswith("optimizer")]
    numbered = sorted(set(keys) - set(named), key=lambda n: (len(n), n))
    if numbered != [str(n) for n in range(len(numbered))]:
        raise SourceError(f"{held.path}: {held.address} holds {numbered[:9]}, which is not 0, 1, 2, ...")
    return [*numbered, *named]
