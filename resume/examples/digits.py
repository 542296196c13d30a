"""Handwritten digits, 8 x 8 pixels: a dense and a convolutional classifier, and the data for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_HELD_OUT = 360  # the last fifth: other writers than the first four


def mlp(hidden: int = 128, dropout: float = 0.2, classes: int = 10) -> Any:
    """(batch, 8, 8, 1) float32 -> (batch, classes) probabilities."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten(name="flatten")(inputs)
    x = keras.layers.Dense(hidden, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="digit")(x)
    return keras.Model(inputs, outputs, name="digits_mlp")


def cnn(width: int = 32, dropout: float = 0.3, classes: int = 10) -> Any:
    """(batch, 8, 8, 1) float32 -> (batch, classes) probabilities; augments while it trains."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant", name="shift")(inputs)
    x = keras.layers.RandomRotation(0.04, fill_mode="constant", name="turn")(x)
    for block, filters in enumerate((width, 2 * width), start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{block}")(x)
        x = keras.layers.ReLU(name=f"relu{block}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{block}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="digit")(x)
    return keras.Model(inputs, outputs, name="digits_cnn")


def train(
    epoch: int = 0, seed: int = 0, batch_size: int = 32, classes: Sequence[int] | None = None
) -> tf.data.Dataset:
    """The epoch's batches, in an order that depends on (seed, epoch) alone.

    Elements: image (batch, 8, 8, 1) float32 in [0, 1], label (batch,) int32.
    """
    images, labels = arrays("train", classes)
    order = np.random.default_rng((seed, epoch)).permutation(len(labels))
    return _batches(images[order], labels[order], batch_size)


def validation(batch_size: int = 120, classes: Sequence[int] | None = None) -> tf.data.Dataset:
    """Batches of the held-out digits, always in the same order; elements as those of `train`."""
    return _batches(*arrays("validation", classes), batch_size)


def arrays(split: str, classes: Sequence[int] | None = None) -> tuple[Any, Any]:
    """Images (n, 8, 8, 1) float32 in [0, 1] and labels (n,) int32 of "train" or "validation".

    With `classes`, only these digits are kept, and a label is the digit's place among them.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"].astype("int32")
    part = slice(None, -_HELD_OUT) if split == "train" else slice(-_HELD_OUT, None)
    images, labels = (images[part, :, :, None] / 16).astype("float32"), labels[part]
    if classes is None:
        return images, labels
    kept = np.isin(labels, classes)
    return images[kept], np.searchsorted(classes, labels[kept]).astype("int32")


def _batches(images: Any, labels: Any, batch_size: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size).prefetch(2)
