"""Tensors as a model's layers hand them on: of each how many axes it has, and its mask in Keras 2 and in Keras 3.

A mask is not computed, only told apart from others: by where it was made and of what. Both libraries' compute_mask and
supports_masking were compared, class by class, with one masked input and with several.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MERGING = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"})
RECURRENT = frozenset({
    "LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional",
})  # fmt: skip
_KEEPING = frozenset({
    "Activation", "ActivityRegularization", "AdditiveAttention", "AlphaDropout", "Attention", "BatchNormalization",
    "Dense", "Dropout", "ELU", "GaussianDropout", "GaussianNoise", "GroupNormalization", "InputLayer",
    "LayerNormalization", "LeakyReLU", "MultiHeadAttention", "PReLU", "ReLU", "Softmax", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "ThresholdedReLU", "UnitNormalization",
})  # fmt: skip
_KEEPING_NOW = frozenset({"Identity", "Normalization", "Rescaling"})  # not in Keras 2
_OF_UNKNOWN_RANK = frozenset({
    "Dot", "Lambda", "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "CategoryEncoding", "Discretization",
    "Hashing", "HashedCrossing", "IntegerLookup", "StringLookup", "TextVectorization",
})  # fmt: skip

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Mask:
    """A mask by what made it: equal ones hold the same values."""

    made: Hashable
    rank: int | None = None


@dataclass(frozen=True)
class Tensor:
    """`rank`: None where it is not known. `causes`: why its masks differ, if so: (kind, layer)."""

    name: Hashable
    rank: int | None = None
    old: Mask | None = None
    new: Mask | None = None
    causes: frozenset[tuple[str, str]] = frozenset()


def handed_on(
    kind: str, config: Item, given: Sequence[Tensor], masks: list[Mask | None], *, in_keras_3: bool
) -> Mask | None:
    """The mask of what a layer makes."""
    if kind in _KEEPING or (kind in _KEEPING_NOW and in_keras_3):
        return masks[0]
    if kind in _MERGING:
        return _merged(config.get("axis") if kind == "Concatenate" else None, masks, in_keras_3)
    if kind == "Masking":
        rank = given[0].rank
        return Mask(("Masking", config.get("mask_value"), given[0].name), rank - 1 if rank else None)
    if kind == "Embedding" and config.get("mask_zero"):
        return Mask(("Embedding", given[0].name), given[0].rank)
    return masks[0] if kind in RECURRENT and _recurrent(config).get("return_sequences") else None


def _merged(axis: Any, masks: list[Mask | None], in_keras_3: bool) -> Mask | None:
    """Keras 2: masked where any input is. Keras 3: masked where all are, so nowhere if one has no mask."""
    known = list(dict.fromkeys(mask for mask in masks if mask is not None))
    if not known or (axis in (1, -2)):
        return Mask(("joined", tuple(masks)), known[0].rank) if known else None
    if in_keras_3 and None in masks:
        return None
    return (
        known[0]
        if len(known) == 1
        else Mask(("all" if in_keras_3 else "any", frozenset(known)), known[0].rank)
    )


def _recurrent(config: Item) -> Item:
    """The settings of the layer within Bidirectional, of any other its own."""
    inner = config.get("layer")
    found = inner.get("config") if isinstance(inner, Mapping) else config
    return found if isinstance(found, Mapping) else config


def rank_of(kind: str, config: Item, given: Sequence[Tensor]) -> int | None:
    ranks = [tensor.rank for tensor in given]
    first = ranks[0]
    if kind in _OF_UNKNOWN_RANK:
        return None
    if kind in _MERGING:
        return None if None in ranks else max(rank for rank in ranks if rank is not None)
    if kind == "Flatten" or (kind.startswith("Global") and not config.get("keepdims")):
        return 2
    if kind == "RepeatVector":
        return 3
    if kind == "Reshape" and isinstance(config.get("target_shape"), list | tuple):
        return len(config["target_shape"]) + 1
    if kind in RECURRENT and first is not None:
        return first - (not _recurrent(config).get("return_sequences"))
    if kind == "Embedding" and first is not None:
        return first + 1
    return first if first is not None else 4 if "2D" in kind else 5 if "3D" in kind else None
