"""What `adapt()` found in data, put into the settings, as Keras writes it where it is given from the beginning.

A `.keras` archive keeps a lookup layer's vocabulary beside the settings, as the text
`assets/<address of the layer>/vocabulary.txt` (keras.src.layers.preprocessing.index_lookup, `save_assets`): a term a
line, those for the mask and for what is out of the vocabulary first. The weights of tf_idf are the layer's variable
`idf_weights`. `.h5` files and SavedModels keep no vocabulary: such layers are refused by resume.formats.trust.

Discretization of Keras 2 keeps a variable `summary`, a (2, n) histogram, and makes its boundaries of it once loaded.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resume.errors import SourceError
from resume.formats import layers
from resume.state import Arrays, TrainState

LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "TextVectorization"})
VOCABULARY, IDF, SUMMARY = "vocabulary.txt", "idf_weights", "summary"
_INTEGER = re.compile(r"-?\d{1,19}")
_TERMS_LIMIT = 1 << 23
BOUNDARIES = (
    "{}: its boundaries have been made of what adapt() counted, as Keras 2 makes them; the counts are left"
)


@dataclass(frozen=True)
class Adapted:
    """A layer of a config: its address in the archive, and its settings, which may be changed."""

    address: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.config.get("name"))


# ---- vocabularies ----


def completed(
    config: Mapping[str, Any],
    assets: Mapping[str, bytes],
    sizes: Mapping[str, int],
    weights: Mapping[str, np.ndarray[Any, Any]],
    *,
    twice: bool,
    path: Path,
) -> tuple[dict[str, Any], list[Adapted]]:
    """The config with the vocabularies that the archive holds beside it, and the layers that something was held of.

    `assets`: texts, `weights`: those of tf_idf, `sizes`: how many numbered variables there are; all by the address of
    their layer. `twice`: as in resume.formats.layers. Raises SourceError for what is no vocabulary.
    """
    if not assets and not weights:
        return dict(config), []
    own = copy.deepcopy(dict(config))
    marked = {**sizes, **dict.fromkeys([*assets, *weights], 1)}  # what stores one is listed at its address
    found = list(_at(own, marked, LOOKUPS, twice=twice))
    for lookup in found:
        if lookup.address in assets and lookup.config.get("vocabulary") is None:
            where = f"{path}: assets/{lookup.address}/{VOCABULARY}"
            terms = _terms(assets[lookup.address], lookup.config, where)
            _put(lookup, terms, weights.get(lookup.address), where)
    return own, found


def _at(
    config: dict[str, Any], sizes: Mapping[str, int], kinds: Collection[str], *, twice: bool
) -> Iterator[Adapted]:
    """Each layer of these classes once, at the address where it was met first."""
    known = dict(_by_path(config.get("config"), kinds, ""))
    for stored in layers.variables(config, sizes, twice=twice)[0]:
        address, found = (text.rpartition("/vars/")[0] for text in (stored.address, stored.path))
        if not stored.loose and found in known:
            yield Adapted(address, known[found])


def _by_path(value: Any, kinds: Collection[str], above: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings of layers by the names that lead to them, as resume.formats.layers gives paths."""
    if isinstance(value, list):
        for item in value:
            yield from _by_path(item, kinds, above)
    if not isinstance(value, dict):
        return
    config = value.get("config")
    if "class_name" not in value or not isinstance(config, dict):
        for item in value.values():
            yield from _by_path(item, kinds, above)
        return
    here = f"{above}/{config.get('name')}".lstrip("/")
    if layers.class_of(value) in kinds:
        yield here, config
    yield from _by_path(config, kinds, here)


def _terms(text: bytes, config: Mapping[str, Any], where: str) -> list[Any]:
    """Its lines; without the empty ones at the end that the layer does not count. None where they are not the terms."""
    if text.count(b"\n") >= _TERMS_LIMIT:
        raise SourceError(f"{where}: has more than {_TERMS_LIMIT} lines: damaged.")
    try:
        lines = _lines(text.decode())
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: is no text in UTF-8 ({error}): damaged.") from None
    size = config.get("vocabulary_size")
    while lines and not lines[-1] and not (isinstance(size, int) and len(lines) <= size):
        lines.pop()
    if isinstance(size, int) and len(lines) != size:
        return []  # a term has a line break: where it ends, nothing tells
    return [_integer(line, where) for line in lines] if _is_integer(config) else list(lines)


def _lines(text: str) -> list[str]:
    """As they were joined; Windows wrote each line break as two letters."""
    lines = text.split("\n")
    if len(lines) > 1 and all(line.endswith("\r") for line in lines[:-1]):
        return [line.removesuffix("\r") for line in lines]
    return lines


def _is_integer(config: Mapping[str, Any]) -> bool:
    return str(config.get("vocabulary_dtype", "string")).startswith("int")


def _integer(line: str, where: str) -> int:
    if not _INTEGER.fullmatch(line) or not -(1 << 63) <= int(line) < 1 << 63:
        raise SourceError(f"{where}: {line!r:.40} is no integer: damaged.")
    return int(line)


def _put(lookup: Adapted, terms: list[Any], weights: np.ndarray[Any, Any] | None, where: str) -> None:
    known = terms[_specials(lookup.config) :]
    if not known:
        return  # never adapted
    if len(set(known)) != len(known):
        raise SourceError(f"{where}: a term is there twice: damaged.")
    if weights is not None:
        if weights.ndim != 1 or len(weights) < len(terms):
            raise SourceError(f"{where}: has {len(terms)} terms and {weights.shape} weights: damaged.")
        lookup.config[IDF] = weights[: len(terms)].tolist()  # the layer fills up to max_tokens itself
    lookup.config["vocabulary"] = terms


def _specials(config: Mapping[str, Any]) -> int:
    """How many terms stand for the mask and for what is not in the vocabulary."""
    if "num_oov_indices" not in config:  # TextVectorization
        return 2 if config.get("output_mode") in (None, "int") else 1
    masked = config.get("mask_token") is not None and config.get("output_mode") in (None, "int")
    return int(config.get("num_oov_indices") or 0) + masked


def weights(config: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """(path, value) of the weights of tf_idf that the settings give, which an `.h5` of Keras 3 has nowhere else."""
    for _, settings in _by_path(config.get("config"), LOOKUPS, ""):
        terms, given = settings.get("vocabulary"), settings.get(IDF)
        if isinstance(terms, list) and isinstance(given, list) and len(given) == len(terms) > 0:
            yield f"{settings.get('name')}/{IDF}", _filled(settings, terms, np.asarray(given))


def _filled(
    settings: Mapping[str, Any], terms: list[Any], given: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """As the layer fills it up: the mean for the terms that it puts in front, zeros up to `max_tokens`."""
    special = [settings.get("mask_token", "")] * (
        _specials(settings) - int(settings.get("num_oov_indices", 1))
    )
    special += [settings.get("oov_token", "[UNK]")] * int(settings.get("num_oov_indices", 1))
    front = 0 if terms[: len(special)] == special else len(special)
    most = settings.get("max_tokens") if settings.get("pad_to_max_tokens") else None
    back = max(0, most - front - len(given)) if isinstance(most, int) else 0
    return np.pad(given.astype(float), (front, back), constant_values=(given.mean(), 0)).astype("float32")


# ---- boundaries ----


def binned(
    config: Mapping[str, Any],
    sizes: Mapping[str, int],
    read: Callable[[str], np.ndarray[Any, Any]],
    *,
    twice: bool,
) -> tuple[dict[str, Any], list[Adapted]]:
    """The config with the boundaries of its Discretization layers, and the layers whose summary has had its use.

    `sizes`: how many variables are at each address of the archive; `read`: the only one at an address.
    """
    if not any(True for _ in _by_path(config.get("config"), ("Discretization",), "")):
        return dict(config), []
    own = copy.deepcopy(dict(config))
    found = _at(own, sizes, ("Discretization",), twice=twice)
    return own, [layer for layer in found if _has_boundaries(layer.config, read(layer.address))]


def discretized(
    config: Mapping[str, Any], summaries: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[dict[str, Any], set[str]]:
    """The same by the layers' own names. A name that more than one layer has is left as it is."""
    own = copy.deepcopy(dict(config))
    found: dict[str, list[dict[str, Any]]] = {}
    for _, settings in _by_path(own.get("config"), ("Discretization",), ""):
        found.setdefault(str(settings.get("name")), []).append(settings)
    single = {name: settings[0] for name, settings in found.items() if len(settings) == 1}
    return own, {n for n, summary in summaries.items() if n in single and _has_boundaries(single[n], summary)}


def without_summaries(state: TrainState, summaries: Mapping[str, str]) -> TrainState:
    """A state of Keras 2 with boundaries in its settings. `summaries`: names of arrays by the layers' own names."""
    if state.model_config is None or not summaries:
        return state
    config, done = discretized(state.model_config, {n: state.arrays[name] for n, name in summaries.items()})
    gone = {summaries[name] for name in done}
    specs = {name: spec for name, spec in state.specs.items() if name not in gone}
    return replace(
        state,
        arrays=Arrays(specs, read=state.arrays.__getitem__),
        model_config=config,
        places={name: place for name, place in state.places.items() if name not in gone},
        raw_names={name: raw for name, raw in state.raw_names.items() if name not in gone},
        notes=(*state.notes, *(BOUNDARIES.format(name) for name in sorted(done))),
    )


def _has_boundaries(settings: dict[str, Any], summary: np.ndarray[Any, Any]) -> bool:
    """Whether they are there, or could be made."""
    return settings.get("bin_boundaries") is not None or _binned(settings, summary)


def _binned(settings: dict[str, Any], summary: np.ndarray[Any, Any]) -> bool:
    bins = settings.get("num_bins")
    if not isinstance(bins, int) or bins < 1:
        return False
    if summary.ndim != 2 or summary.shape[0] != 2 or not summary.shape[1] or not np.isfinite(summary).all():
        return False
    if not summary[1].sum() > 0:
        return False
    settings["bin_boundaries"], settings["num_bins"] = _boundaries(summary, bins), None
    return True


def _boundaries(summary: np.ndarray[Any, Any], bins: int) -> list[float]:
    """tf_keras.src.layers.preprocessing.discretization, `get_bin_boundaries`: bit for bit as there."""
    share = 1.0 / bins
    if summary.shape[1] * share >= 1:
        shares = share + np.arange(0.0, 1.0, share)
        weights = summary[1].cumsum()
        summary = np.interp(shares, weights / weights[-1], summary[0])[None].astype(np.float32)
    return [float(edge) for edge in summary[0, :-1]]
