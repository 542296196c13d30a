"""What a model leads to is found wherever it is kept, under the same name in every process, and comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from small import BreakAt, BrokenError, X, Y, classifier

import resume
from resume.engine import live, reach


class Table:
    """Of the user's own, and nothing that Keras knows."""

    me: Any
    model: Any
    inner: Any

    def __init__(self) -> None:
        self.scale = tf.Variable(1.0)
        self.deep = {"one": [{"two": (tf.Variable(1.0),)}]}
        self.names, self.many = ["a", "b"], list(range(100_000))


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(1.0)


class Scaled(keras.losses.Loss):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.noise = keras.Variable(1.0), keras.random.SeedGenerator(3)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        self.scale.assign(self.scale * 0.9)
        drawn = keras.random.normal(tf.shape(y_pred), seed=self.noise)
        return (
            keras.losses.sparse_categorical_crossentropy(y_true, y_pred + drawn, from_logits=True)
            * self.scale
        )


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self) -> None:
        self.rate = tf.Variable(0.1)

    def __call__(self, step: Any) -> Any:
        self.rate.assign(self.rate * 0.9)
        return self.rate + 0.0

    def get_config(self) -> dict[str, Any]:
        return {}


class Descent:
    """By a rate that is kept elsewhere, and falls."""

    def __init__(self, rate: tf.Variable) -> None:
        self.rate = rate

    def apply(self, gradients: list[Any], variables: list[Any]) -> None:
        self.rate.assign(self.rate * 0.9)
        for gradient, variable in zip(gradients, variables, strict=True):
            variable.assign_sub(0.1 * self.rate * gradient)


class Kept(keras.Model):
    """A training step of its own, by what is kept beside the layers."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(3)
        self.kept = kept

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, self(x), from_logits=True))
        for layer, optimizer in zip((self.first, self.second), self.pair(), strict=True):
            optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
        return {"loss": loss}

    def pair(self) -> list[Any]:
        if isinstance(self.kept, list):
            return self.kept
        if isinstance(self.kept, keras.optimizers.Optimizer):
            return [self.optimizer, self.kept]
        if isinstance(self.kept, keras.Model):
            return [self.optimizer, self.kept.optimizer]
        return [self.optimizer, Descent(self.kept.scale)]


def adam() -> Any:
    return keras.optimizers.Adam(0.05)


def other_model() -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(adam(), "mse")
    return model


def kept(make: Callable[[], Any]) -> keras.Model:
    keras.utils.set_random_seed(2)
    model = Kept(make())
    model(X[:1])
    model.compile(adam())
    return model


# What is made, and a name that something of it has in a checkpoint.
MODELS: dict[str, tuple[Callable[[], keras.Model], str]] = {
    "another optimizer": (lambda: kept(adam), "beside/kept/momentum/dense_1/kernel"),
    "a list of optimizers": (
        lambda: kept(lambda: [adam(), keras.optimizers.SGD(0.1, momentum=0.9)]),
        "beside/kept.1/momentum/dense_1/kernel",
    ),
    "another model's optimizer": (lambda: kept(other_model), "beside/kept.optimizer/velocity/dense_2/kernel"),
    "a wrapped one": (
        lambda: kept(lambda: keras.optimizers.LossScaleOptimizer(adam())),
        "beside/kept/momentum/dense_1/kernel",
    ),
    "a module": (lambda: kept(Module), "objects/kept.scale"),
    "an object": (lambda: kept(Table), "objects/kept.deep.one.0.two.0"),
    "a loss": (lambda: classifier(loss=Scaled()), "objects/loss.scale"),
    "a schedule": (
        lambda: classifier(optimizer=keras.optimizers.SGD(Falling())),
        "objects/optimizer.learning_rate.rate",
    ),
}


def arrays_of(run: Path) -> dict[str, Any]:
    return dict(resume.read(run).specs)


@pytest.mark.parametrize("kind", MODELS)
def test_it_comes_back(kind: str, tmp_path: Path) -> None:
    make, expected = MODELS[kind]

    def fit(run: str, *more: Any) -> None:
        given = {"epochs": 2, "batch_size": 8, "verbose": 0, "every_steps": 1}
        resume.fit(make(), X, Y, run_dir=tmp_path / run, callbacks=list(more), **given)

    fit("whole")
    for step in (3, 5):
        with pytest.raises(BrokenError):
            fit("broken", BreakAt(step))
    fit("broken")
    whole = arrays_of(tmp_path / "whole")
    assert expected in whole
    assert arrays_of(tmp_path / "broken") == whole
    assert resume.load(tmp_path / "whole", model=make())[1].verdict == "exact"


def test_nothing_is_found_twice() -> None:
    """An optimizer that the model's own wraps, a ring."""
    inner, table = adam(), Table()
    model = kept(lambda: [table, inner, inner])
    table.me, table.model, table.inner = table, model, inner
    model.compile(keras.optimizers.LossScaleOptimizer(inner))
    assert reach.of(model).optimizers == {}
    found = live.of(model).variables
    assert len({id(v) for v in found.values()}) == len(found)
    assert {name for name in found if name.startswith("objects/")} == {
        "objects/kept.0.scale", "objects/kept.0.deep.one.0.two.0",
    }  # fmt: skip


def test_what_layers_and_metrics_have_is_theirs() -> None:
    """Lookup layers, generators, normalizations, metrics: nothing of them is beside the model."""
    layers = [keras.layers.Normalization(), keras.layers.Dense(4), keras.layers.GaussianDropout(0.1)]
    layers += [keras.layers.Reshape((2, 2)), keras.layers.LSTM(3, dropout=0.2, stateful=True)]
    model = keras.Sequential([keras.Input((6,), batch_size=8), *layers])
    model.compile(
        adam(), "sparse_categorical_crossentropy", metrics=["accuracy", "sparse_top_k_categorical_accuracy"]
    )
    model.fit(X[:8], Y[:8] > 0, verbose=0)
    words = keras.layers.TextVectorization(output_mode="tf_idf")
    words.adapt(["a b", "b c"])
    for every in (model, keras.Sequential([keras.Input((1,), dtype="string"), words])):
        assert [n for n in live.of(every).variables if n.startswith(("objects/", live.BESIDE))] == []
