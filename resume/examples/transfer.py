"""Transfer learning: a backbone that knows the digits 0 to 4, frozen, learns to tell 5 to 9 apart."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume.examples import digits

KNOWN, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
WEIGHTS = Path(__file__).with_name("backbone.npz")


def classifier(hidden: int = 32, dropout: float = 0.2, frozen: bool = True) -> Any:
    """(batch, 8, 8, 1) float32 -> (batch, 5) probabilities of the digits 5 to 9."""
    body = pretrained()
    body.trainable = not frozen
    inputs = keras.Input((8, 8, 1), name="image")
    # Not in training mode: its batch statistics would follow the new digits, frozen or not.
    x = body(inputs, training=False)
    x = keras.layers.Dense(hidden, activation="relu", name="hidden")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = keras.layers.Dense(len(NEW), activation="softmax", dtype="float32", name="digit")(x)
    return keras.Model(inputs, outputs, name="transfer")


def train(epoch: int = 0, seed: int = 0, batch_size: int = 32) -> tf.data.Dataset:
    """The digits 5 to 9 in an order that depends on (seed, epoch) alone; labels (batch,) int32 in 0..4."""
    return digits.train(epoch, seed, batch_size, classes=NEW)


def validation(batch_size: int = 120) -> tf.data.Dataset:
    """The held-out digits 5 to 9; elements as those of `train`."""
    return digits.validation(batch_size, classes=NEW)


def backbone(width: int = 16) -> Any:
    """(batch, 8, 8, 1) float32 -> (batch, 8 width) features; fresh weights."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = inputs
    for block, filters in enumerate((width, 2 * width), start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{block}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{block}")(x)
        x = keras.layers.ReLU(name=f"relu{block}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{block}")(x)
    outputs = keras.layers.Flatten(name="features")(x)
    return keras.Model(inputs, outputs, name="backbone")


def pretrained() -> Any:
    """The backbone with the shipped weights: an .npz of float32 arrays under their variables' paths."""
    model = backbone()
    with np.load(WEIGHTS) as file:
        for variable in model.variables:
            variable.assign(file[variable.path])
    return model
