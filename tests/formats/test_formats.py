"""Which reader is asked, and what is told of a path that none of them reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume import formats
from resume.errors import SourceError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("run42.h5", "run42.h5"),
        ("saved/saved_model.pb", "saved"),
        ("saved/variables/variables.index", "saved"),
        ("ckpt-2.index", "ckpt-2"),
    ],
)
def test_a_pointer_of_git_lfs(file: str, asked: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(POINTER)
    with pytest.raises(SourceError) as raised:
        formats.read(tmp_path / asked)
    assert str(raised.value) == (
        f"{tmp_path / file}: a pointer of Git LFS in the place of the file. Fetch it: git lfs pull"
    )


def test_what_is_not_there_and_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="absent: no such file or directory"):
        formats.read(tmp_path / "absent")
    with pytest.raises(SourceError, match="this directory is not a checkpoint that can be read"):
        formats.read(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(SourceError, match="this file is not a checkpoint that can be read"):
        formats.read(tmp_path / "notes.txt")
