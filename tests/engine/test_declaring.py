"""What decides what is computed and is no variable is drift when it changes, whatever kind of model it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import BreakAt, BrokenError, X, Y, classifier

import resume


class Subclass(keras.Model):
    def __init__(self, rate: float = 0.1, activation: str = "relu") -> None:
        super().__init__()
        self.dense = keras.layers.Dense(4, activation=activation)
        self.dropout, self.out = keras.layers.Dropout(rate), keras.layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.out(self.dropout(self.dense(x), training=training))


def subclass(**given: Any) -> keras.Model:
    model = Subclass(**given)
    model(X[:1])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def texts(words: list[str]) -> keras.Model:
    lookup = keras.layers.TextVectorization(output_sequence_length=2, vocabulary=words)
    layers = [keras.Input((1,), dtype="string"), lookup, keras.layers.Embedding(9, 3), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def in_policy(name: str) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        return classifier()
    finally:
        keras.config.set_dtype_policy(before)


WORDS = np.array(["a b", "b c", "c d"] * 16)[:, None]


@pytest.mark.parametrize(
    ("make", "first", "then", "said"),
    [
        (subclass, {}, {"rate": 0.5}, r"layers\.1 Dropout\.rate: 0\.1 saved -> 0\.5"),
        (subclass, {}, {"activation": "tanh"}, r"layers\.0 Dense\.activation: relu saved -> tanh"),
        (
            texts,
            {"words": ["a", "b", "c"]},
            {"words": ["c", "b", "a"]},
            r"vocabularies\.0 TextVectorization: \w+ saved",
        ),
        (
            in_policy,
            {"name": "mixed_bfloat16"},
            {"name": "float32"},
            "policy: mixed_bfloat16 saved -> float32",
        ),
    ],
)
def test_another_declaration(tmp_path: Path, make: Any, first: Any, then: Any, said: str) -> None:
    def fit(given: Any, *more: Any) -> None:
        x: Any = tf.constant(WORDS) if make is texts else X
        options = {"run_dir": tmp_path, "epochs": 2, "batch_size": 8, "verbose": 0, "every_steps": 1}
        resume.fit(make(**given), x, Y, callbacks=more, **options)

    with pytest.raises(BrokenError):
        fit(first, BreakAt(2))
    with pytest.raises(resume.DriftError, match=said):
        fit(then)
    fit(first)


def test_a_single_callback_needs_no_list(tmp_path: Path) -> None:
    with pytest.raises(BrokenError):
        resume.fit(classifier(), X, Y, run_dir=tmp_path, verbose=0, callbacks=BreakAt(1))
