"""What is around a `.keras` model, a zip or (saved with zipped=False) a folder: members found, bounded and checked.

Before anything is read from them. Of the assets, which layers write as files of their own, only vocabularies are read.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from resume.errors import SourceError
from resume.formats import quarantine, survey
from resume.formats.hdf5 import damage, opened, strict_json

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS, _NPZ = "model.weights.h5", "model.weights.npz"
_JSON_LIMIT = 1 << 28  # bytes of a config that is still read
_EXPANSION_LIMIT = 100  # Keras stores members as they are; deflate reaches 1032:1 only on zeros
_CHUNK = 1 << 20
_ASSETS, _VOCABULARY = "assets/", "/vocabulary.txt"
_ASSETS_LIMIT = 1 << 26  # bytes of all vocabularies together


@dataclass(frozen=True)
class Source:
    """An archive whose checksums hold. The weights file lies in `file`, or is `held`, if it had to be decompressed."""

    path: Path
    file: Path
    offset: int
    size: int
    stamp: quarantine.Stamp
    held: bytes | None
    texts: Mapping[str, bytes]
    vocabularies: Mapping[str, bytes]  # by the address of their layer: `layers/string_lookup`
    others: tuple[str, ...]  # assets that are not read

    @classmethod
    def of(cls, path: Path) -> Source:
        return cls._folder(path) if path.is_dir() else cls._zip(path)

    @classmethod
    def _folder(cls, path: Path) -> Source:
        """As `model.save(path, zipped=False)` leaves it: the members as files, without checksums."""
        for name in (METADATA, CONFIG, WEIGHTS):
            file = path / name
            if file.is_symlink() or not file.is_file():
                what = "is a link, and links are not followed" if file.is_symlink() else "is missing"
                raise SourceError(f"{path}: {name} {what}: not a whole model saved by Keras 3.")
            if name != WEIGHTS and file.stat().st_size > _JSON_LIMIT:
                raise SourceError(f"{file}: has {file.stat().st_size} bytes: damaged.")
        with damage(path, "the folder"):
            texts = {name: (path / name).read_bytes() for name in (METADATA, CONFIG)}
            sizes = dict(_assets(path))
            held = {name: (path / name).read_bytes() for name in _vocabularies(sizes, path)}
        file, stamp = path / WEIGHTS, quarantine.stamp(path / WEIGHTS)
        return cls(path, file, 0, file.stat().st_size, stamp, None, texts, *_sorted(held, sizes))

    @classmethod
    def _zip(cls, path: Path) -> Source:
        seen = quarantine.stamp(path)
        with _archive(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if len(members) != len(archive.infolist()):
                raise SourceError(f"{path}: a name occurs twice in this archive; Keras writes each once.")
            if WEIGHTS not in members and _NPZ in members:
                raise SourceError(
                    f"{path}: {_NPZ} keeps its arrays as Python pickles, which are not opened.\n"
                    "Load it with Keras and save it again: model.save('NAME.keras')."
                )
            for name in members:
                _found(members, name, path)
            texts = {name: _member(archive, members, name, path) for name in (METADATA, CONFIG)}
            info = _found(members, WEIGHTS, path)
            stored = info.compress_type == zipfile.ZIP_STORED
            held = None if stored else _member(archive, members, WEIGHTS, path)
            offset = _verified(archive, info, path) if stored else 0
            sizes = {name: member.file_size for name, member in members.items() if not member.is_dir()}
            read = {name: _member(archive, members, name, path) for name in _vocabularies(sizes, path)}
        return cls(path, path, offset, info.file_size, seen, held, texts, *_sorted(read, sizes))

    def json(self, member: str) -> dict[str, Any]:
        return strict_json(self.texts[member], self.path, member)

    @contextmanager
    def weights(self) -> Iterator[Any]:
        """The weights file as an open h5py.File. Raises SourceError if the archive is not the one first seen."""
        with damage(self.path, WEIGHTS):
            if quarantine.stamp(self.file) != self.stamp:
                raise ValueError("the archive was written to since it was opened")
            quarantine.demand(
                self.file, offset=self.offset, size=self.size, held=self.held, element="its weights file"
            )
            file = io.BytesIO(self.held) if self.held is not None else self._slice()
        with file, opened(self.file, file) as handle:
            yield handle

    def _slice(self) -> BinaryIO:
        whole = self.file.open("rb", buffering=0)
        return io.BufferedReader(survey.Slice(whole, self.offset, self.size))


# ---- assets ----


def _assets(folder: Path) -> Iterator[tuple[str, int]]:
    """(name, size) of every file below `assets`; links are not followed, and are no assets."""
    root = folder / "assets"
    for above, directories, files in os.walk(root) if not root.is_symlink() else ():
        directories[:] = [name for name in directories if not Path(above, name).is_symlink()]
        for file in (Path(above, name) for name in files):
            if file.is_file() and not file.is_symlink():
                yield file.relative_to(folder).as_posix(), file.stat().st_size


def _vocabularies(sizes: Mapping[str, int], path: Path) -> list[str]:
    found = [name for name in sizes if name.startswith(_ASSETS) and name.endswith(_VOCABULARY)]
    if sum(sizes[name] for name in found) > _ASSETS_LIMIT:
        raise SourceError(
            f"{path}: its vocabularies have more than {_ASSETS_LIMIT} bytes; they are not read."
        )
    return found


def _sorted(read: Mapping[str, bytes], sizes: Mapping[str, int]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Vocabularies by the address of their layer, and the other assets."""
    held = {name.removeprefix(_ASSETS).removesuffix(_VOCABULARY): text for name, text in read.items()}
    return held, tuple(name for name in sizes if name.startswith(_ASSETS) and name not in read)


# ---- the zip ----


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with damage(path, "the archive"), zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(
            f"{path}: the archive is damaged or was cut off ({error}).\nResume from an earlier checkpoint."
        ) from error


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
