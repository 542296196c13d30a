"""In which order the optimizers of Keras 2 keep their variables: for files that name them by number only.

Of standalone Keras 2.0 to 2.3: keras.optimizers.<class>.get_updates, a block a role; before 2.3 some have no counter.
Of Keras 2.11 and later: tf_keras.src.optimizers.<class>.build, mostly variable by variable.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resume.formats import layouts
from resume.state import OptimizerInfo

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Owner:
    """A variable of the model, that optimizer variables may belong to."""

    name: str  # canonical, without `model/`
    raw: str  # as Keras 2 calls it
    shape: Shape
    trainable: bool


Layout = list[tuple[str, Shape]]
_HEADS: tuple[tuple[str, ...], ...] = (
    ("iteration",), (), ("iteration", "u_product"), ("iteration", "learning_rate"),
)  # fmt: skip

# Of standalone Keras, a block a role: what must be there, then what some versions add.
_BLOCKS = {
    "Adam": ("momentum", "velocity"),
    "Adamax": ("momentum", "norm"),
    "Nadam": ("momentum", "velocity"),
    "Adagrad": ("accumulator",),
    "Adadelta": ("accumulated_grad", "accumulated_delta_var"),
}


def names_by_order(
    inner: OptimizerInfo | None,
    stated: Sequence[str | None],
    shapes: Sequence[Shape],
    owners: Sequence[Owner],
) -> list[str] | None:
    """Names by position; None unless every shape, and every name that is stated, is as derived."""
    if inner is None:
        return None
    for head, body in itertools.product(_HEADS, _bodies(inner, owners)):
        layout = [(f"optimizer/{name}", ()) for name in head] + body
        derived = [name for name, _ in layout]
        agrees = all(s in (None, name) for name, s in zip(derived, stated, strict=False))
        if agrees and [shape for _, shape in layout] == list(shapes):
            return derived
    return None


def _bodies(info: OptimizerInfo, owners: Sequence[Owner]) -> Iterator[Layout]:
    """What may follow the scalars, the likelier first."""
    if info.legacy:
        yield from _standalone(info, owners)
    else:
        average = _each(owners, "average") if info.config.get("use_ema") else []
        yield from (average + body for body in _built(info, owners))
    yield []


def _standalone(info: OptimizerInfo, owners: Sequence[Owner]) -> Iterator[Layout]:
    kind, config, out = info.class_name, info.config, []
    if kind == "SGD":  # its moments are there without momentum, too, and never read
        out = _each(owners, "momentum") if config.get("momentum") else _unused([o.shape for o in owners])
    elif kind == "RMSprop":
        for name in ("velocity", *_when(config, momentum="momentum", centered="average_gradient")):
            out += _each(owners, name)
    else:
        for name in _BLOCKS.get(kind, ()):
            out += _each(owners, name)
    if kind == "Adam":  # from 2.1.0 also vhats, placeholders unless amsgrad is on
        hats = _each(owners, "velocity_hat") if config.get("amsgrad") else _unused([(1,)] * len(owners))
        yield out + hats
    yield out


def _built(info: OptimizerInfo, owners: Sequence[Owner]) -> Iterator[Layout]:
    kind, config = info.class_name, info.config
    if kind in ("SGD", "Lion"):
        yield _each(owners, "momentum")
    elif kind == "RMSprop":
        roles = ("velocity", *_when(config, momentum="momentum", centered="average_gradient"))
        yield [entry for name in roles for entry in _each(owners, name)]
    elif kind == "Adafactor":
        yield [entry for owner in owners for entry in _factors(owner)]
    elif kind in layouts.PAIRS:
        hats = _each(owners, "velocity_hat") if config.get("amsgrad") else []
        yield _each(owners, *layouts.PAIRS[kind]) + hats


def _factors(owner: Owner) -> Layout:
    """Below rank 2, Keras 2 keeps the unused row and column factors out of its list."""
    own = [(f"optimizer/velocity/{owner.name}", owner.shape)]
    if len(owner.shape) < 2:
        return own
    rows, columns = owner.shape[:-1], (*owner.shape[:-2], owner.shape[-1])
    return [(f"optimizer/r/{owner.name}", rows), (f"optimizer/c/{owner.name}", columns), *own]


def _each(owners: Sequence[Owner], *roles: str) -> Layout:
    return [(f"optimizer/{name}/{owner.name}", owner.shape) for owner in owners for name in roles]


def _unused(shapes: Sequence[Shape]) -> Layout:
    return [(f"optimizer/unused/{n}", shape) for n, shape in enumerate(shapes)]


def _when(config: Mapping[str, Any], **roles: str) -> tuple[str, ...]:
    return tuple(name for key, name in roles.items() if config.get(key))
