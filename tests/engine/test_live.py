"""Names of what is live in a model of Keras 3, and no file of Keras holds."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from test_keras2 import SERIES, STATES, carrying

import resume
from resume.engine import capture, live, restore
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
