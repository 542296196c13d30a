"""Weights grouped by layer: each variable once, whatever the layers are called."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import groups
from resume.formats.hdf5 import Tree, opened


def _file(path: Path, layers: dict[str, dict[str, float]]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers if name != groups.TOP]
        for layer, weights in layers.items():
            group = file.require_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, value in weights.items():
                group[name] = np.full((2,), value, "float32")
    return path


def _read(path: Path) -> list[tuple[str, str, str]]:
    with opened(path) as file:
        return [(entry.path, entry.address, entry.place) for entry in groups.weights(Tree(file, path))]


def test_layers_inside_each_others_names(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.h5", {"a/b": {"a/b/kernel:0": 1}, "a": {"a/kernel:0": 2}, "empty": {}})
    assert _read(path) == [
        ("a/b/kernel:0", "a/b/a/b/kernel:0", "a/b/0"),
        ("a/kernel:0", "a/a/kernel:0", "a/0"),
    ]


def test_what_two_models_share_is_there_once_and_namesakes_twice(tmp_path: Path) -> None:
    both = {"x/kernel:0": 1.0, "x/bias:0": 2.0}
    shared = _file(tmp_path / "shared.h5", {"one": both, "two": both})
    assert [place for *_, place in _read(shared)] == ["one/0", "one/1"]
    other = _file(tmp_path / "other.h5", {"one": both, "two": {**both, "x/bias:0": 3.0}})
    assert [place for *_, place in _read(other)] == ["one/0", "one/1", "two/0", "two/1"]


def test_weights_of_no_layer_come_last(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.h5", {groups.TOP: {"scale:0": 1.0}, "x": {"x/kernel:0": 2.0}})
    with opened(path) as file:
        found = groups.weights(Tree(file, path))
    assert [entry.place for entry in found] == ["x/0", "top_level_model_weights/0"]
    assert [entry.weight.layer for entry in found] == ["x", None]


def test_lists_and_groups_must_agree(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.h5", {"x": {}})
    with h5py.File(path, "r+") as file:
        file.attrs["layer_names"] = [b"x", b"y"]
    with pytest.raises(SourceError, match=r"layer_names and the groups of the file differ \(y\)"):
        _read(path)
