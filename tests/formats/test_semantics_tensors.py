"""Ranks and masks as single layers hand them on."""

from __future__ import annotations

from typing import Any

import pytest

from resume.formats.semantics_tensors import Mask, Tensor, handed_on, rank_of

ONE, TWO = Mask("one", 2), Mask("two", 2)


@pytest.mark.parametrize(
    ("kind", "config", "rank", "expected"),
    [
        ("Dense", {}, 3, 3),
        ("Conv2D", {}, None, 4),
        ("Conv3D", {}, None, 5),
        ("Dense", {}, None, None),
        ("Flatten", {}, 4, 2),
        ("GlobalMaxPooling2D", {}, 4, 2),
        ("GlobalMaxPooling2D", {"keepdims": True}, 4, 4),
        ("RepeatVector", {}, 2, 3),
        ("Reshape", {"target_shape": [2, 3, 4]}, None, 4),
        ("Embedding", {}, 2, 3),
        ("LSTM", {}, 3, 2),
        ("LSTM", {"return_sequences": True}, 3, 3),
        ("ConvLSTM2D", {}, 5, 4),
        ("Bidirectional", {"layer": {"class_name": "GRU", "config": {"return_sequences": True}}}, 3, 3),
        ("Lambda", {}, 3, None),
    ],
)
def test_ranks(kind: str, config: dict[str, Any], rank: int | None, expected: int | None) -> None:
    assert rank_of(kind, config, [Tensor("x", rank)]) == expected


def test_the_rank_of_what_is_merged() -> None:
    assert rank_of("Add", {}, [Tensor("x", 2), Tensor("y", 4)]) == 4
    assert rank_of("Add", {}, [Tensor("x", 2), Tensor("y")]) is None


@pytest.mark.parametrize(
    ("masks", "old", "new"),
    [
        ([None, None], None, None),
        ([ONE, ONE], ONE, ONE),
        ([ONE, None], ONE, None),
        ([ONE, TWO], Mask(("any", frozenset({ONE, TWO})), 2), Mask(("all", frozenset({ONE, TWO})), 2)),
        ([ONE, TWO, None], Mask(("any", frozenset({ONE, TWO})), 2), None),
    ],
)
def test_merged_masks(masks: list[Mask | None], old: Mask | None, new: Mask | None) -> None:
    given = [Tensor("x") for _ in masks]
    assert handed_on("Add", {}, given, masks, in_keras_3=False) == old
    assert handed_on("Add", {}, given, masks, in_keras_3=True) == new


def test_masks_that_layers_make() -> None:
    x, y = Tensor("x", 3), Tensor("y", 3)

    def made(kind: str, tensor: Tensor, **config: Any) -> Mask | None:
        return handed_on(kind, config, [tensor], [ONE], in_keras_3=False)

    assert made("Masking", x, mask_value=0.0) == made("Masking", x, mask_value=0.0)
    assert made("Masking", x, mask_value=0.0) != made("Masking", x, mask_value=1.0)
    assert made("Embedding", x, mask_zero=True) != made("Embedding", y, mask_zero=True)
    assert made("Embedding", x, mask_zero=False) is None
    assert made("Dense", x) == ONE
    assert made("Conv1D", x) is None
