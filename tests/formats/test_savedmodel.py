"""SavedModels of real runs, fresh ones, and damaged ones."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import h5, savedmodel
from resume.state import TrainState

FIXTURES = Path(__file__).parents[1] / "fixtures"
X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)


def fixture(case: str) -> Path:
    (folder,) = FIXTURES.glob(f"{case}_*/saved_model")
    return folder


def unshared(value: Any) -> Any:
    """Without what Keras adds to the settings in a SavedModel, or leaves out of them."""
    if isinstance(value, dict):
        left_out = ("shared_object_id", "module", "registered_name")
        return {key: unshared(item) for key, item in value.items() if key not in left_out}
    return [unshared(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", ["o04", "o08", "o10", "o11", "o15", "o18", "o19"])
def test_the_settings_are_those_of_the_h5_file_of_the_same_run(case: str) -> None:
    state, other = savedmodel.read(fixture(case)), h5.read(fixture(case).with_name("model.h5"))
    assert unshared(state.model_config) == unshared(other.model_config)
    assert unshared(state.compile_config) == unshared(other.compile_config)
    assert state.keras_version == other.keras_version
    assert state.optimizer is not None
    assert other.optimizer is not None
    assert (state.optimizer.class_name, state.optimizer.legacy) == (
        other.optimizer.class_name,
        other.optimizer.legacy,
    )
    assert set(state.weights) == set(other.weights)
    assert set(state.slots) == set(other.slots)
    assert state.notes == ()


def test_a_subclassed_model_comes_with_the_settings_that_it_stored() -> None:
    state = savedmodel.read(fixture("o17"))
    assert state.model_config == {
        "class_name": "SubNet",
        "config": {"hidden": 7},
        "build_config": {"input_shape": [16, 6]},
    }


def test_holds_a_directory_or_its_saved_model(tmp_path: Path) -> None:
    assert savedmodel.holds(fixture("o08"))
    assert savedmodel.holds(fixture("o08") / "saved_model.pb")
    assert not savedmodel.holds(fixture("o08") / "variables")
    assert not savedmodel.holds(tmp_path)
    assert savedmodel.read(fixture("o08") / "saved_model.pb").iterations == 7


def test_a_savedmodel_without_its_data_is_refused() -> None:
    with pytest.raises(
        SourceError, match=r"variables\.data-00000-of-00001: missing; this part of the checkpoint"
    ):
        savedmodel.read(fixture("on3"))


def test_a_savedmodel_without_variables_is_refused(tmp_path: Path) -> None:
    shutil.copyfile(fixture("o08") / "saved_model.pb", tmp_path / "saved_model.pb")
    with pytest.raises(SourceError, match=r"variables\.index: no such file"):
        savedmodel.read(tmp_path)


def sequential(keras: Any, **options: Any) -> Any:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss="mean_squared_error", run_eagerly=True, **options)
    return model


def test_an_optimizer_that_was_left_out_is_missed(tmp_path: Path) -> None:
    import tf_keras as keras

    model = sequential(keras, optimizer="adam")
    model.train_on_batch(X, Y)
    model.save(tmp_path / "sm", save_format="tf", include_optimizer=False)
    state = savedmodel.read(tmp_path / "sm")
    assert h5.NO_OPTIMIZER in state.notes
    assert state.optimizer is None
    assert state.slots == ()
    assert state.model_config is not None


def test_a_legacy_optimizer_before_its_first_step_has_nothing(tmp_path: Path) -> None:
    import tf_keras as keras

    sequential(keras, optimizer=keras.optimizers.legacy.Adam()).save(tmp_path / "sm", save_format="tf")
    state = savedmodel.read(tmp_path / "sm")
    assert state.notes == (h5.UNTRAINED,)
    assert state.unheld == ("optimizer",)
    assert state.optimizer is not None


def test_a_model_of_a_class_of_its_own_without_settings(tmp_path: Path) -> None:
    import tf_keras as keras

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.head(x)

    model = Net()
    model.compile(optimizer="adam", loss="mean_squared_error", run_eagerly=True)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "sm", save_format="tf")
    state = savedmodel.read(tmp_path / "sm")
    assert state.model_config is None
    assert savedmodel.NO_CONFIG.format("Net") in state.notes
    assert state.optimizer is not None
    assert state.optimizer.class_name == "Adam"
    assert state.flavour == "tf_keras"


def test_an_export_of_keras_3_holds_variables_only(tmp_path: Path) -> None:
    import keras

    model = sequential(keras, optimizer="adam")
    model.train_on_batch(X, Y)
    model.export(tmp_path / "sm", verbose=0)
    state = savedmodel.read(tmp_path / "sm")
    assert set(state.specs) == {"model/dense/kernel", "model/dense/bias"}
    assert state.notes == (savedmodel.NO_KERAS, h5.NO_OPTIMIZER)
    assert state.model_config is None


def test_copies_of_the_settings_must_agree(tmp_path: Path) -> None:
    shutil.copytree(fixture("o08"), tmp_path / "sm")
    file = tmp_path / "sm" / "keras_metadata.pb"
    data = file.read_bytes()
    assert data.count(b'"activation": "relu"') > 1
    file.write_bytes(data.replace(b'"activation": "relu"', b'"activation": "selu"', 1))
    with pytest.raises(SourceError, match="the two copies of the model's settings differ"):
        savedmodel.read(tmp_path / "sm")


def content(state: TrainState) -> list[bytes]:
    return sorted(state.arrays[name].tobytes() for name in state.specs)


@pytest.mark.parametrize("case", ["o04", "o08"])
def test_damage_is_found_or_does_no_harm(case: str, tmp_path: Path) -> None:
    """250 flipped or cut files: refused, or every array as it was; nothing else is raised, and nothing hangs."""
    whole, draw = content(savedmodel.read(fixture(case))), random.Random(case)
    shutil.copytree(fixture(case), tmp_path / "sm")
    files = [
        file for file in (tmp_path / "sm").rglob("*") if file.is_file() and file.name != "fingerprint.pb"
    ]
    refused = 0
    for trial in range(250):
        file = draw.choice(files)
        data = file.read_bytes()
        at = draw.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        file.write_bytes(data[:at] if trial % 5 == 0 else flipped)
        start = time.monotonic()
        try:
            assert content(savedmodel.read(tmp_path / "sm")) == whole
        except SourceError as error:
            refused += str(tmp_path) in str(error)
        assert time.monotonic() - start < 1
        file.write_bytes(data)
    assert refused > 100


def test_tensorflow_is_not_needed(python: Callable[..., subprocess.Popen[str]]) -> None:
    code = (
        "import sys, json, resume; state = resume.read(sys.argv[1]); state.arrays[state.slots[0]]; "
        "print(json.dumps([state.iterations, sorted({m.split('.')[0] for m in sys.modules})]))"
    )
    process = python(code, fixture("o08"))
    iterations, modules = json.loads(process.communicate(timeout=60)[0])
    assert iterations == 7
    assert not {"tensorflow", "keras", "tf_keras", "google.protobuf"} & set(modules)


@pytest.mark.filterwarnings("ignore")
def test_vocabularies_are_in_one_copy_of_the_settings_only(tmp_path: Path) -> None:
    import tf_keras

    import resume

    def saved(name: str, **config: Any) -> Any:
        layers = tf_keras.layers
        inputs, again = tf_keras.Input((2,), dtype="string"), tf_keras.Input((2,), dtype="string")
        layer = layers.StringLookup(**config)
        if "vocabulary" not in config:
            layer.adapt(np.array([["a", "b"]]))
        hidden = tf_keras.Model(inputs, layer(inputs), name="inner")(again)
        model = tf_keras.Model(again, layers.Dense(2)(layers.Flatten()(layers.Embedding(5, 2)(hidden))))
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
        model.train_on_batch(np.array([["a", "b"]]), np.ones((1, 2), "float32"))
        model.save(tmp_path / name, save_format="tf")
        return model

    model, words = saved("given", vocabulary=["b", "a"]), np.array([["a", "x"]])
    loaded, proof = resume.load(tmp_path / "given")
    assert (proof.verdict, proof.findings) == ("exact", ())
    assert np.array_equal(np.asarray(loaded(words)), np.asarray(model(words)))
    assert resume.convert(tmp_path / "given", tmp_path / "moved.keras").proof.verdict == "exact"
    saved("adapted")
    with pytest.raises(
        SourceError, match=r"/inner/string_lookup_?\d*: the vocabulary of this StringLookup is not in"
    ):
        resume.load(tmp_path / "adapted")


def test_settings_that_differ_elsewhere_are_damaged() -> None:
    one = {"vocabulary": None, "has_input_vocabulary": True, "max_tokens": 4}
    other = {"vocabulary": ["a"], "max_tokens": 4}
    assert savedmodel._bare([one]) == savedmodel._bare([other])
    assert savedmodel._bare([one]) != savedmodel._bare([{**other, "max_tokens": 5}])
    assert savedmodel._with_vocabularies([one], [other]) == [other]
