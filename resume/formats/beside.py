"""What a `.keras` archive holds beside its settings and its numbered variables.

Vocabularies, which belong into the settings (resume.formats.adapted); variables to which a layer's own
`save_own_variables` gives names; and files that a layer wrote, which are not read. What no layer of the settings has
is an array of its own, so that it is missed when nothing live takes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from resume.formats import adapted
from resume.formats.archive import CONFIG, Source
from resume.formats.hdf5 import Tree, damage
from resume.formats.stores import Stores


@dataclass(frozen=True)
class Beside:
    """`weights`: (path as a live model gives it, address) of variables of lookup layers. `others`: more addresses.

    `texts`: vocabularies that no layer of the settings has, by canonical name. `left`: addresses of layers whose
    variable has become a setting.
    """

    weights: tuple[tuple[str, str], ...]
    others: tuple[str, ...]
    texts: dict[str, np.ndarray[Any, Any]]
    left: frozenset[str]
    notes: tuple[str, ...]

    @property
    def raw_names(self) -> dict[str, str]:
        return {n: f"assets/{n.removeprefix('model/')}.txt" for n in self.texts}


def of(
    config: dict[str, Any], source: Source, held: Stores, tree: Tree, *, old: bool, twice: bool
) -> tuple[dict[str, Any], Beside]:
    """The model's config, completed, and the rest. `old`, `twice`: of Keras 2, and how that counts layers.

    Raises SourceError for a vocabulary that is none.
    """
    sizes, named = held.of_model(old=old), held.named_of_model(old=old)
    texts = {a: text for a, text in source.vocabularies.items() if not is_copy(a)}
    weights = {a: held.array(tree, _idf(a)) for a, keys in named.items() if adapted.IDF in keys}
    with damage(source.path, CONFIG):
        config, lookups = adapted.completed(config, texts, sizes, weights, twice=twice, path=source.path)
        config, bins = adapted.binned(config, sizes, lambda a: held.array(tree, f"{a}/vars/0"), twice=twice)
    met = {lookup.address for lookup in lookups}
    known = {_idf(k.address): f"{k.name}/{adapted.IDF}" for k in lookups if k.address in weights}
    others = [f"{a}/vars/{key}" for a, keys in named.items() if not is_copy(a) for key in keys]
    return config, Beside(
        weights=tuple((path, address) for address, path in known.items()),
        others=tuple(address for address in others if address not in known),
        texts={_name(a): np.frombuffer(text, "uint8") for a, text in texts.items() if a not in met},
        left=frozenset(layer.address for layer in bins),
        notes=(*_said(source, set(texts) - met), *(adapted.BOUNDARIES.format(layer.name) for layer in bins)),
    )


def _idf(address: str) -> str:
    return f"{address}/vars/{adapted.IDF}"


def _name(address: str) -> str:
    return f"model/{address}/vocabulary"


def is_copy(address: str) -> bool:
    """TextVectorization keeps what it holds a second time, for the lookup layer inside it."""
    return address.endswith("/_lookup_layer")


def _said(source: Source, unmet: Collection[str]) -> Iterator[str]:
    for address in sorted(unmet):
        yield f"the vocabulary in assets/{address} belongs to no layer that the settings describe"
    if source.others:
        more = f" and {len(source.others) - 1} more" if source.others[1:] else ""
        yield f"{source.others[0]}{more}: files that a layer wrote, which are not restored"
