"""Real Keras files of small models, made once a session, beside the live variables that they were made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)


@dataclass(frozen=True)
class Case:
    """A saved run: its files and the true values, `weights` by live variable path, `optimizer` in Keras's order."""

    keras: Path
    h5: Path | None  # None where Keras itself cannot write it
    reloaded: list[str]  # variable paths once Keras has rebuilt the model from its config
    weights: list[tuple[str, np.ndarray[Any, Any]]]
    optimizer: list[tuple[str, np.ndarray[Any, Any]]]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Cases by name; every model but the first is built in a process that has built others before."""
    import keras

    folder = tmp_path_factory.mktemp("runs")
    keras.utils.clear_session()  # names are counted from here, whatever other tests have built
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, of NumPy 2 and of the .h5 format
        return {name: _run(folder, name, model, keras) for name, model in _models(keras).items()}


def _models(keras: Any) -> dict[str, Callable[[], Any]]:
    layers, optimizers = keras.layers, keras.optimizers

    def mlp() -> Any:
        return keras.Sequential(
            [layers.Input((3,)), layers.Dense(3), layers.Dense(3), layers.Dense(3), layers.Dense(2)]
        )

    def mixture() -> Any:
        """Nested, frozen, shared, recurrent, normalised: what naming can get wrong."""
        inputs = layers.Input((3,))
        shared = layers.Dense(3)
        encoder = keras.Sequential(
            [layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5)], name="enc"
        )
        hidden = shared(keras.ops.add(shared(encoder(inputs)), 1.0))
        frozen = layers.Dense(3, trainable=False, name="frozen")(hidden)
        sequence = layers.Reshape((3, 1))(frozen)
        states = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(sequence)
        states = layers.MultiHeadAttention(1, 2)(states, states)
        return keras.Model(inputs, layers.Dense(2, name="head")(layers.LSTM(2)(states)))

    def compiled(build: Callable[[], Any], optimizer: Callable[[], Any]) -> Callable[[], Any]:
        def make() -> Any:
            model = build()
            model.compile(optimizer=optimizer(), loss="mean_squared_error")
            return model

        return make

    plain = {
        "adam": optimizers.Adam,
        "adamw_amsgrad": lambda: optimizers.AdamW(amsgrad=True),
        "sgd": lambda: optimizers.SGD(momentum=0.9),
        "rmsprop": lambda: optimizers.RMSprop(momentum=0.9, centered=True),
        "lion": optimizers.Lion,
        "nadam": optimizers.Nadam,
        "adafactor": optimizers.Adafactor,
        "ema_accumulation": lambda: optimizers.Adam(use_ema=True, gradient_accumulation_steps=2),
        "loss_scale": lambda: optimizers.LossScaleOptimizer(optimizers.Adam()),
        "schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)),
    }
    if hasattr(optimizers, "Muon"):
        plain["muon"] = optimizers.Muon
    cases = {name: compiled(mlp, optimizer) for name, optimizer in plain.items()}
    return cases | {"mixture": compiled(mixture, optimizers.Adam), "uncompiled": mlp}


def _run(folder: Path, name: str, make: Callable[[], Any], keras: Any) -> Case:
    model = make()
    built_with = getattr(model, "optimizer", None)  # a model that was never compiled lacks the attribute
    if built_with is not None:
        for _ in range(3):
            model.train_on_batch(X, Y)
    weights = _weights(model)
    optimizer = [(v.path, v.numpy()) for v in built_with.variables] if built_with else []
    archive, legacy = folder / f"{name}.keras", folder / f"{name}.h5"
    model.save(
        archive
    )  # before the .h5: Keras drops the optimizer from the live compile config when it writes one
    try:
        model.save(legacy)
    except ValueError:  # Adafactor: equal names in one HDF5 group
        legacy = None
    reloaded = [path for path, _ in _weights(keras.saving.load_model(archive, compile=False))]
    return Case(archive, legacy, reloaded, weights, optimizer)


def _weights(model: Any) -> list[tuple[str, np.ndarray[Any, Any]]]:
    seeds = {id(g.state) for layer in model._flatten_layers() for g in getattr(layer, "_seed_generators", [])}
    return [(v.path, v.numpy()) for v in model.weights if id(v) not in seeds]
