"""Every object of an HDF5 file, visited once: run by resume.formats.quarantine in a process of its own.

Whoever wrote the file may have meant the library to loop, to crash or to eat memory, and damage does the same by
chance (a zeroed block of 4 KiB makes HDF5 1.14 loop for ever). Here that costs a small process: the library gets so
much processor time an object and so much memory, and may open nothing more, so that no link leads anywhere.

This file is run by its path and imports nothing of the package. It prints `ready`, then a line `@<address>` for each
object, then `ok`, or a line of JSON with what is wrong.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

READY, AT, OK = "ready", "@", "ok"
DEPTH_LIMIT = 64  # groups inside groups
OBJECT_LIMIT = 200_000


def allowance(size: int) -> int:
    """The bytes that the arrays of a file of so many bytes may claim: more than zeros, compressed, are not Keras's."""
    return (1 << 24) + 20 * size


class UnsoundError(Exception):
    """What is wrong with the file: (address, a sentence without its subject)."""


class Slice(io.RawIOBase):
    """Part of a file as a file of its own, so that a member of an archive needs no copy."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view) or 0  # type: ignore[attr-defined]
        self._at += count
        return int(count)

    def close(self) -> None:
        self._file.close()
        super().close()


def main() -> None:
    request = json.loads(sys.argv[1])
    _alone()
    sys.path[:0] = request["paths"]
    import h5py

    _warm(h5py)
    if request["path"] is None:
        file: Any = io.BytesIO(sys.stdin.buffer.read())
        size = len(file.getbuffer())
    else:
        size = request["size"]
        file = io.BufferedReader(Slice(open(request["path"], "rb", buffering=0), request["offset"], size))  # noqa: SIM115, PTH123
    _say(READY)
    _limited(request["memory"] + 4 * size)
    try:
        visit(h5py, file, size, seconds=request["seconds"])
    except UnsoundError as error:
        address, cause = error.args
        _say(json.dumps({"address": address, "cause": cause}))
    except MemoryError:
        _say(json.dumps({"address": None, "cause": "needs more memory than a file of its size may"}))
    except RecursionError:
        _say(json.dumps({"address": None, "cause": "is nested too deep"}))
    else:
        _say(OK)


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode("utf-8", "backslashreplace"))


def _alone() -> None:
    """Signals are for the process that waits for this one; its own timer is not."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _limited(spare: int) -> None:
    """No file may be opened or written any more, and so many bytes may be added to this process."""
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": _next_handle()}
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:  # noqa: PTH123  # Linux only
        wanted["RLIMIT_AS"] = int(file.read().split()[0]) * resource.getpagesize() + spare
    for name, value in wanted.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (value, value))


def _next_handle() -> int:
    handle = os.open(os.devnull, os.O_RDONLY)
    os.close(handle)
    return handle


def _warm(h5py: Any) -> None:
    """Import now what h5py imports late: soon nothing can be opened."""
    with h5py.File(io.BytesIO(), "w") as file:
        for number, value in enumerate(("text", b"bytes", ["text"], [b"bytes"], 1.0, [1, 2])):
            file.attrs[str(number)] = value
        file.create_dataset("group/array", data=[1.0, 2.0], chunks=(1,), compression="gzip")
        for _ in _objects(h5py, file, seconds=0):
            pass
    for encoding in ("ascii", "latin-1", "utf-8"):
        codecs.lookup(encoding)


def visit(h5py: Any, file: Any, size: int, *, seconds: float) -> None:
    """Raise UnsoundError for the first thing that no file of Keras's has; the timer kills a library that loops."""
    _arm(seconds)
    with _damage(None):
        handle = h5py.File(file, "r")
    claimed, stretches = 0, []
    for address, item in _objects(h5py, handle, seconds=seconds):
        if not isinstance(item, h5py.Dataset):
            continue
        with _damage(address):
            nbytes, stretch = _array(h5py, address, item)
        claimed += nbytes
        if claimed > allowance(size):
            raise UnsoundError(address, f"claims {nbytes} bytes, in a file of {size}: damaged")
        if stretch is not None:
            stretches.append((*stretch, address))
        elif item.chunks and not item.dtype.hasobject:
            with _damage(address):
                _read(item, seconds=seconds)
    _apart(stretches, size)


def _arm(seconds: float) -> None:
    """So many seconds of processor time until this process is killed, even inside the library."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


@contextlib.contextmanager
def _damage(address: str | None) -> Iterator[None]:
    try:
        yield
    except (UnsoundError, MemoryError, RecursionError):
        raise
    except Exception as error:
        lines = str(error).strip("'\"").splitlines() or [type(error).__name__]
        raise UnsoundError(address, f"cannot be read ({lines[0][:160]})") from error


def _objects(h5py: Any, root: Any, *, seconds: float) -> Iterator[tuple[str, Any]]:
    """(address, group or array) of all that hard links lead to, each once."""
    seen = {h5py.h5o.get_info(root.id).addr: "/"}
    waiting = [("", root, 0)]
    while waiting:
        address, group, depth = waiting.pop()
        _visited(address or "/", seconds)
        with _damage(address or "its root group"):
            _attributes(h5py, group)
            names = list(group)
        yield address, group
        for name in names:
            inner = f"{address}/{name}" if address else name
            _visited(inner, seconds)
            with _damage(inner):
                item = _member(h5py, group, name, inner, seen)
            if len(seen) > OBJECT_LIMIT or depth > DEPTH_LIMIT:
                raise UnsoundError(
                    inner[:80], "is one of too many objects, or lies too deep: not a file of Keras"
                )
            if isinstance(item, h5py.Group):
                waiting.append((inner, item, depth + 1))
                continue
            with _damage(inner):
                _attributes(h5py, item)
            yield inner, item


def _visited(address: str, seconds: float) -> None:
    if seconds:
        _say(AT + address)
        _arm(seconds)


def _member(h5py: Any, group: Any, name: str, address: str, seen: dict[int, str]) -> Any:
    # The names of links are bytes; h5py hands out those that are no UTF-8 with surrogates.
    key = name.encode("utf-8", "surrogateescape")
    if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise UnsoundError(address, "is a link to elsewhere; links are not followed")
    place = h5py.h5o.get_info(group.id, key).addr
    if place in seen:
        raise UnsoundError(
            address, f"is the same object as {seen[place]}; Keras writes each of its own: damaged"
        )
    seen[place] = address
    return group[name]


def _attributes(h5py: Any, item: Any) -> None:
    """Every attribute, by number: a name that is no UTF-8 is the reader's to judge."""
    for number in range(h5py.h5a.get_num_attrs(item.id)):
        name = h5py.h5a.open(item.id, index=number).name
        with contextlib.suppress(UnicodeDecodeError):
            item.attrs.get(name.decode())


def _array(h5py: Any, address: str, item: Any) -> tuple[int, tuple[int, int] | None]:
    """The bytes that an array claims, and (start, end) of them in the file where they lie in one piece."""
    layout = item.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise UnsoundError(address, "keeps its values in another file; links are not followed")
    stored, claimed = item.id.get_storage_size(), item.id.get_type().get_size() * int(item.size or 0)
    if claimed and (not stored or (claimed > stored and not item.chunks)):
        raise UnsoundError(address, f"claims {claimed} bytes, and {stored} are stored: damaged")
    start = None if item.chunks else item.id.get_offset()
    return claimed, (start, start + stored) if start is not None and stored else None


def _read(item: Any, *, seconds: float) -> None:
    """Pieces lead through trees and filters, so that only reading them shows that they can be read."""
    for piece in item.iter_chunks():
        _arm(seconds)
        item[piece]


def _apart(stretches: list[tuple[int, int, str]], size: int) -> None:
    stretches.sort()
    for (_, end, name), (start, _, other) in itertools.pairwise(stretches):
        if start < end:
            raise UnsoundError(other, f"lies where {name} lies: damaged")
    if stretches and stretches[-1][1] > size:
        raise UnsoundError(stretches[-1][2], "lies beyond the end of the file: cut off")


if __name__ == "__main__":
    main()
