"""Archives of layers that were adapted, of both generations: loaded and moved with the outputs that they had."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import resume
from resume.errors import ContinuityError, SourceError
from resume.formats import archive

WORDS = tf.constant([["a b"], ["c a"]])
TERMS = tf.constant([["a", "b"], ["c", "a"]])
NUMBERS = tf.constant([[5, 7], [9, 5]], tf.int64)
FLOATS = tf.constant(np.linspace(-1, 1, 40, dtype="float32").reshape(20, 2))
ASSET = "assets/layers/string_lookup/vocabulary.txt"


def adapted(name: str, x: Any, **config: Any) -> tuple[Callable[[Any], Any], Any]:
    def build(library: Any) -> Any:
        layers = library.layers
        layer = getattr(layers, name)(**config)
        layer.adapt(x)
        inputs = library.Input(x.shape[1:], dtype=x.dtype.name)
        hidden = layer(inputs)
        if config.get("output_mode", "int") == "int":
            hidden = layers.Flatten()(layers.Embedding(9, 3)(hidden))
        model = library.Model(inputs, layers.Dense(2)(hidden))
        model.compile(library.optimizers.SGD(0.1, momentum=0.9), "mean_squared_error")
        model.train_on_batch(x[:2], np.ones((2, 2), "float32"))
        return model

    return build, x[:2]


CASES = {
    "strings": adapted("StringLookup", TERMS),
    "two out of it": adapted("StringLookup", TERMS, num_oov_indices=2, mask_token="b"),
    "integers": adapted("IntegerLookup", NUMBERS),
    "texts": adapted("TextVectorization", WORDS, output_sequence_length=2),
    "weighted": adapted("StringLookup", TERMS, output_mode="tf_idf", max_tokens=6, pad_to_max_tokens=True),
    "weighted texts": adapted("TextVectorization", WORDS, output_mode="tf_idf"),
    "bins": adapted("Discretization", FLOATS, num_bins=4),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", [keras, tf_keras])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_that_were(tmp_path: Path, library: Any, name: str) -> None:
    build, x = CASES[name]
    model = build(library)
    truth = np.asarray(model(x))
    model.save(tmp_path / "a.keras")
    loaded, proof = resume.load(tmp_path / "a.keras")
    assert (proof.verdict, proof.findings) == ("exact", ())
    assert np.array_equal(np.asarray(loaded(x)), truth)
    held = [n.rpartition("/")[2] for n in resume.read(tmp_path / "a.keras").specs]
    assert ("idf_weights" in held) == name.startswith("weighted")
    assert resume.convert(tmp_path / "a.keras", tmp_path / "b.keras").proof.verdict == "exact"
    assert np.array_equal(np.asarray(keras.models.load_model(tmp_path / "b.keras")(x)), truth)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_tf_idf_in_a_weights_file(tmp_path: Path) -> None:
    build, x = CASES["weighted texts"]
    model = build(keras)
    model.save_weights(tmp_path / "a.weights.h5")
    other = build(keras)
    layer = other.layers[1]._lookup_layer
    layer.set_vocabulary(
        layer.get_vocabulary(), idf_weights=np.arange(4)
    )  # what it computes with is a constant
    assert not np.array_equal(np.asarray(other(x)), np.asarray(model(x)))
    loaded, proof = resume.load(tmp_path / "a.weights.h5", model=other)
    assert (proof.verdict, proof.findings) == ("exact", ())
    assert np.array_equal(np.asarray(loaded(x)), np.asarray(model(x)))


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strings") / "a.keras"
    CASES["strings"][0](keras).save(path)
    return path


def rewritten(path: Path, target: Path, **members: Any) -> Path:
    """A copy of an archive with other members; a function makes a member of what it was."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in [*old.namelist(), *(n for n in members if n not in old.namelist())]:
            data = old.read(name) if name in old.namelist() else b""
            change = members.get(name, data)
            new.writestr(name, change(data) if callable(change) else change)
    return target


def without_layers(config: bytes) -> bytes:
    held = json.loads(config)
    return json.dumps({**held, "class_name": "Mine", "module": "mine", "config": {}}).encode()


def test_a_vocabulary_without_a_layer_is_missed(strings: Path, tmp_path: Path) -> None:
    path = rewritten(strings, tmp_path / "a.keras", **{"config.json": without_layers})
    state = resume.read(path)
    name = "model/layers/string_lookup/vocabulary"
    assert bytes(state.arrays[name]) == b"[UNK]\na\nc\nb"
    assert state.raw_names[name] == ASSET
    assert "the vocabulary in assets/layers/string_lookup belongs to no layer that the settings describe" in (
        state.notes
    )
    with pytest.raises(ContinuityError, match=f"{name}: in the source, nothing live takes it"):
        resume.load(path, model=CASES["strings"][0](keras))


def test_a_vocabulary_that_is_nowhere_is_asked_for(strings: Path, tmp_path: Path) -> None:
    path = rewritten(strings, tmp_path / "a.keras", **{ASSET: b"[UNK]"})
    with pytest.raises(SourceError) as refused:
        resume.load(path)
    assert str(refused.value).endswith(
        ": the vocabulary of this StringLookup is not in this file, or not in lines (a term has a line break), or it "
        "was never adapted. Build the model with its vocabulary in a function of your own, and name that (model=..., "
        "for convert --model MODULE:FUNCTION)."
    )
    model = CASES["strings"][0](keras)
    assert resume.load(path, model=model)[1].verdict == "exact"


def test_other_files_of_layers_are_named(strings: Path, tmp_path: Path) -> None:
    path = rewritten(strings, tmp_path / "a.keras", **{"assets/x/words.bin": b"1", "assets/y.txt": b"2"})
    assert resume.read(path).notes == (
        "assets/x/words.bin and 1 more: files that a layer wrote, which are not restored",
    )


def test_no_more_is_read_than_a_vocabulary_can_have(
    strings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_ASSETS_LIMIT", 8)
    with pytest.raises(SourceError, match="its vocabularies have more than 8 bytes; they are not read"):
        resume.read(strings)


def test_a_folder_is_read_alike_and_links_are_not_followed(strings: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(strings) as whole:
        whole.extractall(tmp_path / "a")
    truth = resume.read(strings).model_config
    assert resume.read(tmp_path / "a").model_config == truth
    for link in (ASSET, "assets/layers", "assets"):
        shutil.move(tmp_path / "a" / link, tmp_path / "elsewhere")
        (tmp_path / "a" / link).symlink_to(tmp_path / "elsewhere")
        assert resume.read(tmp_path / "a").model_config != truth
        with pytest.raises(SourceError, match="the vocabulary of this StringLookup is not in this file"):
            resume.load(tmp_path / "a")
        (tmp_path / "a" / link).unlink()
        shutil.move(tmp_path / "elsewhere", tmp_path / "a" / link)


@pytest.mark.filterwarnings("ignore")
def test_h5_files_of_keras_3_hold_no_vocabulary_and_settings_that_were_given(tmp_path: Path) -> None:
    model = CASES["weighted"][0](keras)
    model.save(tmp_path / "a.h5")
    with pytest.raises(SourceError, match="the vocabulary of this StringLookup is not in this file"):
        resume.load(tmp_path / "a.h5")
    inputs = keras.Input((2,), dtype="string")
    layer = keras.layers.StringLookup(output_mode="tf_idf", vocabulary=["a", "b"], idf_weights=[0.3, 0.7])
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    model.compile("sgd", "mean_squared_error")
    model.save(tmp_path / "b.h5")
    loaded, proof = resume.load(tmp_path / "b.h5")
    assert (proof.verdict, proof.findings) == ("exact", ())
    assert np.array_equal(np.asarray(loaded(TERMS)), np.asarray(model(TERMS)))


@pytest.mark.filterwarnings("ignore")
def test_bins_of_keras_2_in_its_other_formats(tmp_path: Path) -> None:
    build, x = CASES["bins"]
    model = build(tf_keras)
    model.save(tmp_path / "a.h5")
    model.save(tmp_path / "a", save_format="tf")
    note = (
        f"{model.layers[1].name}: its boundaries have been made of what adapt() counted, as Keras 2 makes them; the "
        "counts are left"
    )
    for path in (tmp_path / "a.h5", tmp_path / "a"):
        loaded, proof = resume.load(path)
        assert (proof.verdict, proof.findings) == ("exact", ())
        assert np.array_equal(np.asarray(loaded(x)), np.asarray(model(x)))
        assert resume.read(path).notes == (note,)
