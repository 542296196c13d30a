"""Optimizers in an object graph: which objects they are, of what class, and what they hold.

A checkpoint of TensorFlow holds neither an optimizer's class nor its settings (a SavedModel does, beside it): the class
is told by the names of its variables, which begin with the optimizer's own name, and that is its class's unless
somebody chose another (tf_keras.src.optimizers, keras.src.optimizers.base_optimizer).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resume import names
from resume.errors import SourceError
from resume.formats import layouts, tfslots
from resume.formats.graph import Stored
from resume.formats.tfslots import Owner
from resume.state import OptimizerInfo

_LIMIT = 100  # optimizers
_OWN = "optimizer"  # the attribute under which a model keeps its own
NO_SETTINGS = (
    "the optimizer's settings are not in this kind of checkpoint: its class is told by its variables' names"
)
NO_CLASS = "the optimizer's class is not in this kind of checkpoint, and its variables' names do not tell it"


@dataclass(frozen=True)
class Optimizers:
    """Nodes: the model's own optimizer, others by the attribute that holds them, and all there are."""

    own: int | None
    beside: Mapping[str, int]
    nodes: frozenset[int]


@dataclass(frozen=True)
class Held:
    """(canonical name, node) of every optimizer variable; the model's own optimizer; what had to be derived."""

    names: tuple[tuple[str, int], ...]
    info: OptimizerInfo | None
    notes: tuple[str, ...]


def find(stored: Stored, *, model: int) -> Optimizers:
    """The optimizers that a model, or what was saved with it, holds. An optimizer inside another is no other one."""
    graph = stored.graph
    found = [n for n in {**graph.reach(model), **graph.reach(0)} if _is_optimizer(stored, n)]
    if len(found) > _LIMIT:
        raise SourceError(f"{stored.bundle.prefix}: {len(found)} optimizers: not a checkpoint of Keras.")
    inner = {n for one in found for n in graph.reach(one) if n != one}
    outer = [n for n in found if n not in inner]
    holders = [stored.children(model), stored.children(0)]
    held = {edge: n for holder in reversed(holders) for edge, n in holder.items() if n in outer}
    own = next((holder[_OWN] for holder in holders if holder.get(_OWN) in outer), None)
    if own is None and len(set(held.values())) == 1:
        own = next(iter(held.values()))
    return Optimizers(own, {edge: n for edge, n in held.items() if n != own}, frozenset(outer))


def _is_optimizer(stored: Stored, node: int) -> bool:
    held = stored.children(node)
    if tfslots.wrapped(stored, node) is not None:
        return True
    if stored.graph.nodes[node].slots or {"_variables", "_iterations"} <= set(held):
        return True
    return "iter" in held and stored.is_variable(held["iter"])


def flavour(stored: Stored, node: int) -> str:
    return "keras" if tfslots.TRAINED in stored.children(node) else "tf_keras"


def held(
    stored: Stored, optimizers: Optimizers, owners: Sequence[Owner], *, info: OptimizerInfo | None
) -> Held:
    """What the optimizers hold; `info`: the model's own as the file describes it.

    Raises ValueError for a slot of another shape than its owner.
    """
    out: list[tuple[str, int]] = []
    notes: list[str] = []
    own = () if optimizers.own is None else ((None, optimizers.own),)
    for attribute, node in (*own, *optimizers.beside.items()):
        said = info if attribute is None else None
        if said is None:
            said = _info(stored, node)
            notes.append(NO_SETTINGS if said is not None else NO_CLASS)
        info = said if attribute is None else info
        found, derived = _named(stored, node, owners, said)
        prefix = "optimizer" if attribute is None else f"beside/{attribute}"
        out += [(f"{prefix}/{name}", n) for name, n in found]
        notes += derived
    return Held(tuple(out), info, tuple(dict.fromkeys(notes)))


def _named(
    stored: Stored, node: int, owners: Sequence[Owner], info: OptimizerInfo | None
) -> tuple[list[tuple[str, int]], list[str]]:
    if flavour(stored, node) == "keras":
        return tfslots.keras3(stored, node, owners)
    return tfslots.keras2(stored, node, owners, info)


# ---- of what class ----


def _info(stored: Stored, node: int) -> OptimizerInfo | None:
    """As far as the names tell; a LossScaleOptimizer is told by what it holds besides."""
    children = stored.children(node)
    if "inner_optimizer" in children:  # Keras 3; in Keras 2 the two are one object to TensorFlow
        return _scaled(_info(stored, children["inner_optimizer"]))
    known = next(filter(None, map(_class, _scopes(stored, node))), None)
    info = OptimizerInfo(known, {}, legacy=tfslots.is_legacy(stored, node)) if known else None
    return _scaled(info) if "loss_scale" in children and info is not None else info


def _scaled(inner: OptimizerInfo | None) -> OptimizerInfo:
    config = {"inner_optimizer": {"class_name": inner.class_name, "config": {}}} if inner else {}
    return OptimizerInfo("LossScaleOptimizer", config, legacy=inner is not None and inner.legacy)


def _scopes(stored: Stored, node: int) -> Iterator[str]:
    """Parts of its variables' names that may be the optimizer's own name: `Adam/iter`, `Adam/m/dense/kernel`."""
    counter = stored.children(node).get("iter", stored.children(node).get("_iterations"))
    if counter is not None:
        yield from reversed(stored.name(counter).split("/")[:-1])
    for n in stored.listed(node, "_variables").values():
        yield stored.name(n).split("/")[0]


def _class(scope: str) -> str | None:
    """`adam_w_1`, `AdamW` -> `AdamW`; None for what is no class of Keras's."""
    short = names.split_number(scope)[0].replace("_", "").lower()
    found = layouts.optimizer_class(short)
    return found if found != short else None
