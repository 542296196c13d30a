"""The zip around a `.keras` model: members found, bounded and checked before anything is read from them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from resume.errors import SourceError
from resume.formats.hdf5 import damage, opened, strict_json

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS, _NPZ = "model.weights.h5", "model.weights.npz"
_JSON_LIMIT = 1 << 28  # bytes of a config that is still read
_EXPANSION_LIMIT = 100  # Keras stores members as they are; deflate reaches 1032:1 only on zeros
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """An archive whose checksums hold. `held`: the weights file, where it had to be decompressed."""

    path: Path
    offset: int
    size: int
    stamp: tuple[int, int]
    held: bytes | None
    texts: Mapping[str, bytes]

    @classmethod
    def of(cls, path: Path) -> Source:
        with _archive(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if len(members) != len(archive.infolist()):
                raise SourceError(f"{path}: a name occurs twice in this archive; Keras writes each once.")
            if WEIGHTS not in members and _NPZ in members:
                raise SourceError(
                    f"{path}: {_NPZ} keeps its arrays as Python pickles, which are not opened.\n"
                    "Load it with Keras and save it again: model.save('NAME.keras')."
                )
            texts = {name: _member(archive, members, name, path) for name in (METADATA, CONFIG)}
            info = _found(members, WEIGHTS, path)
            stored = info.compress_type == zipfile.ZIP_STORED
            held = None if stored else _member(archive, members, WEIGHTS, path)
            offset = _verified(archive, info, path) if stored else 0
        return cls(path, offset, info.file_size, _stamp(path), held, texts)

    def json(self, member: str) -> dict[str, Any]:
        return strict_json(self.texts[member], self.path, member)

    @contextmanager
    def weights(self) -> Iterator[Any]:
        """The weights file as an open h5py.File. Raises SourceError if the archive is not the one first seen."""
        with damage(self.path, WEIGHTS):
            if _stamp(self.path) != self.stamp:
                raise ValueError("the archive was written to since it was opened")
            file = io.BytesIO(self.held) if self.held is not None else self._slice()
        with file, opened(self.path, file) as handle:
            yield handle

    def _slice(self) -> BinaryIO:
        return io.BufferedReader(_Slice(self.path, self.offset, self.size))


class _Slice(io.RawIOBase):
    """Part of a file as a file of its own, so that a stored member needs no copy."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._size, self._at = start, size, 0

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
        count = self._file.readinto(view) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with damage(path, "the archive"), zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(
            f"{path}: the archive is damaged or was cut off ({error}).\nResume from an earlier checkpoint."
        ) from error


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _found(members: Mapping[str, zipfile.ZipInfo], name: str, path: Path) -> zipfile.ZipInfo:
    if name not in members:
        raise SourceError(f"{path}: {name} is missing from this archive: not a whole model saved by Keras 3.")
    info = members[name]
    if info.flag_bits & 1:
        raise SourceError(f"{path}: {name} is encrypted; Keras writes no such archives.")
    if info.file_size > max(_CHUNK, _EXPANSION_LIMIT * info.compress_size):
        raise SourceError(
            f"{path}: {name} claims {info.file_size} bytes out of {info.compress_size}: damaged."
        )
    return info


def _member(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str, path: Path) -> bytes:
    info = _found(members, name, path)
    if name != WEIGHTS and info.file_size > _JSON_LIMIT:
        raise SourceError(f"{path}: {name} has {info.file_size} bytes: damaged.")
    with _checked(path, name):
        return archive.read(info)


@contextmanager
def _checked(path: Path, name: str) -> Iterator[None]:
    try:
        with damage(path, name):
            yield
    except (zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(
            f"{path}: {name} is damaged ({error}).\nResume from an earlier checkpoint."
        ) from error


def _verified(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> int:
    """Where a stored member's bytes begin, its checksum verified."""
    with _checked(path, info.filename), archive.open(info) as member:
        start = int(member._orig_compress_start)  # type: ignore[attr-defined]
        count = 0
        while chunk := member.read(_CHUNK):
            count += len(chunk)
        if count != info.file_size:
            raise EOFError(f"{count} of {info.file_size} bytes are there")
    return start
