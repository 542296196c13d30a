"""One file of a checkpoint: the same bytes whichever way they reach the disk, and never more of them in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from resume.errors import SourceError
from resume.filesystem import mounted
from resume.formats import shard
from resume.formats.shard import Place
from resume.state import Arrays, Spec, digest

Python = Callable[..., subprocess.Popen[str]]

BLOCK, BUFFER, PIECE = 4096, 8 << 20, 1 << 20
HEADER = 128  # bytes, of one array of up to seven digits of bytes


def noise(size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(size).integers(0, 256, size, "uint8")


def written(file: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Place]:
    """Written with digests made on the way, and found to be what the format says, byte for byte."""
    bare = {name: Spec(array.dtype.name, array.shape) for name, array in arrays.items()}
    places, header = shard.write(
        file, Arrays(bare, read=dict(arrays).__getitem__), bare, buffers=shard.Buffers()
    )
    assert file.read_bytes() == header + b"".join(array.tobytes() for array in arrays.values())
    assert {name: place.spec.digest for name, place in places.items()} == {
        name: digest(array) for name, array in arrays.items()
    }
    return places


def same(file: Path, places: Mapping[str, Place], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """What others read in it, and what we do."""
    theirs = safetensors.numpy.load_file(file)
    assert theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(theirs[name], array)
        assert np.array_equal(shard.read(file, places[name]), array)
        assert digested(file, places[name]) == digest(array)


# ---- borders ----


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("border", [BLOCK, 3 * BLOCK, BUFFER, BUFFER + BLOCK, 2 * BUFFER])
def test_a_file_that_ends_around_a_border(tmp_path: Path, border: int, more: int) -> None:
    file, arrays = tmp_path / "a.safetensors", {"a": noise(border + more - HEADER)}
    places = written(file, arrays)
    assert file.stat().st_size == border + more
    same(file, places, arrays)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_arrays_that_meet_around_a_border(tmp_path: Path, more: int) -> None:
    """The second begins right before the buffer's end, at it, or behind it; the third fills one and more by itself."""
    first = BUFFER - 6 * 64 + more
    arrays = {
        "a": noise(first),
        "b": noise(7),
        "none": noise(0),
        "c": noise(BUFFER + BLOCK + 1),
        "d": noise(1),
    }
    file = tmp_path / "a.safetensors"
    places = written(file, arrays)
    assert abs(places["b"].offset - BUFFER) <= 1  # as meant
    same(file, places, arrays)


def test_arrays_of_no_bytes_make_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    same(file, written(file, {}), {})
    other, arrays = tmp_path / "b.safetensors", {"a": np.zeros((3, 0, 2), "float32")}
    same(other, written(other, arrays), arrays)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        shard.write(file, Arrays.of({}), {}, buffers=shard.Buffers())
    assert file.read_bytes() == b"mine"


def digested(file: Path, place: Place) -> str:
    return shard.digest_at(file, place.offset, place.spec.nbytes)


# ---- ways to the disk ----


def test_what_is_written_leaves_the_page_cache_alone(tmp_path: Path) -> None:
    if mounted(tmp_path)[0] not in ("ext4", "xfs"):
        pytest.skip("this file system may know no direct writes")
    arrays = Arrays.of({"a": noise(BUFFER + 100)})
    shard.write(tmp_path / "direct", arrays, arrays.specs, buffers=shard.Buffers())
    (tmp_path / "usual").write_bytes(bytes(BUFFER))
    assert cached(tmp_path / "usual")
    assert not cached(tmp_path / "direct")


def cached(file: Path) -> bool:
    """Whether its beginning can be read without asking the disk."""
    handle = os.open(file, os.O_RDONLY)
    try:
        return os.preadv(handle, [bytearray(BLOCK)], BLOCK, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on the machine's tmpfs, which has its own idea of direct writes in each version of Linux."""
    folder = Path(f"/dev/shm/resume-shard-{os.getpid()}")
    if not os.access(folder.parent, os.W_OK):
        pytest.skip("no /dev/shm")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_on_a_tmpfs(in_memory: Path) -> None:
    arrays = {"a": noise(BUFFER - 1), "b": noise(3 * BLOCK)}
    same(in_memory / "a", written(in_memory / "a", arrays), arrays)


def test_where_the_disks_blocks_are_other_than_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ends that are not its blocks', the kernel itself refuses a write that it had opened the file for."""
    monkeypatch.setattr(shard, "_BLOCK", 1)
    arrays = {"a": noise(BUFFER + 101), "b": noise(5)}
    same(tmp_path / "a", written(tmp_path / "a", arrays), arrays)


RAMFS = """
import errno, os, subprocess, sys
from pathlib import Path
import numpy as np
from resume.formats import shard
from resume.state import Arrays

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "ramfs", "none", folder], check=True)
try:
    os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
except OSError as error:
    print(errno.errorcode[error.errno])
array = np.arange(3_000_000, dtype="int32")
arrays = Arrays.of({"a": array})
places, header = shard.write(folder / "a", arrays, arrays.specs, buffers=shard.Buffers())
print((folder / "a").read_bytes() == header + array.tobytes())
"""


def test_where_nothing_can_be_opened_for_direct_writes(
    tmp_path: Path, python: Python, own_mounts: Sequence[str]
) -> None:
    """A ramfs creates the file, and then says that it cannot."""
    out, _ = python(RAMFS, tmp_path, under=own_mounts).communicate(timeout=60)
    assert out == "EINVAL\nTrue\n"


# ---- full disks ----

LIMITED = """
import errno, resource, sys
from pathlib import Path
import numpy as np
from resume.formats import shard
from resume.state import Arrays

arrays = Arrays.of({"a": np.arange(6_000_000, dtype="int32")})
for number, limit in enumerate(map(int, sys.argv[2:])):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    file = Path(sys.argv[1]) / str(number)
    try:
        shard.write(file, arrays, arrays.specs, buffers=shard.Buffers())
    except OSError as error:
        print(errno.errorcode[error.errno], file.stat().st_size <= limit)
"""


AGAIN = """
import resource, sys
from pathlib import Path
import numpy as np
from resume.formats import shard
from resume.state import Arrays

array, buffers = np.arange(12_000_000, dtype="int32"), shard.Buffers(2)
arrays = Arrays.of({"a": array})
for number, limit in enumerate((0, 4096, 9_000_000, 30_000_000, resource.RLIM_INFINITY)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    file = Path(sys.argv[1]) / str(number)
    try:
        places, header = shard.write(file, arrays, arrays.specs, buffers=buffers)
    except OSError as error:
        print(error.strerror)
print(file.read_bytes() == header + array.tobytes())
"""


def test_buffers_come_back_from_writes_that_failed(tmp_path: Path, python: Python) -> None:
    out, _ = python(AGAIN, tmp_path).communicate(timeout=60)
    assert out.splitlines() == ["File too large"] * 4 + ["True"]


def test_buffers_come_back_from_arrays_that_cannot_be_had(tmp_path: Path) -> None:
    def gone(name: str) -> Any:
        raise SourceError("gone")

    buffers, specs = shard.Buffers(1), {"a": Spec("int8", (3,))}
    for name in "ab":
        with pytest.raises(SourceError):
            shard.write(tmp_path / name, Arrays(specs, read=gone), specs, buffers=buffers)
    assert buffers.take().size == BUFFER


def test_buffers_are_made_once() -> None:
    buffers = shard.Buffers(3)
    first, second = buffers.take(), buffers.take()
    buffers.give(second)
    assert buffers.take() is second
    assert buffers.take() is not first


def free(buffers: shard.Buffers) -> int:
    return buffers._free.qsize()


def test_as_many_again_as_had_to_be_made_are_there_the_next_time() -> None:
    buffers = shard.Buffers.holding(8 * BUFFER + 1)
    for buffer in [buffers.take(), buffers.take()]:
        buffers.give(buffer)
    buffers.spare()
    assert free(buffers) == 4
    buffers.spare()
    assert free(buffers) == 4  # none had to be
    for buffer in [buffers.take() for _ in range(5)]:
        buffers.give(buffer)
    buffers.spare()
    assert free(buffers) == 8
    held = [buffers.take() for _ in range(8)]
    threading.Timer(0.05, buffers.give, held[:1]).start()
    assert buffers.take() is held[0]  # no more are made


def test_where_no_memory_is_left_for_more_there_are_fewer(python: Python) -> None:
    out, _ = python(NO_ROOM).communicate(timeout=60)
    assert out.splitlines() == ["the first again", "Cannot allocate memory"]


NO_ROOM = """
import resource, threading
from resume.formats import shard

buffers = shard.Buffers(8)
first = buffers.take()
threading.Timer(0.5, buffers.give, [first]).start()
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), resource.RLIM_INFINITY))
buffers.spare()
print("the first again" if buffers.take() is first else "another one")
try:
    shard.Buffers(8).take()
except OSError as error:
    print(error.strerror)
"""


def test_there_are_two_for_the_smallest_state() -> None:
    buffers = shard.Buffers.holding(1)
    assert buffers.take() is not buffers.take()


def test_a_forked_process_has_none_of_them(python: Python) -> None:
    """It would have them copied as they are filled again, and fall over a disk that reads them meanwhile."""
    out, _ = python(FORKED).communicate(timeout=60)
    assert out == "-11\n"


FORKED = """
import os
from resume.formats import shard

buffer = shard.Buffers().take()
buffer[0] = 1
child = os.fork()
if not child:
    os._exit(int(buffer[0]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_limit_in_the_middle_of_a_file(tmp_path: Path, python: Python) -> None:
    limits = [0, 1, BLOCK, BLOCK + 1, BUFFER - 1, BUFFER, BUFFER + 1, BUFFER + BLOCK, 24_000_000]
    out, _ = python(LIMITED, tmp_path, *limits).communicate(timeout=60)
    assert out.splitlines() == ["EFBIG True"] * len(limits)


FULL = """
import errno, subprocess, sys
from pathlib import Path
import numpy as np
from resume import rundir
from resume.state import Arrays, TrainState

run = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", run], check=True)

def publish(step, count):
    arrays = Arrays.of({"optimizer/iteration": np.asarray(step), "model/w": np.full(count, step, "float32")})
    rundir.publish(run, TrainState(format="native", path=Path(), arrays=arrays))

publish(1, 10)
try:
    publish(2, 3_500_000)
except OSError as error:
    print(errno.errorcode[error.errno])
print([p.name for p in (run / "checkpoints").iterdir()], rundir.read(run).iterations)
publish(2, 2_500_000)  # what was begun is gone, and so there is room
print(rundir.read(run).iterations)
"""


def test_a_disk_that_is_full(tmp_path: Path, python: Python, own_mounts: Sequence[str]) -> None:
    out, _ = python(FULL, tmp_path, under=own_mounts).communicate(timeout=60)
    assert out == "ENOSPC\n['step-00000001'] 1\n2\n"


# ---- memory ----


class Fleeting(Arrays):
    """Makes each array when it is taken, and counts how many of the earlier ones are still there then."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        super().__init__(specs, read=lambda name: np.full(self.specs[name].shape, 3, "float32"))
        self.made: list[weakref.ref[Any]] = []
        self.alive: list[int] = []

    def take(self, name: str) -> np.ndarray[Any, Any]:
        self.alive.append(sum(made() is not None for made in self.made))
        array = self[name]
        self.made.append(weakref.ref(array))
        return array


@pytest.mark.parametrize("size", [10, 1000, 3_000_000])
def test_each_array_is_let_go_of(tmp_path: Path, size: int) -> None:
    arrays = Fleeting({str(n): Spec("float32", (size,)) for n in range(4)})
    shard.write(tmp_path / "a", arrays, arrays.specs, buffers=shard.Buffers())
    assert len(arrays.alive) == 4
    assert max(arrays.alive) <= 1  # the one that was just written
    assert [made() for made in arrays.made] == [None] * 4


# ---- reading ----


def test_a_file_that_is_too_short(tmp_path: Path) -> None:
    """As many whole elements as there are."""
    file = tmp_path / "a"
    places = written(
        file, {"a": np.arange(3, dtype="int64"), "b": np.arange(6.0, dtype="float32").reshape(2, 3)}
    )
    place = places["b"]
    for left, found in [(23, [0, 1, 2, 3, 4]), (8, [0, 1]), (3, []), (0, []), (-9, []), (-place.offset, [])]:
        os.truncate(file, max(place.offset + left, 0))
        array = shard.read(file, place)
        assert (array.shape, array.dtype, array.tolist()) == ((len(found),), np.float32, found)
        assert digested(file, place) != place.spec.digest


def test_an_array_far_inside_a_file(tmp_path: Path) -> None:
    """Where it begins is no multiple of what can be mapped."""
    arrays = {"a": noise(70_001), "b": noise(33), "c": noise(70_000)}
    same(tmp_path / "a", written(tmp_path / "a", arrays), arrays)


def test_what_is_read_may_be_written_to(tmp_path: Path) -> None:
    """TensorFlow makes variables of these pages, and updates them: the checkpoint is none of its business."""
    file, before = tmp_path / "a", noise(3 * BLOCK)
    places = written(file, {"a": before})
    array = shard.read(file, places["a"])
    array[:] = 0
    assert not array.any()
    assert np.array_equal(shard.read(file, places["a"]), before)
    assert digested(file, places["a"]) == digest(before)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 17])
def test_a_digest_by_reading(tmp_path: Path, size: int) -> None:
    file, array = tmp_path / "a", noise(size)
    file.write_bytes(b"odd" + array.tobytes() + b"what follows")
    place = Place(Spec("uint8", (size,), digest(array)), file.name, 3)
    assert digested(file, place) == place.spec.digest
    file.write_bytes(b"odd" + array.tobytes()[:-1])
    assert (digested(file, place) == place.spec.digest) == (size == 0)
