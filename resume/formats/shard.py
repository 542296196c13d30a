"""One safetensors file of a checkpoint (https://github.com/huggingface/safetensors, section "Format").

Written past the page cache: a checkpoint is not read again soon, and so costs a sixth of the CPU. Arrays pass through
one aligned buffer, and nothing but that is held beside them. Where a file system knows no direct writes (some network
ones), the same bytes go the usual way. Read by mapping, copy-on-write.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from resume.errors import SourceError
from resume.state import Arrays, Spec, digest, dtype_named

_BLOCK = 4096  # bytes; direct writes begin and end at multiples of the disk's block, and this is one of all of them
_BUFFER = 8 << 20  # bytes
_PIECE = 1 << 20  # bytes that stay in a core's cache between being read and being digested
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


def write(file: Path, arrays: Arrays, specs: Mapping[str, Spec]) -> tuple[dict[str, Place], bytes]:
    """Write those arrays into a new file, sync it, and let go of each; a digest that a spec lacks is made on the way.

    Returns where each lies, and the file's header. Raises OSError as the file system does, and SourceError for a
    dtype that safetensors lacks (complex128).
    """
    header, offsets = _header(specs)
    places = {}

    def parts() -> Iterator[np.ndarray[Any, Any]]:
        yield np.frombuffer(header, np.uint8)
        for name, spec in specs.items():
            array = arrays.take(name)
            known = spec if spec.digest else replace(spec, digest=digest(array))
            places[name] = Place(known, file.name, len(header) + offsets[name])
            yield array

    _write_synced(file, parts())
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


def digest_at(file: Path, place: Place) -> str:
    """The digest of the bytes that lie there, by reading: a bad disk is an OSError then, and for a mapping SIGBUS."""
    found, at, end = xxhash.xxh3_128(), place.offset, place.offset + place.spec.nbytes
    buffer = _scratch()
    with file.open("rb", buffering=0) as stream:
        while at < end:
            count = os.preadv(stream.fileno(), [buffer[: end - at]], at)
            if count == 0:
                break
            found.update(buffer[:count])
            at += count
    return found.hexdigest()


def _scratch() -> memoryview:
    """This thread's buffer: allocated once, as fresh pages cost more than what is done with them."""
    if not hasattr(_held, "buffer"):
        _held.buffer = memoryview(bytearray(_PIECE))
    return _held.buffer  # type: ignore[no-any-return]


def _write_synced(file: Path, parts: Iterable[np.ndarray[Any, Any]]) -> None:
    """The bytes of each array, C order, one after the other."""
    with _opened(file) as handle:
        end = _write_blocks(handle, parts)
        os.ftruncate(handle, end)  # the last block was filled up
        os.fsync(handle)


def _write_blocks(handle: int, parts: Iterable[np.ndarray[Any, Any]]) -> int:
    buffer = np.frombuffer(mmap.mmap(-1, _BUFFER), np.uint8)  # mapped, for its alignment
    written = held = 0
    for part in parts:
        flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        while flat.size:
            piece, flat = flat[: _BUFFER - held], flat[_BUFFER - held :]
            buffer[held : held + piece.size] = piece
            held += piece.size
            if held == _BUFFER:
                _write_all(handle, buffer, written)
                written, held = written + held, 0
    padded = -(-held // _BLOCK) * _BLOCK
    buffer[held:padded] = 0
    _write_all(handle, buffer[:padded], written)
    return written + held


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
