"""Weights grouped by layer: how whole-model `.h5` files of every Keras, and weight files of Keras 2, hold them.

Layout (keras.src.legacy.saving.legacy_h5_format, tf_keras.src.saving.legacy.hdf5_format), below one group:
    attribute layer_names
    <layer>/             attribute weight_names: each a dataset below the layer's group
    top_level_model_weights/    the same, of weights that no layer has (from Keras 2.6)
A nested model's weights all lie under its top-level layer, the trained ones first. Name lists too long for one
attribute are cut into weight_names0, weight_names1, ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from resume.errors import SourceError
from resume.formats.hdf5 import Tree
from resume.formats.keras2 import Weight
from resume.state import Spec

LAYERS, TOP = "layer_names", "top_level_model_weights"


@dataclass(frozen=True)
class Entry:
    """A dataset: the variable's name in the file, its address, what it holds, and for a weight its position."""

    path: str
    address: str
    spec: Spec
    layer: str = ""
    index: int = 0

    @property
    def place(self) -> str:
        return f"{self.layer}/{self.index}"

    @property
    def weight(self) -> Weight:
        """As resume.formats.keras2 wants to know it."""
        return Weight(self.path, self.spec.shape, self.layer if self.layer != TOP else None)


def listed(group: Tree) -> list[Entry]:
    """What the group's own list of names says it holds, in that order."""
    return [Entry(n, _below(group, n), group.spec(n)) for n in group.names("weight_names")]


def weights(group: Tree, *, prepare: Callable[[list[Entry]], list[Entry]] = list) -> list[Entry]:
    """Every variable of the model once, in the order of its layers, its name made complete by `prepare`.

    A layer that two nested models share is stored with each; namesakes that differ are variables of their own.
    """
    found = [entry for layer in _layers(group) for entry in _of_layer(group, layer)]
    return _each_once(group, prepare(found))


def _layers(group: Tree) -> list[str]:
    """Layers' names may have slashes in Keras 2: `block/conv` is a group inside the group `block`."""
    names = group.names(LAYERS)
    found = [name for name in group.children() if group.is_group(name)]
    expected = {name.partition("/")[0] for name in names}
    others = set(found) - expected - {TOP, "optimizer_weights"}
    if expected - set(found) or others:
        differing = ", ".join(sorted((expected - set(found)) | others))
        raise SourceError(
            f"{group.path}: {LAYERS} and the groups of {group.address or 'the file'} differ ({differing:.80}); "
            "the file is damaged."
        )
    return [*names, *([TOP] if TOP in found and TOP not in names else [])]


def _of_layer(group: Tree, layer: str) -> Iterator[Entry]:
    inside = group.group(layer)
    for index, name in enumerate(inside.names("weight_names")):
        yield Entry(name, _below(inside, name), inside.spec(name), layer, index)


def _below(group: Tree, name: str) -> str:
    return f"{group.address}/{name}" if group.address else name


def _each_once(group: Tree, entries: Sequence[Entry]) -> list[Entry]:
    """Layers inside layers are compared whole: one variable of two may well have the value of its namesake's."""
    blocks: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        blocks.setdefault((entry.layer, entry.path.rpartition("/")[0]), []).append(entry)
    kept: dict[str, list[list[Entry]]] = {}
    for (_, parent), block in blocks.items():
        earlier = kept.setdefault(parent, [])
        if not any(_same(group, block, other) for other in earlier):
            earlier.append(block)
    wanted = {entry.address for copies in kept.values() for block in copies for entry in block}
    return [entry for entry in entries if entry.address in wanted]


def _same(group: Tree, ours: Sequence[Entry], theirs: Sequence[Entry]) -> bool:
    if [(e.path, e.spec) for e in ours] != [(e.path, e.spec) for e in theirs]:
        return False
    root = Tree(group.group_.file, group.path)
    return all(
        root.array(a.address).tobytes() == root.array(b.address).tobytes()
        for a, b in zip(ours, theirs, strict=True)
    )
