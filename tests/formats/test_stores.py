"""What a weights file of positions holds."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import stores
from resume.formats.hdf5 import Tree, opened
from resume.formats.stores import Stores


def _read(path: Path, *addresses: str) -> Stores:
    with h5py.File(path, "w") as file:
        for n, address in enumerate(addresses):
            file[address] = np.full((n + 1,), n, "float32")
        file.require_group("layers/dense/vars").attrs["name"] = "mine"
    with opened(path) as file:
        assert stores.are_in(Tree(file, path))
        return stores.of(Tree(file, path))


def test_arrays_sizes_and_names(tmp_path: Path) -> None:
    found = _read(
        tmp_path / "a.h5", "layers/dense/vars/0", "optimizer/vars/0", "metrics/mean/vars/0", "vars/0"
    )
    assert found.sizes == {"": 1, "layers/dense": 1, "optimizer": 1, "metrics/mean": 1}
    assert found.names == {"layers/dense": "mine"}
    assert found.spec("optimizer/vars/0").shape == (2,)
    assert found.variables("metrics/mean") == ["metrics/mean/vars/0"]
    assert found.of_model(old=True) == {"": 1, "layers/dense": 1}
    assert found.of_model(old=False) == {"": 1, "layers/dense": 1, "metrics/mean": 1}


def test_backslashes_are_read_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    found = _read(path, "a\\b/vars/0")
    assert "a/b" in found.sizes
    with opened(path) as file:
        assert found.array(Tree(file, path), "a/b/vars/0").tolist() == [0.0]


def test_ten_and_more_variables_are_in_order(tmp_path: Path) -> None:
    found = _read(tmp_path / "a.h5", *(f"optimizer/vars/{n}" for n in range(12)))
    assert [found.spec(place).shape[0] for place in found.variables("optimizer")] == list(range(1, 13))


def test_gaps_are_damage(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="which is not 0, 1, 2"):
        _read(tmp_path / "a.h5", "optimizer/vars/0", "optimizer/vars/2")


def test_other_hdf5_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images/train"] = np.zeros((2,))
    with opened(path) as file:
        assert not stores.are_in(Tree(file, path))


def test_variables_that_have_names(tmp_path: Path) -> None:
    found = _read(
        tmp_path / "a.h5", "layers/lookup/vars/idf_weights", "layers/own/vars/0", "layers/own/vars/mine"
    )
    assert found.sizes == {"layers/dense": 0, "layers/lookup": 0, "layers/own": 1}
    assert found.named == {"layers/lookup": ("idf_weights",), "layers/own": ("mine",)}
    assert found.named_of_model(old=True) == found.named
    assert found.spec("layers/own/vars/mine").shape == (3,)


@pytest.mark.parametrize(
    "address", ["optimizer/vars/mine", "layers/own/vars/1", "layers/own/vars/not a name"]
)
def test_neither_names_nor_numbers(tmp_path: Path, address: str) -> None:
    with pytest.raises(SourceError, match="which is not 0, 1, 2, "):
        _read(tmp_path / "a.h5", address)
