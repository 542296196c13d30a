"""Whatever live objects are made of, a change of it is noticed, and a training is none."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from small import X, classifier, epochs

from resume.engine.structure import Structure


class Table:
    """Of the user's own, and nothing that Keras knows."""


class Kept(keras.layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.names = ["a", "b"]
        self.deep = {"one": [{"two": (1, [2.5])}]}
        self.seen = {3}
        self.halves = [["a", "b"], ["c"]]
        self.table = tf.Variable(tf.zeros(3))
        self.inner = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.25))

    def call(self, x: Any) -> Any:
        return self.inner(x)


CHANGES: dict[str, Callable[[Any], object]] = {
    "set": lambda k: setattr(k, "rate", 0.5),
    "replaced by an equal one": lambda k: setattr(k, "names", ["a", "b"]),
    "removed": lambda k: delattr(k, "names"),
    "appended": lambda k: k.names.append("c"),
    "in a list": lambda k: k.names.__setitem__(0, "c"),
    "swapped": lambda k: k.names.reverse(),
    "added to a set": lambda k: k.seen.add(4),
    "another in a set": lambda k: (k.seen.clear(), k.seen.add(4)),
    "a key": lambda k: k.deep.__setitem__("three", k.deep.pop("one")),
    "deep inside": lambda k: k.deep["one"][0]["two"][1].append(3.5),
    "moved to the next": lambda k: k.halves[1].insert(0, k.halves[0].pop()),
    "the value of a variable": lambda k: setattr(k.inner.kernel, "_value", tf.Variable(tf.zeros((6, 2)))),
    "a variable in place of one": lambda k: setattr(k, "table", tf.Variable(tf.zeros(3))),
    "of an inner layer": lambda k: setattr(k.inner, "units", 3),
    "of what an inner layer holds": lambda k: setattr(k.inner.kernel_regularizer, "l2", 0.5),
    "what is trainable": lambda k: setattr(k.inner, "trainable", False),
    "what of a layer is trainable": lambda k: setattr(k.inner.kernel, "trainable", False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change: str) -> None:
    layer = Kept()
    layer(X)
    structure = Structure([layer])
    assert structure.holds()
    CHANGES[change](layer)
    assert not structure.holds()
    assert Structure([layer]).holds()


def test_values_are_no_part_of_it() -> None:
    layer = Kept()
    layer(X)
    structure = Structure([layer])
    layer.table.assign(tf.ones(3))
    layer.inner.kernel.assign(np.ones((6, 2)))
    assert structure.holds()


@pytest.mark.filterwarnings("ignore")  # tf_keras's own
@pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_it_holds_while_a_training_goes_on(K: Any) -> None:
    inputs = K.Input((6,))
    x = K.layers.Dropout(0.5)(K.layers.BatchNormalization()(inputs))
    model = K.Model(inputs, K.layers.Dense(3, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    # Keras 2's metrics hold what they have told last.
    apart = (tf_keras.metrics.Metric,) if K is tf_keras else ()
    held: list[bool] = []
    structure = None
    for _ in epochs(model, K, 5):
        held.append(structure is not None and structure.holds())
        structure = Structure([model], apart=apart)
    assert held[2:] == [True, True, True]  # by then Keras has made all that it needs


def test_what_stands_apart_is_met_and_not_followed() -> None:
    model = classifier()
    structure = Structure([model], apart=(keras.optimizers.Optimizer,))
    assert model.optimizer in structure.met
    model.optimizer.clipnorm = 1.0
    assert structure.holds()
    assert model.optimizer not in Structure([model]).met


def test_nobody_knows_what_is_foreign() -> None:
    assert not Structure([classifier()]).foreign
    assert Structure([Kept()]).foreign
    layer = keras.layers.Dense(3)
    layer.note = Table()
    assert Structure([layer]).foreign
    layer.note = Table.__init__  # a function says what it is by itself
    assert not Structure([layer]).foreign
    for holder in (tf.Module(), types.SimpleNamespace()):
        layer.note = holder
        assert Structure([layer]).foreign


def test_what_a_validation_holds_is_let_go_of() -> None:
    """It comes at a validation and goes with it, and a snapshot lies in between."""
    model = classifier()
    model._eval_epoch_iterator = Table()
    data = weakref.ref(model._eval_epoch_iterator)
    structure = Structure([model])
    assert not structure.foreign
    del model._eval_epoch_iterator
    gc.collect()
    assert data() is None
    assert structure.holds()
