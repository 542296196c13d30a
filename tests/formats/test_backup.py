"""Directories of BackupAndRestore: the state and its position, or an error that names what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import backup


def _backup(folder: Path, *, steps: int, position: dict[str, Any] | None) -> Path:
    with h5py.File(folder / "latest.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((2,), "float32")
        file["optimizer/vars/0"], file["optimizer/vars/1"] = np.int64(steps), np.float32(0.5)
    if position is not None:
        (folder / "training_metadata.json").write_text(json.dumps(position))
    return folder


@pytest.mark.parametrize(
    ("steps", "epoch", "batch", "expected"),
    [
        (20, 2, 0, (2, 0)),  # two epochs of ten
        (21, 2, 0, (2, 1)),  # and the first batch of the third
        (26, 2, 5, (2, 6)),
        (30, 2, 9, (3, 0)),  # the third epoch's last batch
        (1, 0, 0, (0, 1)),
        (0, 0, 0, (0, 0)),
        (4, 0, 3, (0, 4)),
    ],
)
def test_the_position_counts_applied_batches(
    tmp_path: Path, steps: int, epoch: int, batch: int, expected: tuple[int, int]
) -> None:
    state = backup.read(_backup(tmp_path, steps=steps, position={"epoch": epoch, "batch": batch}))
    assert (state.format, state.path, state.iterations) == ("backup", tmp_path, steps)
    assert (state.epoch, state.batch) == expected


def test_missing_halves(tmp_path: Path) -> None:
    assert not backup.holds(tmp_path)
    _backup(tmp_path, steps=1, position=None)
    assert backup.holds(tmp_path)
    with pytest.raises(
        SourceError, match=r"training_metadata\.json: the position cannot be read \(there is no such"
    ):
        backup.read(tmp_path)
    (tmp_path / "latest.weights.h5").unlink()
    (tmp_path / "training_metadata.json").write_text('{"epoch": 4, "batch": 0}')
    assert backup.holds(tmp_path)
    with pytest.raises(SourceError, match=r"latest\.weights\.h5: no such file"):
        backup.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the position cannot be read"),
        ("[1]", "a JSON object is expected"),
        ('{"batch": 0}', "None is no epoch or batch"),
        ('{"epoch": -1}', "-1 is no epoch or batch"),
        ('{"epoch": true}', "True is no epoch or batch"),
        ('{"epoch": 1, "batch": 1.5}', "1.5 is no epoch or batch"),
    ],
)
def test_a_damaged_position(tmp_path: Path, text: str, message: str) -> None:
    _backup(tmp_path, steps=1, position=None)
    (tmp_path / "training_metadata.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        backup.read(tmp_path)


def test_the_backup_before_is_pointed_to(tmp_path: Path) -> None:
    _backup(tmp_path, steps=1, position={"epoch": 1, "batch": 0})
    (tmp_path / "latest.weights.h5").rename(tmp_path / "latest.weights.h5.bkp")
    (tmp_path / "latest.weights.h5").write_bytes(b"")
    with pytest.raises(SourceError, match=r"the file is empty[\s\S]*The backup before it.*weights\.h5\.bkp"):
        backup.read(tmp_path)
