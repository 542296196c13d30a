"""`.keras` archives: positions become names, and every array is the live variable that its name says."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import h5, keras
from resume.names import Scheme

ALL = [
    "adam", "adamw_amsgrad", "sgd", "rmsprop", "lion", "nadam", "muon", "adafactor", "ema_accumulation", "loss_scale",
    "schedule", "mixture",
]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_the_optimizers_variables_are_all_there_in_order(runs: dict[str, Any], name: str) -> None:
    run = runs[name]
    state = keras.read(run.keras)
    raw = {address: canonical for canonical, address in state.raw_names.items()}
    assert sorted(raw) == sorted(state.raw_names.values())
    for n, (path, value) in enumerate(run.optimizer):
        canonical = raw[f"optimizer/vars/{n}"]
        assert state.arrays[canonical].tobytes() == value.tobytes(), (canonical, path)
    assert len(state.specs) == len(run.optimizer) + len(run.weights)
    assert state.notes == ()


@pytest.mark.parametrize("name", [n for n in ALL if n != "adafactor"])
def test_derived_names_are_those_that_the_h5_file_states(runs: dict[str, Any], name: str) -> None:
    derived, stated = keras.read(runs[name].keras), h5.read(runs[name].h5)
    assert set(derived.specs) == set(stated.specs)
    for canonical in derived.specs:
        assert derived.arrays[canonical].tobytes() == stated.arrays[canonical].tobytes(), canonical


def test_a_model_that_keras_has_rebuilt_gets_the_same_names(runs: dict[str, Any]) -> None:
    run = runs["mixture"]
    state = keras.read(run.keras)
    assert state.model_config is not None
    names = Scheme.of(state.model_config).canonical(run.reloaded)
    assert [
        path for path, _ in run.weights
    ] != run.reloaded  # `enc/dense/kernel` comes back as `dense/kernel`
    assert {f"model/{name}" for name in names} == set(state.weights)


def test_adafactors_factors(runs: dict[str, Any]) -> None:
    state = keras.read(runs["adafactor"].keras)
    assert state.specs["optimizer/r/dense/kernel"].shape == (3,)
    assert state.specs["optimizer/c/dense_3/kernel"].shape == (2,)
    assert state.specs["optimizer/r/dense/bias"].shape == ()  # a scalar that Keras never uses
    assert state.specs["optimizer/velocity/dense_3/kernel"].shape == (3, 2)


def test_what_the_archive_says_of_the_run(runs: dict[str, Any]) -> None:
    state = keras.read(runs["loss_scale"].keras)
    assert (state.format, state.iterations, state.epoch, state.batch) == ("keras", 3, None, None)
    assert state.optimizer is not None
    assert (state.optimizer.class_name, state.optimizer.inner.class_name) == ("LossScaleOptimizer", "Adam")
    assert state.model_config is not None
    assert state.model_config["class_name"] == "Sequential"
    assert "compile_config" not in state.model_config
    assert state.compile_config is not None
    assert state.raw_names["optimizer/iteration"] == "optimizer/vars/4"


def test_saved_without_optimizer(runs: dict[str, Any]) -> None:
    state = keras.read(runs["uncompiled"].keras)
    assert state.optimizer is None
    assert state.notes == ("this file was saved without its optimizer",)


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _rewrite(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _copy(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    members = _members(source)
    change(members)
    _rewrite(target, members)
    return target


def _json(member: str, change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        content = json.loads(members[member])
        change(content)
        members[member] = json.dumps(content).encode()

    return apply


def _weights(change: Callable[[h5py.File], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        members["model.weights.h5"] = buffer.getvalue()

    return apply


def _counter(value: Any) -> Callable[[dict[str, bytes]], None]:
    def change(file: h5py.File) -> None:
        del file["optimizer/vars/0"]
        file["optimizer/vars/0"] = value

    return _weights(change)


def _gap(file: h5py.File) -> None:
    del file["optimizer/vars/5"]


def _external(file: h5py.File) -> None:
    del file["layers/dense"]
    file["layers/dense"] = h5py.ExternalLink("other.h5", "/x")


def _npz(members: dict[str, bytes]) -> None:
    members["model.weights.npz"] = members.pop("model.weights.h5")


DAMAGE: dict[str, tuple[Callable[[dict[str, bytes]], Any], str]] = {
    "no config": (lambda m: m.pop("config.json"), r"config\.json is missing"),
    "no weights": (lambda m: m.pop("model.weights.h5"), r"model\.weights\.h5 is missing"),
    "npz": (_npz, "pickles, which are not opened"),
    "json": (lambda m: m.update({"config.json": b"{"}), r"config\.json cannot be read"),
    "twice": (lambda m: m.update({"config.json": b'{"a": 1, "a": 2}'}), "the key 'a' occurs twice"),
    "future": (
        _json("metadata.json", lambda c: c.update(keras_version="4.0.0")),
        r"written by Keras 4\.0\.0; files of Keras 1 to 3 can be read",
    ),
    "weights": (lambda m: m.update({"model.weights.h5": b"x" * 5000}), "cannot be read"),
    "negative": (_counter(np.int64(-3)), "the iteration count, is -3"),
    "infinite": (_counter(np.float32("inf")), "the iteration count, is inf"),
    "gap": (_weights(_gap), "optimizer/vars holds .* which is not 0, 1, 2"),
    "external": (_weights(_external), "layers/dense is a link to elsewhere"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(runs: dict[str, Any], tmp_path: Path, kind: str) -> None:
    change, message = DAMAGE[kind]
    path = _copy(runs["adam"].keras, tmp_path / "run.keras", change)
    with pytest.raises(SourceError, match=message) as caught:
        keras.read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "the file is empty"), (b"hello, world", r"not a \.keras archive")]
)
def test_other_content(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.keras"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        keras.read(path)


def test_truncated_and_flipped(runs: dict[str, Any], tmp_path: Path) -> None:
    path, whole = tmp_path / "run.keras", runs["adam"].keras.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="damaged or was cut off"):
        keras.read(path)
    at = whole.index(b"\x89HDF") + 5000
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(SourceError, match=r"model\.weights\.h5 is damaged \(Bad CRC-32"):
        keras.read(path)


def test_an_archive_that_changes_underneath(runs: dict[str, Any], tmp_path: Path) -> None:
    path = _copy(runs["adam"].keras, tmp_path / "run.keras", lambda members: None)
    state = keras.read(path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(SourceError, match="written to since it was opened"):
        state.arrays["optimizer/iteration"]


def test_a_repacked_archive_reads_the_same(runs: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.keras"
    _rewrite(path, _members(runs["adam"].keras), zipfile.ZIP_DEFLATED)
    repacked, original = keras.read(path), keras.read(runs["adam"].keras)
    for name in original.specs:
        assert repacked.arrays[name].tobytes() == original.arrays[name].tobytes()


def test_an_optimizer_that_cannot_be_laid_out_is_numbered(runs: dict[str, Any], tmp_path: Path) -> None:
    def custom(config: dict[str, Any]) -> None:
        config["compile_config"]["optimizer"]["class_name"] = "MyAdam"

    state = keras.read(_copy(runs["adam"].keras, tmp_path / "run.keras", _json("config.json", custom)))
    assert state.iterations == 3
    assert state.learning_rate == pytest.approx(0.001)
    assert state.raw_names["optimizer/vars/2"] == "optimizer/vars/2"
    assert len(state.specs) == len(keras.read(runs["adam"].keras).specs)
    assert any("could not be derived" in note for note in state.notes)


def test_settings_that_a_saved_h5_took_away(runs: dict[str, Any], tmp_path: Path) -> None:
    def drop(config: dict[str, Any]) -> None:
        del config["compile_config"]["optimizer"]

    state = keras.read(_copy(runs["adam"].keras, tmp_path / "run.keras", _json("config.json", drop)))
    assert state.optimizer is None
    assert state.iterations == 3
    assert any("settings are missing" in note for note in state.notes)


def test_holds_goes_by_content(runs: dict[str, Any], tmp_path: Path) -> None:
    assert keras.holds(runs["adam"].keras)
    assert not keras.holds(runs["adam"].h5)
    other = tmp_path / "other.zip"
    _rewrite(other, {"a.txt": b"a"})
    assert not keras.holds(other)
    assert not keras.holds(tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_an_optimizer_of_keras_2_that_the_settings_only_name(tmp_path: Path, name: str) -> None:
    import tf_keras

    import resume

    model = tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Dense(2)])
    model.compile(name, "mse")
    model.train_on_batch(np.ones((2, 3), "float32"), np.ones((2, 2), "float32"))
    model.save(tmp_path / "a.keras")
    state = keras.read(tmp_path / "a.keras")
    assert state.unheld == ("optimizer/learning_rate",)
    assert state.notes == (
        "the optimizer's settings are its name alone in this file: what its learning rate was is not there, and it "
        "starts with the rate that is its class's own",
    )
    loaded, proof = resume.load(tmp_path / "a.keras")
    assert [str(f) for f in proof.findings] == [
        "optimizer/learning_rate: not in the source, started fresh: None -> float32[]"
    ]
    assert proof.verdict == "partial"
    assert float(loaded.optimizer.learning_rate) == float(model.optimizer.learning_rate)
    assert int(loaded.optimizer.iterations) == 1
