"""What the walk over a foreign HDF5 file finds, in this process: the files here are made by the test."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from resume.formats import survey


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[h5py.File], object]], None]:
    """Makes a file by a function and walks it, without the timer: it would end this process."""

    def run(make: Callable[[h5py.File], object]) -> None:
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["group/array"] = np.arange(4.0)
            make(file)
        monkeypatch.setattr(survey, "_arm", lambda seconds: None)
        monkeypatch.setattr(survey, "_say", lambda line: None)
        with path.open("rb") as stream:
            survey.visit(h5py, stream, path.stat().st_size, seconds=1)

    return run


def test_a_plain_file_is_sound(visit: Callable[..., None]) -> None:
    visit(lambda file: file.create_dataset("packed", data=np.zeros(1000), compression="gzip", chunks=(100,)))
    visit(lambda file: file.attrs.update(names=["a", "b"], text="x", bytes=b"y", numbers=[1, 2]))
    visit(lambda file: file.create_dataset("empty", shape=(0, 3)))


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4,))
    file.create_virtual_dataset("virtual", layout)


BROKEN: dict[str, tuple[Callable[[h5py.File], object], str, str]] = {
    "external link": (lambda f: f.update(x=h5py.ExternalLink("o.h5", "/")), "x", "links are not followed"),
    "soft link": (lambda f: f.update(x=h5py.SoftLink("/group")), "x", "links are not followed"),
    "hard link": (lambda f: f.update(x=f["group/array"]), "", "is the same object as "),
    "cycle": (lambda f: f["group"].update(x=f["group"]), "group/x", "is the same object as group"),
    "root in itself": (lambda f: f["group"].update(x=f["/"]), "group/x", "is the same object as /"),
    "virtual": (_virtual, "virtual", "in another file"),
    "raw file": (
        lambda f: f.create_dataset("x", shape=(4,), dtype="f4", external=[("other", 0, 16)]), "x", "in another file",
    ),
    "never written": (
        lambda f: f.create_dataset("x", shape=(1 << 25, 1 << 20), chunks=(64, 64)), "x", "and 0 are stored",
    ),
    "mostly zeros": (
        lambda f: f.create_dataset("x", data=np.zeros(1 << 23), compression="gzip", chunks=(1 << 20,)), "x", "claims",
    ),
    "too deep": (lambda f: f.create_group("/".join(["x"] * 70)), "x/x/x", "too deep"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_no_file_of_keras_has(visit: Callable[..., None], kind: str) -> None:
    make, address, cause = BROKEN[kind]
    with pytest.raises(survey.UnsoundError) as caught:
        visit(make)
    assert caught.value.args[0].startswith(address)
    assert cause in caught.value.args[1]


def test_arrays_that_lie_over_each_other() -> None:
    survey._apart([(0, 8, "a"), (8, 16, "b")], 16)
    with pytest.raises(survey.UnsoundError, match="lies where a lies"):
        survey._apart([(8, 16, "b"), (0, 9, "a")], 16)
    with pytest.raises(survey.UnsoundError, match="beyond the end"):
        survey._apart([(0, 17, "a")], 16)


def test_a_slice_is_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(b"0123456789")
    with io.BufferedReader(survey.Slice(path.open("rb", buffering=0), 2, 5)) as part:
        assert part.read() == b"23456"
        assert part.seek(-2, os.SEEK_END) == 3
        assert part.read(9) == b"56"
