"""Every optimizer class that Keras exports, through .h5 and .keras: all slots those of the saving process, and the
next five steps those of the unbroken run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.optimizers.multi_optimizer import OptimizerMap
from small import save

import resume
from resume.engine import live

K = keras.optimizers
X = np.random.default_rng(0).normal(size=(96, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(96, 2)).astype("float32")

_WRAPPERS = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
CLASSES = sorted(
    name for name, item in vars(K).items()
    if isinstance(item, type) and issubclass(item, K.Optimizer) and name not in _WRAPPERS
)  # fmt: skip
VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "schedule": lambda: {"learning_rate": K.schedules.CosineDecay(1e-2, 50)},
    "average": lambda: {"use_ema": True},
    "accumulation": lambda: {"gradient_accumulation_steps": 3},
}
CASES: dict[str, Callable[[], Any]] = {
    f"{name} {variant}": lambda name=name, arguments=arguments: getattr(K, name)(**arguments())  # type: ignore[misc]
    for name in CLASSES
    for variant, arguments in VARIANTS.items()
} | {
    "SGD momentum": lambda: K.SGD(0.01, momentum=0.9, nesterov=True),
    "RMSprop centered": lambda: K.RMSprop(momentum=0.9, centered=True),
    "Adam amsgrad": lambda: K.Adam(amsgrad=True),
    "LossScaleOptimizer": lambda: K.LossScaleOptimizer(K.Adam(use_ema=True)),
}


def model_with(optimizer: Any, *, eagerly: bool = False) -> keras.Model:
    """Nested, partly frozen, normalised, with layers of equal shape; another model was built before it."""
    layers = keras.layers
    keras.Sequential([keras.Input((2,)), layers.Dense(5), layers.BatchNormalization()])
    inputs = keras.Input((6,))
    block = keras.Sequential(
        [layers.Dense(5, activation="relu"), layers.BatchNormalization(), layers.Dense(5)], name="block"
    )
    x = layers.Dense(5)(block(layers.Dense(5)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(5, trainable=False)(x)))
    model.compile(optimizer, "mse", run_eagerly=eagerly)
    return model


def trained(model: keras.Model, steps: range) -> keras.Model:
    for step in steps:
        model.train_on_batch(X[8 * step : 8 * step + 8], Y[8 * step : 8 * step + 8])
    return model


def state_of(model: keras.Model) -> dict[str, Any]:
    named = live.of(model).variables.items()
    return {name: live.value(v) for name, v in named if name.startswith(("model/", "optimizer/"))}


def unequal(found: dict[str, Any], truth: dict[str, Any]) -> list[str]:
    names = found.keys() | truth.keys()
    return sorted(n for n in names if not (n in found and n in truth and np.array_equal(found[n], truth[n])))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_slots_and_the_next_five_steps(tmp_path: Path, case: str) -> None:
    keras.utils.set_random_seed(1)
    model = trained(
        model_with(CASES[case](), eagerly=not case.endswith("plain")), range(7)
    )  # eager: nothing to trace
    truth = state_of(model)
    files = [save(model, tmp_path / "a.keras")]
    if not case.startswith("Adafactor"):  # Keras itself cannot: see below
        files.append(save(model, tmp_path / "a.h5"))
    after = state_of(trained(model, range(7, 12)))
    for file in files:
        loaded, proof = resume.load(file)
        assert proof.verdict == "exact"
        assert proof.iterations_restored == 7
        assert proof.arrays == len(truth)
        assert unequal(state_of(loaded), truth) == []
        assert unequal(state_of(trained(loaded, range(7, 12))), after) == []


def test_an_h5_that_keras_cannot_write_is_explained(tmp_path: Path) -> None:
    model = trained(model_with(K.Adafactor()), range(1))
    with pytest.raises(ValueError, match="name already exists"):
        save(model, tmp_path / "a.h5")
    with pytest.raises(
        resume.SourceError, match=r"Keras cannot write such a model to \.h5.*save it as \.keras"
    ):
        resume.load(tmp_path / "a.h5")


def test_a_choice_by_path_that_changes_when_rebuilt_is_refused(tmp_path: Path) -> None:
    """MultiOptimizer chooses by variable path; Keras gives nested layers other paths when it rebuilds a model."""
    chosen = OptimizerMap(K.SGD(0.01, momentum=0.9), {"block/.*": K.Adam(0.01)})
    model = trained(model_with(K.MultiOptimizer(chosen)), range(3))
    with pytest.raises(resume.ContinuityError, match="continuity broken"):
        resume.load(save(model, tmp_path / "a.keras"))
