"""One safetensors file of a checkpoint (https://github.com/huggingface/safetensors, section "Format").

Written past the page cache: a checkpoint is not read again soon, and so costs a sixth of the CPU. Arrays pass through
aligned buffers, of which one is filled while another is written. Where a file system knows no direct writes (some
network ones), the same bytes go the usual way. Read by mapping, copy-on-write.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import queue
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from resume.errors import SourceError
from resume.state import Arrays, Spec, dtype_named

_BLOCK = 4096  # bytes; direct writes begin and end at multiples of the disk's block, and this is one of all of them
_BUFFER = 8 << 20  # bytes
_PIECE = 1 << 19  # bytes that stay in a core's cache between being read and being digested
_DIRECT = getattr(os, "O_DIRECT", 0)


_HEADER_LIMIT = 1 << 28  # bytes; a header that claims more is damaged
_SAFETENSORS = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "complex64": "C64",
}  # fmt: skip

_held = threading.local()


@dataclass(frozen=True)
class Place:
    """Where an array lies: bytes [offset, offset + spec.nbytes) of a file of the checkpoint."""

    spec: Spec
    file: str
    offset: int


class Buffers:
    """Aligned memory through which arrays pass to the disk; kept, as fresh pages cost more than all that is done here.

    `most`: how many there are, once that many were needed at a time.
    """

    def __init__(self, most: int = 2) -> None:
        self._most, self._made, self._spared = most, 0, 0
        # The one that was given back last is taken first: some of it may be in the cores' caches still.
        self._free: queue.LifoQueue[np.ndarray[Any, Any]] = queue.LifoQueue()

    @classmethod
    def holding(cls, nbytes: int) -> Buffers:
        """As many as hold that many bytes; two at the least, one to fill while the other is written."""
        return cls(max(2, nbytes // _BUFFER))

    def take(self) -> np.ndarray[Any, Any]:
        """One of _BUFFER bytes, whatever is in it; waits for one to be given back where no more may be made."""
        with contextlib.suppress(queue.Empty):
            return self._free.get(block=self._made == self._most)
        try:
            return self._new()
        except OSError:  # no memory is left for more
            if not self._made:
                raise
            self._most = self._made
            return self._free.get()

    def give(self, buffer: np.ndarray[Any, Any]) -> None:
        self._free.put(buffer)

    def spare(self) -> None:
        """Where some had to be made since the last call: as many again as there are, for the next time.

        Whoever makes one fills it slowly, and so takes fewer than when they are there.
        """
        if self._made > self._spared:
            with contextlib.suppress(OSError):  # no memory is left for more
                for _ in range(min(self._made, self._most - self._made)):
                    buffer = self._new()
                    buffer[:: mmap.PAGESIZE] = 0  # the pages come when they are touched
                    self.give(buffer)
        self._spared = self._made

    def _new(self) -> np.ndarray[Any, Any]:
        memory = mmap.mmap(-1, _BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # for its alignment
        # What a forked child shares would be copied as it is filled again; small pages are slow to come.
        for advice in ("MADV_DONTFORK", "MADV_HUGEPAGE"):
            with contextlib.suppress(AttributeError, OSError):
                memory.madvise(getattr(mmap, advice))
        self._made += 1
        return np.frombuffer(memory, np.uint8)


def write(
    file: Path, arrays: Arrays, specs: Mapping[str, Spec], *, buffers: Buffers
) -> tuple[dict[str, Place], bytes]:
    """Write those arrays into a new file, sync it, and let go of each; a digest that a spec lacks is made on the way.

    Returns where each lies, and the file's header. Raises OSError as the file system does, and SourceError for a
    dtype that safetensors lacks (complex128).
    """
    header, offsets = _header(specs)
    places = {}
    with _opened(file) as handle:
        with _Writer(handle, buffers) as writer:
            writer.add(np.frombuffer(header, np.uint8))
            for name, spec in specs.items():
                found = writer.add(arrays.take(name), digested=not spec.digest)
                known = replace(spec, digest=spec.digest or found)
                places[name] = Place(known, file.name, len(header) + offsets[name])
            end = writer.finish()
        os.ftruncate(handle, end)  # the last block was filled up
        os.fsync(handle)
    return places, header


def _header(specs: Mapping[str, Spec]) -> tuple[bytes, dict[str, int]]:
    """The header, and each array's offset behind it."""
    entries: dict[str, Any] = {}
    end = 0
    for name, spec in specs.items():
        if spec.dtype not in _SAFETENSORS:
            raise SourceError(f"{name}: safetensors has no dtype {spec.dtype}; cast this variable.")
        entries[name] = {
            "dtype": _SAFETENSORS[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [end, end + spec.nbytes],
        }
        end += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)  # the data begins on a cache line
    offsets = {name: entry["data_offsets"][0] for name, entry in entries.items()}
    return struct.pack("<Q", len(text)) + text, offsets


def read_header(file: Path) -> bytes:
    with file.open("rb") as stream:
        length = stream.read(8)
        size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        return length + stream.read(min(size, _HEADER_LIMIT))


def read(file: Path, place: Place) -> np.ndarray[Any, Any]:
    """The array that lies there, mapped: read as it is looked at, and what is written to it stays in this process.

    Flat, and with fewer elements than it should have, where the file is too short. Raises OSError.
    """
    kind, start = dtype_named(place.spec.dtype), place.offset // mmap.ALLOCATIONGRANULARITY
    start *= mmap.ALLOCATIONGRANULARITY
    with file.open("rb") as stream:
        end = min(place.offset + place.spec.nbytes, os.fstat(stream.fileno()).st_size)
        if end <= place.offset:
            return np.empty(place.spec.shape if place.spec.nbytes == 0 else 0, kind)
        # TensorFlow may make a variable of these very pages, and then updates them in place: so not ACCESS_READ.
        memory = mmap.mmap(stream.fileno(), end - start, offset=start, access=mmap.ACCESS_COPY)
    flat = np.frombuffer(memory, np.uint8)[place.offset - start :]
    flat = flat[: flat.size // kind.itemsize * kind.itemsize].view(kind)
    return flat.reshape(place.spec.shape) if flat.nbytes == place.spec.nbytes else flat


def digest_at(file: Path, offset: int, size: int) -> str:
    """The digest of `size` bytes of a file, by reading: a bad disk is an OSError then, and for a mapping SIGBUS."""
    found, done = xxhash.xxh3_128(), 0
    with file.open("rb", buffering=0) as stream:
        while done < size:
            buffer = _scratch()[: min(_PIECE, size - done)]
            count = os.preadv(stream.fileno(), [buffer], offset + done)
            if count == 0:
                break
            found.update(buffer[:count])
            done += count
    return found.hexdigest()


def read_into(file: Path, offset: int, memory: np.ndarray[Any, Any]) -> int:
    """Bytes that were read into `memory` (uint8): fewer than it has where the file is too short. Raises OSError."""
    view, done = memory.data, 0
    with file.open("rb", buffering=0) as stream:
        while done < len(view) and (count := os.preadv(stream.fileno(), [view[done:]], offset + done)):
            done += count
    return done


def _scratch() -> memoryview:
    """This thread's buffer: allocated once, as fresh pages cost more than what is done with them."""
    if not hasattr(_held, "buffer"):
        _held.buffer = memoryview(bytearray(_PIECE))
    return _held.buffer  # type: ignore[no-any-return]


class _Writer:
    """Copies arrays into buffers, one after the other, while a thread writes those that are full."""

    def __init__(self, handle: int, buffers: Buffers) -> None:
        self._handle, self._buffers = handle, buffers
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="resume-write")
        self._flights: deque[Future[None]] = deque()
        self._buffer: Any = buffers.take()  # None once it is another's
        self._held = self._begun = 0  # bytes of the file in it, and in earlier ones
        self._left = False

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._left = True  # what failed is not tried with the rest of it
        self._pool.shutdown()
        if self._buffer is not None:
            self._buffers.give(self._buffer)

    def add(self, array: np.ndarray[Any, Any], *, digested: bool = False) -> str:
        """Its bytes, C order; with their digest, made of each piece while that is in the core's cache."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        found = xxhash.xxh3_128()
        while flat.size:
            room = min(_PIECE, _BUFFER - self._held)
            piece, flat = flat[:room], flat[room:]
            if digested:
                found.update(piece.data)
            self._buffer[self._held : self._held + piece.size] = piece
            self._held += piece.size
            if self._held == _BUFFER:
                self._send(_BUFFER)
                self._buffer, self._held = self._buffers.take(), 0
        return found.hexdigest()

    def finish(self) -> int:
        """Wait until all is written, the last block filled up with zeros; bytes without these."""
        end, padded = self._begun + self._held, -(-self._held // _BLOCK) * _BLOCK
        self._buffer[self._held : padded] = 0
        self._send(padded)
        for flight in self._flights:
            flight.result()
        return end

    def _send(self, size: int) -> None:
        while self._flights and self._flights[0].done():
            self._flights.popleft().result()  # a disk that is full is found out now, not at the end
        self._flights.append(self._pool.submit(self._write, self._buffer, size, self._begun))
        self._buffer = None
        self._begun += self._held

    def _write(self, buffer: np.ndarray[Any, Any], size: int, offset: int) -> None:
        try:
            if not self._left:
                _write_all(self._handle, buffer[:size], offset)
        finally:
            self._buffers.give(buffer)


def _write_all(handle: int, data: np.ndarray[Any, Any], offset: int) -> None:
    while data.size:
        try:
            count = os.pwrite(handle, data.data, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not _made_usual(handle):
                raise
            continue
        data, offset = data[count:], offset + count
        if count % _BLOCK:
            _made_usual(handle)  # cut short, by a signal say: what is left no longer begins at a block


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        handle = os.open(file, flags | _DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        file.unlink(missing_ok=True)  # Linux creates it before it finds that it cannot open it so
        handle = os.open(file, flags, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _made_usual(handle: int) -> bool:
    """Go on without direct writes. Whether that changes anything."""
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    fcntl.fcntl(handle, fcntl.F_SETFL, flags & ~_DIRECT)
    return bool(flags & _DIRECT)
