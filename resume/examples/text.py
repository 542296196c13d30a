"""Two founding documents, letter by letter: a recurrent language model and the data for it."""

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_HELD_OUT = 6_000  # characters at the end of the text


def lstm(units: int = 96, embedding: int = 32, dropout: float = 0.1) -> Any:
    """(batch, time) int32 letters -> (batch, time, alphabet) logits of the letter that follows."""
    letters = len(alphabet())
    inputs = keras.Input((None,), dtype="int32", name="letters")
    x = keras.layers.Embedding(letters, embedding, name="embedding")(inputs)
    x = keras.layers.LSTM(units, return_sequences=True, name="lstm")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = keras.layers.Dense(letters, dtype="float32", name="next_letter")(x)
    return keras.Model(inputs, outputs, name="text_lstm")


def train(epoch: int = 0, seed: int = 0, batch_size: int = 32, length: int = 48) -> tf.data.Dataset:
    """The epoch's windows; where they are cut and their order depend on (seed, epoch) alone.

    Elements: letters (batch, length) int32 and the same one letter later. Every epoch has as many batches.
    """
    rng = np.random.default_rng((seed, epoch))
    windows = _windows(_text()[:-_HELD_OUT], length, start=int(rng.integers(length)))
    return _batches(rng.permutation(windows), batch_size)


def validation(batch_size: int = 64, length: int = 48) -> tf.data.Dataset:
    """Windows of the end of the text, always in the same order; elements as those of `train`."""
    return _batches(_windows(_text()[-_HELD_OUT:], length, start=0), batch_size)


def alphabet() -> str:
    """The letters of the text, sorted; a letter's number is its place in here."""
    return "".join(sorted(set(_characters())))


@cache
def _characters() -> str:
    return Path(__file__).with_name("text.txt").read_text("ascii")


def _text() -> Any:
    return np.unique(list(_characters()), return_inverse=True)[1].astype("int32")


def _windows(text: Any, length: int, start: int) -> Any:
    """(count, length + 1); one window fewer than fits, so that the count is the same for any start < length."""
    count = (len(text) - 1) // length - 1
    starts = start + length * np.arange(count)
    return text[starts[:, None] + np.arange(length + 1)]


def _batches(windows: Any, batch_size: int) -> tf.data.Dataset:
    pairs = (windows[:, :-1], windows[:, 1:])
    return tf.data.Dataset.from_tensor_slices(pairs).batch(batch_size).prefetch(2)
