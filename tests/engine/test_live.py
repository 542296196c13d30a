"""Names of what is live in a model of Keras 3, and no file of Keras holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from test_keras2 import SERIES, STATES, carrying

import resume
from resume.engine import capture, live, restore, snapshot
from resume.formats import native


@pytest.mark.filterwarnings("ignore")
def test_what_stateful_layers_hand_on(tmp_path: Path) -> None:
    carrying(keras)
    model = carrying(keras)
    assert sorted(n for n in live.of(model).variables if n.startswith("states/")) == STATES
    assert not [n for n in live.of(model).variables if "_self_" in n]
    for file in (tmp_path / "a.keras", tmp_path / "a.h5"):
        model.save(file)
        _, proof = resume.load(file)
        assert sorted(f.name for f in proof.findings if f.name.startswith("states/")) == STATES
        assert proof.verdict == "partial"


def test_our_own_checkpoints_hold_it(tmp_path: Path) -> None:
    model = carrying(keras)
    (tmp_path / "a").mkdir()
    native.write(tmp_path / "a", capture.capture(model, epoch=0, batch=0))
    other = carrying(keras)
    proof = restore.restore(other, native.read(tmp_path / "a"))
    assert proof.verdict == "exact"
    assert np.array_equal(np.asarray(other(SERIES)), np.asarray(model(SERIES)))


def test_the_weights_of_an_inner_lookup_are_its_owners() -> None:
    layer = keras.layers.TextVectorization(
        output_mode="tf_idf", vocabulary=["a", "b"], idf_weights=[0.3, 0.7]
    )
    inputs = keras.Input((1,), dtype="string")
    found = live.of(keras.Model(inputs, layer(inputs))).variables
    assert [n for n in found if n.startswith("model/")] == ["model/text_vectorization/idf_weights"]


def test_what_no_training_step_is_expected_to_change() -> None:
    """What is frozen; not what BatchNorm keeps beside a scale that is trained."""
    layers = keras.layers
    base = keras.Sequential([layers.Dense(4), layers.BatchNormalization()], name="base")
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(name="norm")(base(inputs))
    head = layers.Dense(3, name="head")
    base.trainable = False
    model = keras.Model(inputs, head(layers.Dense(5, name="frozen", trainable=False)(x)))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    names = {"model/base/dense/kernel", "model/base/dense/bias", "model/frozen/kernel", "model/frozen/bias"}
    names |= {
        f"model/base/batch_normalization/{name}"
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    assert live.untrained(model, live.of(model)) == names
    head.trainable = False
    assert live.untrained(model, live.of(model)) == names | {"model/head/kernel", "model/head/bias"}


def test_bytes_of_all_that_a_checkpoint_holds() -> None:
    """A lookup layer's weights included, which are no variable of Keras's."""
    lookup = keras.layers.TextVectorization(
        output_mode="tf_idf", vocabulary=["a", "b"], idf_weights=[0.3, 0.7]
    )
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="float16")(lookup(inputs)))
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    state = capture.capture(model, epoch=0, batch=0)
    assert "model/text_vectorization/idf_weights" in state.specs
    assert live.nbytes(model) == state.nbytes
    assert snapshot.Snapshots(model).take(epoch=0, batch=0, progress={}).nbytes == state.nbytes


class Backwards(keras.optimizers.Optimizer):
    """Keeps its slots in another order than the variables'."""

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.sums = self.add_optimizer_variables(variables[::-1], "sum")


def test_a_list_of_slots_in_another_order_is_read_by_their_paths() -> None:
    model = keras.Sequential([keras.Input((6,)), *(keras.layers.Dense(6) for _ in range(2))])
    model.compile(Backwards(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    found = live.of(model).variables
    for name in ("dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"):
        owner = found[f"model/{name}"]
        assert found[f"optimizer/sum/{name}"].path.endswith(owner.path.replace("/", "_") + "_sum")
