"""What strikes a run: a full disk, a limit of sizes, calls that fail, damage to a file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import random
import resource
import struct
import subprocess
from pathlib import Path

SMALL = 16 << 20  # bytes of the file system that gets full
LITTLE = 16 << 10  # bytes: half of the limits are below that, for the small files
ERRORS = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EFBIG, errno.EIO)}

_CLONE_NEWNS = 0x00020000


class Orders:
    """What failing.c is told, in memory that is shared with forks."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def obey(self, folder: Path) -> None:
        """In the fork: from now on its calls are counted, if the library was preloaded."""
        begin = getattr(ctypes.CDLL(None), "failing_begin", None)
        if begin is not None:
            self._held = ctypes.c_char.from_buffer(self._memory)
            begin(ctypes.c_void_p(ctypes.addressof(self._held)), os.fsencode(folder))

    def give(self, *, after: int, error: int, lasting: bool) -> None:
        """Let the `after`th call from now on fail."""
        struct.pack_into("2q", self._memory, 16, error, lasting)
        struct.pack_into("q", self._memory, 8, self.calls + after)

    @property
    def calls(self) -> int:
        return int(struct.unpack_from("q", self._memory, 0)[0])

    @property
    def failed(self) -> int:
        return int(struct.unpack_from("q", self._memory, 32)[0])

    @property
    def first(self) -> str:
        """The call that failed first."""
        return self._memory[40:296].split(b"\0")[0].decode()


def is_preloaded() -> bool:
    return hasattr(ctypes.CDLL(None), "failing_begin")


def mount(folder: Path) -> None:
    """In a name space of mounts that this process makes its own, with which it is gone however that ends."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True, capture_output=True, text=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "faults", folder]
    subprocess.run(command, check=True, capture_output=True, text=True)


def fill(ballast: Path, *, leave: int) -> None:
    """Until no more than that is free, whatever others write and remove at the same time."""
    with ballast.open("wb") as file:
        size = 0
        while True:
            facts = os.statvfs(ballast)
            free = facts.f_bavail * facts.f_frsize
            if free <= leave:
                return
            with contextlib.suppress(OSError):  # what was free is taken by now
                os.posix_fallocate(file.fileno(), size, free - leave)
                size += free - leave


def limit(process: int, largest: int, rng: random.Random) -> None:
    """Its files may get no larger than a random size, below `largest` bytes."""
    size = rng.randrange(rng.choice([largest, LITTLE]))
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size, size))


def refuse(orders: Orders, calls: int, rng: random.Random) -> None:
    """One of the next `calls` fails, and maybe all after it."""
    number, lasting = rng.choice([(errno.EIO, False), (errno.EIO, True), (errno.ENOSPC, True)])
    orders.give(after=rng.randint(1, calls), error=number, lasting=lasting)


def damage(file: Path, rng: random.Random) -> None:
    """One bit, mostly; or its end cut off; or one block of zeros."""
    data = bytearray(file.read_bytes())
    kind, at = rng.random(), rng.randrange(len(data))
    block = slice(at // 4096 * 4096, (at // 4096 + 1) * 4096)
    if kind < 0.15:
        del data[at:]
    elif kind < 0.3 and any(data[block]):
        data[block] = bytes(len(data[block]))
    else:
        data[at] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
