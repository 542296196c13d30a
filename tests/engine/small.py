"""Small models and an interruption that is not a kill: enough where the process itself is not what is tested."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

X = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 48)


class BrokenError(Exception):
    pass


def crash() -> None:
    raise BrokenError


class BreakAt(keras.callbacks.Callback):
    """Ends a training at one of its steps, or at a batch of a validation: as a crash of the user's own code would, or
    `by` something else. Its count of steps begins anew each time."""

    def __init__(
        self, step: int | None = None, *, batch: int | None = None, by: Callable[[], object] = crash
    ) -> None:
        super().__init__()
        self.step, self.batch, self.by, self.count = step, batch, by, 0

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> None:
        pass

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.count += 1
        if self.count == self.step:
            self.by()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self.batch:
            self.by()


def classifier(*, dropout: float = 0.3, **compile_args: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, activation="relu"),
            layers.Dense(5),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
            layers.Dense(3, activation="softmax"),
        ]
    )
    arguments = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**{**arguments, **compile_args})
    return model


def epochs(model: Any, K: Any, count: int, *callbacks: Any) -> Iterator[int]:
    """Each an own call of `fit` with a validation, as in a run, the callbacks the same; yields after each."""
    listed = K.callbacks.CallbackList(
        list(callbacks), add_history=True, model=model, epochs=count, verbose=0, steps=2
    )
    for epoch in range(count):
        arguments = {"initial_epoch": epoch, "epochs": epoch + 1, "callbacks": listed}
        model.fit(X, Y, validation_data=(X, Y), verbose=0, **arguments)
        yield epoch


def save(model: keras.Model, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras calls .h5 legacy
        model.save(path)
    return path
