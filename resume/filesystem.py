"""What the place of a run directory can promise: writing, locking, renaming, syncing, room.

Everything is tried out in the nearest folder that exists, and nothing is left behind: looking makes no run directory.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from resume.check import OK, PROBLEM, WARNING, Check

_HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
try:
    lock.acquire(timeout=0)
    print("has it", flush=True)
    time.sleep(60)
except filelock.Timeout:
    print("refused", flush=True)
"""
_PATIENCE = 20.0  # seconds for a second process to start
_OWN_MEMORY = {"tmpfs", "ramfs"}
_CONTAINER = {"overlay", "aufs"}
_SHARED = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "9p",
    "afs",
    "glusterfs",
    "virtiofs",
}
_SLOW_SYNC = 0.5  # seconds
_SKEW = 5.0  # seconds between two clocks that are taken for one


def standing(run: Path) -> Path:
    """The run directory, or the nearest folder above it that exists."""
    folder = run.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def checks(run: Path, *, each: int | None, more: int = 1) -> Iterator[Check]:
    """`each`: bytes of a checkpoint, None where nobody knows; `more`: how many more will stand here at a time."""
    folder = standing(run)
    try:
        scratch = tempfile.TemporaryDirectory(prefix=".resume-doctor-", dir=folder)
    except OSError as error:
        yield Check("run directory", PROBLEM, f"{folder}: cannot be written to ({error.strerror})",
                    "make it writable, or name another place: run_dir=DIR")  # fmt: skip
        return
    with scratch as name:
        yield _writable(run, folder)
        yield _kind(folder)
        yield _sync(Path(name))
        yield _lock(Path(name))
        yield _clock(Path(name))
    yield from _room(folder, each, more)


def _writable(run: Path, folder: Path) -> Check:
    made = "" if folder == run.absolute() else f", to be made in {folder}"
    return Check("run directory", OK, f"{run}: can be written to{made}")


def _kind(folder: Path) -> Check:
    kind, options = mounted(folder)
    if kind in _OWN_MEMORY:
        return Check("file system", WARNING, f"{kind}: checkpoints are in this machine's memory, and go with it",
                     "name a place on a disk: run_dir=DIR")  # fmt: skip
    if kind in _CONTAINER and _in_container():
        return Check("file system", WARNING, f"{kind}: the container's own layer, which goes when the container goes",
                     "mount a volume, and put run_dir on it")  # fmt: skip
    if "localflock" in options:
        return Check("file system", WARNING, f"{kind}, mounted with localflock: locks end at this machine",
                     "mount it with flock; else let no two machines train in one run directory")  # fmt: skip
    if kind in _SHARED or kind.startswith("fuse"):
        return Check("file system", OK, f"{kind}: shared between machines; the lock was tried on this one only",
                     "to be sure, run this on two machines at a time")  # fmt: skip
    return Check("file system", OK, kind or "unknown")


def mounted(folder: Path) -> tuple[str, tuple[str, ...]]:
    """The type of the file system that holds a folder, and its mount options."""
    best = ""
    found: tuple[str, tuple[str, ...]] = ("", ())
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return found
    real = folder.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace(r"\040", " ")
        if len(point) >= len(best) and (real == Path(point) or Path(point) in real.parents):
            kind, _, options = after.split(" ", 2)
            best, found = point, (kind, tuple(f"{before.split()[5]},{options}".split(",")))
    return found


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or "KUBERNETES_SERVICE_HOST" in os.environ


def _sync(scratch: Path) -> Check:
    """As a checkpoint is published: write, sync, rename, sync the folder."""
    begun = time.perf_counter()
    try:
        (scratch / "begun").mkdir()
        with (scratch / "begun" / "state").open("wb") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
        (scratch / "begun").rename(scratch / "published")
        handle = os.open(scratch, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        whole = (scratch / "published" / "state").stat().st_size == 1 << 20
    except OSError as error:
        return Check("rename and sync", PROBLEM, f"{error.strerror}",
                     "checkpoints cannot be published here: run_dir=DIR on another file system")  # fmt: skip
    seconds = time.perf_counter() - begun
    state = PROBLEM if not whole else WARNING if seconds > _SLOW_SYNC else OK
    advice = (
        ""
        if state == OK
        else "a save stops the training this long at least: fewer checkpoints, or a faster disk"
    )
    return Check(
        "rename and sync", state, f"1 MiB written, synced and renamed in {seconds * 1000:.0f} ms", advice
    )


def _lock(scratch: Path) -> Check:
    """Another process is refused while we hold it, gets it when we let go, and frees it when it is killed."""
    file = scratch / "lock"
    try:
        with filelock.FileLock(file, timeout=0):
            refused = _second(file)
        got = _second(file)
        filelock.FileLock(file).acquire(timeout=_PATIENCE).lock.release()
    except (OSError, NotImplementedError, filelock.Timeout, subprocess.TimeoutExpired) as error:
        return Check("lock", PROBLEM, f"flock does not work here ({error})",
                     "put run_dir on a file system with flock (Lustre: mount option flock)")  # fmt: skip
    if (refused, got) == ("refused", "has it"):
        return Check("lock", OK, "a second process was refused, and had it once this one let go")
    return Check("lock", PROBLEM, f"a second process: {refused}, while this one had the lock; {got} afterwards",
                 "two processes could train in one run directory here: run_dir=DIR on another file system")  # fmt: skip


def _second(file: Path) -> str:
    """What another process says that tries for the lock; killed once it has it."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        return process.stdout.readline().strip() or "failed"
    finally:
        process.kill()
        process.communicate(timeout=_PATIENCE)


def _clock(scratch: Path) -> Check:
    probe = scratch / "now"
    probe.touch()
    skew = probe.stat().st_mtime - time.time()
    if abs(skew) <= _SKEW:
        return Check("clock", OK, f"{time.strftime('%F %T %Z')}, as the file system has it")
    return Check("clock", WARNING, f"the file system's clock is {skew:+.0f} s from this machine's",
                 "synchronise both (NTP); until then the times in lineage.jsonl mean little")  # fmt: skip


def _room(folder: Path, each: int | None, more: int) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free
    if each is None:
        yield Check("free space", WARNING, f"{size(free)} free; what a checkpoint takes is not known yet",
                    "see what the first one takes: python -m resume list RUN")  # fmt: skip
    else:
        needed = each * more
        state = PROBLEM if free < needed else WARNING if free < 2 * needed else OK
        advice = "" if state == OK else "make room, or keep fewer: checkpoint.keep_last=1"
        found = f"{size(free)} free, {size(needed)} to come ({more} checkpoints of {size(each)})"
        yield Check("free space", state, found, advice)
    yield _file_limit(each)


def _file_limit(each: int | None) -> Check:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return Check("file size limit", OK, "none")
    found = f"{size(limit)} (ulimit -f)"
    if each is not None and limit >= each:
        return Check("file size limit", OK, found)
    state = WARNING if each is None else PROBLEM
    return Check("file size limit", state, found, "before python starts: ulimit -f unlimited")


def size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
