"""Content ids: of the bytes, by the manifest alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from resume import contents, rundir
from resume.errors import SourceError
from resume.formats import native
from resume.state import TrainState

Make = Callable[..., TrainState]
DATA = "state.safetensors"


def published(run: Path, state: TrainState) -> tuple[Path, dict[str, Any]]:
    path = rundir.publish(run, state).path
    return path, native.read_manifest(path)


def test_equal_bytes_have_one_id_and_others_another(tmp_path: Path, make_state: Make) -> None:
    _, one = published(tmp_path, make_state(1))
    _, same = published(tmp_path, make_state(1, epoch=5))
    _, other = published(tmp_path, make_state(2))
    assert contents.ids(one)[DATA] == contents.ids(same)[DATA] != contents.ids(other)[DATA]
    assert contents.ids(one)["model.json"] == one["files"]["model.json"]["digest"]


def test_the_id_as_it_is_defined(tmp_path: Path, make_state: Make) -> None:
    _, manifest = published(tmp_path, make_state(1))
    facts = manifest["files"][DATA]
    arrays = sorted(manifest["arrays"].values(), key=lambda a: a["offset"])
    text = json.dumps([facts["bytes"], facts["header"], [a["digest"] for a in arrays]]).replace(" ", "")
    assert contents.ids(manifest)[DATA] == xxhash.xxh3_128_hexdigest(text.encode())


def test_the_same_arrays_under_other_names_are_another_file(tmp_path: Path, make_state: Make) -> None:
    ones = np.ones(3, "float32")
    _, one = published(tmp_path, make_state(1, extra={"model/a": ones, "model/b": ones}))
    _, other = published(tmp_path, make_state(1, extra={"model/a": ones, "model/c": ones}))
    assert contents.ids(one)[DATA] != contents.ids(other)[DATA]


def test_every_flipped_byte_is_found(tmp_path: Path, make_state: Make) -> None:
    """Empty arrays included, which lie where the next one does."""
    empty = {"model/none": np.empty((0, 3), "float32"), "model/no": np.empty(0, "int8")}
    path, manifest = published(tmp_path, make_state(1, extra=empty))
    for file in manifest["files"]:
        contents.demand_whole(path / file, manifest)
        data = bytearray((path / file).read_bytes())
        for place in range(len(data)):
            data[place] ^= 1
            (path / file).write_bytes(data)
            with pytest.raises(SourceError, match=r"damaged, bytes \d+ to \d+ do not match their digest"):
                contents.demand_whole(path / file, manifest)
            data[place] ^= 1
        (path / file).write_bytes(data)


def test_cut_off_and_missing(tmp_path: Path, make_state: Make) -> None:
    path, manifest = published(tmp_path, make_state(1))
    size = (path / DATA).stat().st_size
    os.truncate(path / DATA, size - 1)
    with pytest.raises(SourceError, match=rf"{DATA}: damaged, {size} bytes saved -> {size - 1} found\."):
        contents.demand_whole(path / DATA, manifest)
    (path / DATA).unlink()
    with pytest.raises(SourceError, match=rf"{DATA}: missing\."):
        contents.demand_whole(path / DATA, manifest)
