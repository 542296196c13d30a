"""Positions lead to the live variable that the format means, whatever the names are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from small import classifier

import resume
from resume.engine import live, places
from resume.state import Arrays, TrainState


def state(form: str, wanted: dict[str, str], flavour: str) -> TrainState:
    return TrainState(form, Path("a"), Arrays.of({}), flavour=flavour, places=wanted)


def shared(library: Any) -> Any:
    """A layer used twice, a nested model used twice, and a list of layers inside a layer."""
    layers = library.layers
    inner = library.Sequential(
        [layers.Dense(4, name="one"), layers.BatchNormalization(name="two")], name="inner"
    )
    x = layers.Input((4,), name="x")
    twice = layers.Dense(4, name="twice")
    out = layers.Dense(2, name="out")(inner(inner(twice(twice(x)))))
    return library.Model(x, out)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", [keras, tf_keras])
def test_every_address_of_an_archive_is_found(tmp_path: Path, library: Any) -> None:
    model = shared(library)
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 4), "float32"), np.ones((2, 2), "float32"))
    model.save(tmp_path / "a.keras")
    source = resume.read(tmp_path / "a.keras")
    found = places.of(model, source)
    assert set(found) == set(source.places.values())
    for name, place in source.places.items():
        assert np.array_equal(source.arrays[name], live.value(found[place])), name


@pytest.mark.filterwarnings("ignore")
def test_every_index_of_an_h5_of_keras_2_is_found(tmp_path: Path) -> None:
    model = shared(tf_keras)
    model.save(tmp_path / "a.h5")
    source = resume.read(tmp_path / "a.h5")
    found = places.of(model, source)
    assert set(found) == set(source.places.values())
    for name, place in source.places.items():
        assert np.array_equal(source.arrays[name], live.value(found[place])), name


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_edges_lead_where_tensorflow_would_restore(tmp_path: Path, library: Any) -> None:
    model = shared(library)
    prefix = tf.train.Checkpoint(model).save(str(tmp_path / "ckpt"))
    reader = tf.train.load_checkpoint(prefix)
    keys = [k for k in reader.get_variable_to_shape_map() if k.endswith("/.ATTRIBUTES/VARIABLE_VALUE")]
    wanted = {
        k: k.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for k in keys if not k.startswith("save_counter")
    }
    found = places.of(model, state("tf_checkpoint", wanted, "tf_keras"))
    assert len(found) == len(wanted) >= 8
    for key, place in wanted.items():
        assert np.array_equal(reader.get_tensor(key), found[place].numpy()), key


def test_a_place_that_the_model_lacks_is_left_out() -> None:
    model = classifier()
    assert places.of(model, state("keras", {"model/x": "layers/nowhere/vars/0"}, "keras")) == {}
    assert places.of(model, state("savedmodel", {"model/x": "layer_with_weights-9/kernel"}, "keras")) == {}
