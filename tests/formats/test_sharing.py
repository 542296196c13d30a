"""What does not change is written twice, then shared: each checkpoint whole by itself, whatever becomes of others."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import rundir
from resume.formats import native, sharing
from resume.formats.sharing import Donor
from resume.rundir import Checkpoint, Directory, Retention
from resume.state import Arrays, TrainState

Python = Callable[..., subprocess.Popen[str]]

STILL = "still.safetensors"
COUNT = 1 << 19  # numbers in each frozen array; of the one that moves a fifth of that
FROZEN = ("model/a/kernel", "model/b/kernel")


def state(step: int, *, still: Sequence[str] = FROZEN, **changed: int) -> TrainState:
    """Two frozen arrays of 2 MiB, one that moves with each step; `changed`: by letter, another frozen array's value."""
    arrays = {f"model/{letter}/kernel": np.full(COUNT, changed.get(letter, 7), "float32") for letter in "ab"}
    arrays["model/head/kernel"] = np.full(COUNT // 5, step, "float32")
    arrays["optimizer/iteration"] = np.asarray(step, "int64")
    return TrainState(format="native", path=Path(), arrays=Arrays.of(arrays), still=frozenset(still))


def published(
    run: Path, steps: Sequence[int], directory: Directory | None = None, **facts: Any
) -> list[Path]:
    directory = directory or Directory(run, Retention(last=1000))
    return [directory.publish(state(step, **facts)).path for step in steps]


def inode(checkpoint: Path, file: str = STILL) -> int:
    return (checkpoint / file).stat().st_ino


def whole(checkpoints: Sequence[Path]) -> None:
    """Every digest holds, and the arrays are those of the step in its name."""
    for path in checkpoints:
        assert list(native.damage(path)) == []
        step = int(path.name.removeprefix("step-"))
        found = native.read(path).arrays
        assert all(np.array_equal(array, state(step).arrays[name]) for name, array in found.items())


def spoil(file: Path) -> None:
    """Flip one bit in the middle, in place: of every checkpoint that shares the file."""
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))


# ---- what is shared ----


def test_each_shares_with_the_one_before_its_predecessor(tmp_path: Path) -> None:
    paths = published(tmp_path, range(1, 7))
    inodes = [inode(path) for path in paths]
    assert inodes == [inodes[0], inodes[1]] * 3
    assert inodes[0] != inodes[1]
    assert len({inode(path, "state.safetensors") for path in paths}) == 6
    whole(paths)


def test_what_nothing_tells_is_told_by_what_was(tmp_path: Path) -> None:
    """Nothing is known to be frozen: what two checkpoints agree in is set aside, and shared once it was."""
    paths = published(tmp_path, range(1, 7), still=())
    assert [(path / STILL).exists() for path in paths] == [False, False, True, True, True, True]
    assert (inode(paths[4]), inode(paths[5])) == (inode(paths[2]), inode(paths[3]))
    assert inode(paths[2]) != inode(paths[3])
    whole(paths)


def test_a_little_is_not_worth_a_file(tmp_path: Path) -> None:
    directory = Directory(tmp_path, Retention(last=9))
    bias = {"model/a/bias": np.zeros(100, "float32")}
    for step in range(1, 5):
        arrays = Arrays.of({**bias, "optimizer/iteration": np.asarray(step)})
        directory.publish(
            TrainState(format="native", path=Path(), arrays=arrays, still=frozenset({"model/a/bias"}))
        )
    assert not list(tmp_path.glob(f"checkpoints/*/{STILL}"))


def test_without_a_process_that_knows_them_nothing_is_shared(tmp_path: Path) -> None:
    paths = [rundir.publish(tmp_path, state(step)).path for step in range(1, 5)]
    assert len({inode(path) for path in paths}) == 4


def test_a_hundred_take_the_room_of_twelve(tmp_path: Path) -> None:
    paths = published(tmp_path, range(1, 101))
    assert len(paths) == len(list((tmp_path / "checkpoints").iterdir())) == 100
    one = sum(file.stat().st_blocks for file in paths[0].iterdir())
    held = {file.stat().st_ino: file.stat().st_blocks for path in paths for file in path.iterdir()}
    assert sum(held.values()) <= 12 * one
    assert len([n for n in held if n in {inode(path) for path in paths}]) == 2
    whole(paths[::33])


# ---- each by itself ----


def test_copied_away_it_is_whole_and_so_is_what_is_left(tmp_path: Path) -> None:
    paths = published(tmp_path / "run", range(1, 6))
    copies = [Path(shutil.copytree(path, tmp_path / "copies" / path.name)) for path in paths]
    for path in paths[:-1]:
        rundir.retire(Checkpoint(path, 0, 0))
    whole([paths[-1], *copies])
    shutil.rmtree(paths[-1])
    whole(copies)


def test_those_that_stay_are_whole_after_the_others_went(tmp_path: Path) -> None:
    """And the sharing goes on through what is kept."""
    directory = Directory(tmp_path, Retention(last=2))
    paths = published(tmp_path, range(1, 9), directory)
    left = [c.path for c in rundir.checkpoints(tmp_path)]
    assert left == paths[-2:]
    assert [(path / STILL).stat().st_nlink for path in left] == [1, 1]
    whole(left)
    again = published(tmp_path, [9], directory)
    assert inode(again[0]) != inode(left[1])
    whole(again)


def test_keeping_one_writes_everything_each_time(tmp_path: Path) -> None:
    """There never is a second line to share with."""
    whole(published(tmp_path, range(1, 5), Directory(tmp_path, Retention(last=1)))[-1:])


# ---- damage ----


def test_a_flipped_byte_costs_one_line_and_never_the_newest_two(tmp_path: Path) -> None:
    paths = published(tmp_path, range(1, 7))
    for spoiled, step in ((paths[0], 6), (paths[1], 5)):  # each line once
        spoil(spoiled / STILL)
        damaged = [bool(list(native.damage(path))) for path in paths]
        assert damaged == [inode(path) == inode(spoiled) for path in paths]
        found, passed = rundir.newest_whole(tmp_path)
        assert found is not None
        assert (found.step, len(passed)) == (step, 6 - step)
        spoil(spoiled / STILL)  # flipped back


def test_damage_is_not_passed_on_by_the_next_attempt(tmp_path: Path) -> None:
    """It looks before it shares; the one that it looks at is the next one's other line."""
    paths = published(tmp_path, range(1, 5))
    spoil(paths[2] / STILL)
    later = published(tmp_path, [5, 6, 7, 8])
    assert inode(later[0]) not in {inode(path) for path in paths}
    assert inode(later[1]) == inode(paths[3])
    assert (inode(later[2]), inode(later[3])) == (inode(later[0]), inode(later[1]))
    whole([*later, paths[1], paths[3]])


def test_the_repair_of_a_damaged_newest_shares_nothing_with_its_predecessor(tmp_path: Path) -> None:
    """The next attempt begins before it and publishes that step again: the damaged one counts for no line."""
    paths = published(tmp_path, range(1, 5))
    spoil(paths[3] / STILL)
    again = published(tmp_path, [4, 5])
    assert again[0] == paths[3]
    assert inode(again[0]) != inode(paths[2])
    assert inode(again[1]) == inode(paths[2])
    whole([paths[0], paths[2], *again])


def test_a_damaged_newest_that_stays_counts_for_no_line_either(tmp_path: Path) -> None:
    """The next attempt begins before it, and what it publishes first comes later."""
    paths = published(tmp_path, range(1, 5))
    spoil(paths[3] / "state.safetensors")
    later = published(tmp_path, [5])
    assert inode(later[0]) != inode(paths[2])
    whole([*paths[:3], *later])


def test_a_donor_without_a_manifest_has_nothing_to_give(tmp_path: Path) -> None:
    paths = published(tmp_path, range(1, 4))
    (paths[1] / "manifest.json").write_text("{}")
    later = published(tmp_path, [4, 5])
    assert inode(later[0]) != inode(paths[2])
    whole([paths[0], paths[2], *later])


# ---- what changes its mind ----


def test_what_begins_to_move(tmp_path: Path) -> None:
    """A layer is unfrozen: it leaves the shared file, and what is still frozen is shared again."""
    directory = Directory(tmp_path, Retention(last=99))
    published(tmp_path, range(1, 5), directory)
    paths = [directory.publish(state(n, still=FROZEN[:1], b=n)).path for n in range(5, 13)]
    for path, step in zip(paths, range(5, 13), strict=True):
        assert list(native.damage(path)) == []
        assert native.read(path).arrays["model/b/kernel"][0] == step
    assert [held(path) for path in paths[-2:]] == [{FROZEN[0]}] * 2
    assert inode(paths[-1]) == inode(paths[-3]) != inode(paths[-2])


def test_what_stops_moving(tmp_path: Path) -> None:
    """A layer is frozen in the middle of a run, or what a model keeps of its own has settled."""
    directory = Directory(tmp_path, Retention(last=99))
    for step in range(1, 5):
        directory.publish(state(step, still=FROZEN[:1], b=step))
    paths = [directory.publish(state(n, still=FROZEN[:1])).path for n in range(5, 12)]
    shared = [name for name, place in places(paths[-1]).items() if place.file != "state.safetensors"]
    assert set(FROZEN) <= set(shared)
    mine, others = (set(inodes(path)) for path in (paths[-1], paths[-3]))
    assert len(mine - others) == 1  # what moves; all the rest was there already
    assert set(inodes(paths[-1])) & set(inodes(paths[-2])) == set()
    whole(paths)


def places(checkpoint: Path) -> dict[str, Any]:
    return native._places(checkpoint, native.read_manifest(checkpoint))


def held(checkpoint: Path) -> set[str]:
    """Names of the big arrays in the shared file."""
    return {n for n, place in places(checkpoint).items() if place.file == STILL and place.spec.nbytes > 8}


def inodes(checkpoint: Path) -> list[int]:
    return [file.stat().st_ino for file in checkpoint.glob("*.safetensors")]


def test_a_frozen_array_of_another_value_is_not_the_old_one(tmp_path: Path) -> None:
    """User code gave it new weights: names are not enough, the bytes must be the same."""
    directory = Directory(tmp_path, Retention(last=99))
    published(tmp_path, range(1, 4), directory)
    path = directory.publish(state(4, a=8)).path
    assert native.read(path).arrays[FROZEN[0]][0] == 8
    assert list(native.damage(path)) == []


# ---- file systems without hard links ----

ELSEWHERE = """
import errno, os, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sharing import inode, published, whole, Directory, Retention

run = Path(sys.argv[1])
directory = Directory(run, Retention(last=9))
paths = published(run, [1, 2], directory)
for path in paths:  # a file of another mount cannot be linked, even where it is of the same file system
    subprocess.run(["mount", "--bind", path, path], check=True)
try:
    os.link(paths[0] / "still.safetensors", run / "link")
except OSError as error:
    print(errno.errorcode[error.errno])
paths += published(run, [3, 4], directory)
whole(paths)
print(len({inode(path) for path in paths}))
"""


def test_where_nothing_can_be_linked(tmp_path: Path, python: Python, own_mounts: Sequence[str]) -> None:
    process = python(ELSEWHERE, tmp_path, Path(__file__).parent, under=own_mounts)
    assert process.communicate(timeout=60)[0] == "EXDEV\n4\n"


def test_a_file_that_cannot_be_linked_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT, of which no driver may be here."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    paths = published(tmp_path, [1, 2])
    donor = native.donor(paths[0], before=paths[1], trusted=set())
    assert set(donor.files) == {STILL, "state.safetensors"}
    wanted = sharing.still(state(3), donor)
    monkeypatch.setattr(os, "link", refuse)
    assert sharing.link(tmp_path, donor, wanted) == ({}, {})
    paths += published(tmp_path, [3])
    assert len({inode(path) for path in paths}) == 3
    whole(paths)


def test_a_file_is_linked_only_where_all_of_it_is_wanted(tmp_path: Path) -> None:
    paths = published(tmp_path, [1, 2])
    donor: Donor = native.donor(paths[0], before=paths[1], trusted=set())
    wanted = sharing.still(state(3), donor)
    assert sharing.link(tmp_path, donor, {name: wanted[name] for name in FROZEN[:1]}) == ({}, {})
    found, facts = sharing.link(tmp_path, donor, wanted)
    assert (set(found), set(facts)) == (set(FROZEN), {STILL})
    assert (tmp_path / STILL).stat().st_ino == inode(paths[0])
