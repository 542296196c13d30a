"""A model's config is serialised anew when something that it is made of has changed, and not otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
import tf_keras
from small import X, Y

from resume import plain
from resume.engine import capture, live


def model_of(K: Any) -> Any:
    layers = K.layers
    inner = K.Sequential([layers.Dense(4, name="deep"), layers.Dropout(0.1, name="inner_drop")], name="inner")
    inputs = K.Input((6,))
    x = layers.Dense(5, kernel_regularizer=K.regularizers.L2(0.25), name="first")(inputs)
    x = layers.Dropout(0.5, name="drop")(inner(layers.BatchNormalization(name="norm")(x)))
    model = K.Model(inputs, layers.Dense(3, activation="softmax", name="last")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


CHANGES: dict[str, Callable[[Any], object]] = {
    "the rate of a Dropout": lambda m: setattr(m.get_layer("drop"), "rate", 0.25),
    "the rate of an inner one": lambda m: setattr(m.get_layer("inner").get_layer("inner_drop"), "rate", 0.2),
    "what is trainable": lambda m: setattr(m.get_layer("first"), "trainable", False),
    "what is trainable inside": lambda m: setattr(m.get_layer("inner").get_layer("deep"), "trainable", False),
    "a regularizer's factor": lambda m: setattr(m.get_layer("first").kernel_regularizer, "l2", 0.5),
    "a regularizer": lambda m: setattr(m.get_layer("first"), "kernel_regularizer", None),
    "an activation": lambda m: setattr(m.get_layer("last"), "activation", _linear(m)),
    "a momentum": lambda m: setattr(m.get_layer("norm"), "momentum", 0.5),
}


def _linear(model: Any) -> Any:
    return (keras if isinstance(model, keras.Model) else tf_keras).activations.linear


@pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_every_change_is_noticed(K: Any) -> None:
    model = model_of(K)
    for what, change in CHANGES.items():
        before = plain.encode(capture.model_config(model))
        change(model)
        found = plain.encode(capture.model_config(model))
        assert found != before, what
        assert found == plain.encode(capture._serialised(model)), what


@pytest.mark.filterwarnings("ignore")  # tf_keras's own
@pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_it_is_the_same_object_while_a_training_goes_on(K: Any) -> None:
    model = model_of(K)
    callbacks = K.callbacks.CallbackList([], add_history=True, model=model, epochs=5, verbose=0, steps=2)
    configs = []
    for epoch in range(5):  # each a call of its own, as in a run
        model.fit(
            X,
            Y,
            validation_data=(X, Y),
            verbose=0,
            callbacks=callbacks,
            initial_epoch=epoch,
            epochs=epoch + 1,
        )
        model.optimizer.learning_rate = 0.5 / (epoch + 1)  # the optimizer is no part of it
        configs.append(capture.model_config(model))
    assert configs[2] is not None
    assert (
        configs[2] is configs[3] is configs[4] is capture.model_config(model)
    )  # by now Keras has made all it needs


def test_each_model_has_its_own() -> None:
    one, other = model_of(keras), model_of(keras)
    first, second = capture.model_config(one), capture.model_config(other)
    assert first is not second
    assert (capture.model_config(one), capture.model_config(other)) == (first, second)


def test_a_model_that_cannot_be_serialised_has_none() -> None:
    class Own(keras.Model):
        def __init__(self, given: object) -> None:
            super().__init__()

    model = Own(object())
    assert capture.model_config(model) is None
    assert capture.model_config(model) is None


def test_what_is_captured_is_a_copy() -> None:
    model = model_of(keras)
    model.optimizer.build(model.trainable_variables)
    state = capture.capture(model, epoch=1, batch=2)
    copies = {name: live.value(v) for name, v in live.of(model).variables.items()}
    model.fit(X, Y, verbose=0)
    assert (state.epoch, state.batch) == (1, 2)
    assert all(state.arrays[name].tobytes() == copy.tobytes() for name, copy in copies.items())
