"""Trust as Keras and tf_keras meet it: what is named, registered, imported or run."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import pytest
from small import X, classifier, save

import resume
from resume.engine import trusted
from resume.errors import SourceError, UsageError
from resume.formats.trust import Trust

SOURCE = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user's, on the path and not imported."""
    (tmp_path / "layers_of_mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "layers_of_mine"
    sys.modules.pop("layers_of_mine", None)


def saved(folder: Path, layer: keras.layers.Layer) -> Path:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), layer])
    model.compile("sgd", keras.losses.MeanSquaredError())
    model.fit(X, X[:, :3], verbose=0)
    return save(model, folder / "a.keras")


def file_of(module: str, folder: Path) -> Path:
    path = saved(folder, __import__(module).Twice())
    del sys.modules[module]
    return path


def test_a_module_is_imported_where_its_prefix_is_trusted(module: str, tmp_path: Path) -> None:
    path = file_of(module, tmp_path)
    with pytest.raises(UsageError, match=r"custom_objects\.Twice=YOUR\.MODULE\.Twice"):
        resume.load(path)
    assert module not in sys.modules
    with pytest.raises(UsageError, match="Twice"):
        resume.load(path, trust="code", trusted_modules=["another"])
    assert module not in sys.modules
    model, proof = resume.load(path, trust="code", trusted_modules=[module])
    assert proof.verdict == "exact"
    assert type(model.layers[-1]).__module__ == module


def test_a_trusted_module_without_the_object(module: str, tmp_path: Path) -> None:
    path = file_of(module, tmp_path)
    (tmp_path / "layers_of_mine.py").write_text("")
    with pytest.raises(UsageError, match=r"trusted_modules: layers_of_mine\.Twice: .*no attribute 'Twice'"):
        resume.load(path, trust="code", trusted_modules=[module])


def test_without_any_trust_names_do_not_help(module: str, tmp_path: Path) -> None:
    path = file_of(module, tmp_path)
    twice = __import__(module).Twice
    assert resume.load(path, custom_objects={"Twice": twice})[1].verdict == "exact"
    with pytest.raises(UsageError, match="trust=none allows none: Twice"):
        resume.load(path, custom_objects={"Twice": twice}, trust="none")
    assert resume.load(save(classifier(), tmp_path / "b.keras"), trust="none")[1].verdict in (
        "exact",
        "partial",
    )


def test_bytecode_is_run_only_where_code_is_trusted(tmp_path: Path) -> None:
    path = saved(tmp_path, keras.layers.Lambda(lambda x: x * 3, output_shape=(3,), name="thrice"))
    with pytest.raises(SourceError, match="thrice: a Lambda layer holds Python bytecode"):
        resume.load(path)
    assert resume.load(path, custom_objects={"thrice": abs})[1].verdict == "exact"
    model, _ = resume.load(path, trust="code")
    assert model.layers[-1](keras.ops.ones((1, 3)))[0, 0] == 3


def test_objects_of_a_package_are_named_by_their_own_name(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="parts")
    class Half(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x / 2

    path = saved(tmp_path, Half())
    del keras.saving.get_custom_objects()["parts>Half"]
    with pytest.raises(UsageError, match=r"custom_objects\.Half="):
        resume.load(path)
    assert resume.load(path, custom_objects={"Half": Half})[1].verdict == "exact"


def test_what_the_process_has_registered(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="parts")
    class Third(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x / 3

    path = saved(tmp_path, Third())
    try:
        assert resume.load(path)[1].verdict == "exact"
        assert trusted.here(Trust()).registered["parts>Third"] == Third.__module__
        edit(path, lambda text: text.replace(f'"{Third.__module__}"', '"somewhere.else"'))
        with pytest.raises(UsageError, match="Third"):
            resume.load(path)
    finally:
        del keras.saving.get_custom_objects()["parts>Third"]


def test_nobody_may_stand_in_for_keras_own(tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "a.keras")
    other = type("Dense", (keras.layers.Dense,), {"__module__": "mine"})
    with keras.saving.custom_object_scope({"Dense": other}):
        with pytest.raises(
            SourceError, match="Dense is Keras's own, and this process has registered another"
        ):
            resume.load(path)
        assert resume.load(path, custom_objects={"Dense": other})[1].verdict in ("exact", "partial")


def edit(path: Path, change: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = change(members["config.json"].decode()).encode()
    assert json.loads(members["config.json"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
