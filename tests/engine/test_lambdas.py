"""Functions of Lambda layers come from the configuration; the code in a file is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tf_keras

from resume.engine import lambdas


def tripled(x: Any) -> Any:
    return 3 * x


def anonymous(library: Any, path: Path) -> Any:
    """A model whose Lambda layer doubles, saved as .h5 and .keras."""
    layers = library.layers
    model = library.Sequential(
        [layers.InputLayer((3,)), layers.Dense(2, name="d"), layers.Lambda(lambda x: 2 * x, name="twice")]
    )
    model.save(path.with_suffix(".h5"))
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", ["<lambda>", "twice"])
@pytest.mark.parametrize("library", [keras, tf_keras])
def test_the_named_function_takes_the_place_of_the_files_code(tmp_path: Path, library: Any, key: str) -> None:
    model = anonymous(library, tmp_path / "a")
    with h5py.File(tmp_path / "a.h5") as file:
        described = json.loads(file.attrs["model_config"])
    for config in (described, library.saving.serialize_keras_object(model)):
        assert "4wEAAAA" in json.dumps(config)  # marshalled code
        named = lambdas.named(config, {key: tripled})
        (layer,) = [item for item in named["config"]["layers"] if item["class_name"] == "Lambda"]
        assert "4wEAAAA" not in json.dumps(layer, default=str)
        if "module" in config:
            rebuilt = library.saving.deserialize_keras_object(named, custom_objects={key: tripled})
        elif library is tf_keras:
            rebuilt = library.models.model_from_config(named, {key: tripled})
        else:
            continue
        rebuilt.set_weights(model.get_weights())
        x = np.ones((1, 3), "float32")
        assert np.allclose(np.array(rebuilt(x)), 1.5 * np.array(model(x)))


def test_nothing_is_replaced_without_a_name() -> None:
    config = {"class_name": "Lambda", "config": {"name": "twice", "function": ["code", None, None]}}
    assert lambdas.named([config], {"other": tripled}) == [config]
