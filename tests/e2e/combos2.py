"""Models and a callback of the end-to-end runs in tf_keras; the data are those of combos."""

from pathlib import Path

import tf_keras as keras
from tf_keras import layers


def dense():
    return keras.Sequential([
        layers.Flatten(input_shape=(8, 8, 1)), layers.Dense(12, activation="relu"), layers.BatchNormalization(),
        layers.Dropout(0.3), layers.Dense(12, activation="relu"), layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def recurrent():
    return keras.Sequential([
        layers.Embedding(20, 6, input_length=7), layers.Bidirectional(layers.LSTM(8)), layers.GaussianNoise(0.1),
        layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


class Tell(keras.callbacks.Callback):
    """Shows the outside when a validation is under way, so that a kill can hit it."""

    def __init__(self, file):
        super().__init__()
        self.file = Path(file)

    def on_test_begin(self, logs=None):
        self.file.touch()

    def on_test_end(self, logs=None):
        self.file.unlink()
