"""Tensor bundles, in which TensorFlow 2 keeps every checkpoint: `NAME.index` and `NAME.data-00000-of-0000N`.

The index is a sorted table (resume.formats.table) of key -> BundleEntryProto, under the empty key a BundleHeaderProto
(tensorflow/core/protobuf/tensor_bundle.proto). The shards are the tensors' bytes one after another, little-endian and
in C order; strings are their lengths as varints, a checksum of the lengths, then their bytes
(tensorflow/core/util/tensor_bundle/tensor_bundle.cc, WriteStringTensor).

Each array's checksum is verified when the array is read. No size is believed beyond what the files hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from resume.errors import SourceError
from resume.formats import table, wire
from resume.formats.hdf5 import damage
from resume.state import Spec, dtype_named

INDEX = ".index"
STRING = 7
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip  # tensorflow/core/framework/types.proto
_NAMES = {STRING: "strings", 20: "a resource", 21: "a variant"}
_VERSION = 1  # the newest layout of bundles that there is
_SLICE_KEY = b"\0"  # begins the keys of a partitioned variable's parts
_RANK_LIMIT = 32  # what every NumPy can hold


@dataclass(frozen=True)
class Entry:
    """Where one tensor's bytes lie, and what they are."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    parts: int  # of a partitioned variable, which has no bytes of its own

    @classmethod
    def of(cls, data: memoryview) -> Entry:
        numbers = dict.fromkeys(range(1, 7), 0)
        shape: tuple[int, ...] = ()
        parts = 0
        for field in wire.fields(data):
            if field.tag == 2:
                shape = _shape(field)
            elif field.tag == 7:
                parts += 1
            elif field.tag in numbers:
                numbers[field.tag] = field.signed
        dtype, shard, offset, size, checksum = (numbers[tag] for tag in (1, 3, 4, 5, 6))
        if min(shard, offset, size) < 0:
            raise ValueError("a place is negative")
        return cls(dtype, shape, shard, offset, size, checksum, parts)


def _shape(field: wire.Field) -> tuple[int, ...]:
    sizes = []
    for dimension in field.message:
        if dimension.tag == 3 and dimension.unsigned:
            raise ValueError("the shape of a tensor is unknown")
        if dimension.tag == 2:
            sizes.append(next((f.signed for f in dimension.message if f.tag == 1), 0))
    if len(sizes) > _RANK_LIMIT or min(sizes, default=0) < 0:
        raise ValueError(f"{sizes[:9]} is no shape")
    return tuple(sizes)


@dataclass(frozen=True)
class Bundle:
    """The tensors of one checkpoint by key; every one of them lies inside its shard."""

    prefix: Path
    shards: int
    entries: Mapping[str, Entry]

    @classmethod
    def of(cls, prefix: Path) -> Bundle:
        """The bundle `prefix`.index. Raises SourceError where anything is missing, cut off or damaged."""
        path = prefix.with_name(prefix.name + INDEX)
        with damage(path, "the index"):
            if not path.is_file():
                raise SourceError(f"{path}: no such file; a checkpoint's index is needed beside its data.")
            found = dict(table.entries(path.read_bytes()))
            shards = _shards(found.pop(b"", None))
            entries = {
                str(key, "utf-8"): Entry.of(value)
                for key, value in found.items()
                if not key.startswith(_SLICE_KEY)
            }
        bundle = cls(prefix, shards, entries)
        bundle._check()
        return bundle

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def spec(self, key: str) -> Spec:
        """Dtype and shape. Raises SourceError for what no Keras variable is."""
        entry = self._entry(key)
        if entry.parts:
            raise SourceError(
                f"{self._index}: {key} is partitioned into {entry.parts} or more parts, which is not supported.\n"
                "Save the model once more without a partitioner (ParameterServerStrategy has one)."
            )
        if entry.dtype not in _DTYPES:
            what = _NAMES.get(entry.dtype, f"of TensorFlow's type {entry.dtype}")
            raise SourceError(f"{self._index}: {key} is {what}, which no Keras variable is.")
        return Spec(_DTYPES[entry.dtype], entry.shape)

    def array(self, key: str) -> np.ndarray[Any, Any]:
        """The tensor's values, their checksum verified."""
        entry, spec = self._entry(key), self.spec(key)
        data = self._bytes(key, entry)
        if table.masked(google_crc32c.value(data)) != entry.checksum & 0xFFFFFFFF:
            raise self._damaged(key)
        with damage(self.shard(entry), key):
            dtype = dtype_named(spec.dtype)
            if spec.dtype == "bool":
                data = (data != 0).view(np.uint8)
            little = dtype.newbyteorder("<") if dtype.kind in "iufc" else dtype
            return data.view(little).astype(dtype, copy=False).reshape(spec.shape)

    def text(self, key: str) -> bytes:
        """The one string in a tensor of strings, its checksums verified."""
        entry = self._entry(key)
        data = self._bytes(key, entry)
        with damage(self.shard(entry), key):
            if entry.dtype != STRING or entry.shape != ():
                raise ValueError("one string is expected")
            length, at = wire.varint(data.data, 0)
            end, width = at + 4, 4 if length < 1 << 32 else 8
            lengths = google_crc32c.value(length.to_bytes(width, "little"))
            stored = data[at:end].tobytes()
            whole = google_crc32c.extend(google_crc32c.extend(lengths, stored), data[end:])
        if table.masked(lengths) != int.from_bytes(stored, "little") or length != len(data) - end:
            raise self._damaged(key)
        if table.masked(whole) != entry.checksum & 0xFFFFFFFF:
            raise self._damaged(key)
        return data[end:].tobytes()

    def shard(self, entry: Entry) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self.shards:05d}")

    @property
    def _index(self) -> Path:
        return self.prefix.with_name(self.prefix.name + INDEX)

    def _entry(self, key: str) -> Entry:
        if key not in self.entries:
            raise SourceError(f"{self._index}: {key} is missing; the checkpoint is damaged.")
        return self.entries[key]

    def _bytes(self, key: str, entry: Entry) -> np.ndarray[Any, Any]:
        path = self.shard(entry)
        with damage(path, key), path.open("rb") as file:
            self._within(key, entry, path.stat().st_size)
            data = np.empty(entry.size, dtype=np.uint8)
            file.seek(entry.offset)
            count = file.readinto(data.data) if entry.size else 0
            if count != entry.size:
                raise EOFError(f"{entry.size} bytes saved -> {count} found")
        return data

    def _check(self) -> None:
        """Every tensor lies in a shard that is there, and has the size that its dtype and shape have."""
        sizes: dict[int, int] = {}
        for key, entry in self.entries.items():
            if entry.parts:
                continue
            path = self.shard(entry)
            if entry.shard not in sizes:
                with damage(path, "the data"):
                    if entry.shard >= self.shards or not path.is_file():
                        raise SourceError(
                            f"{path}: missing; this part of the checkpoint holds {key}.\n"
                            "Copy the checkpoint's .data files as well, or resume from another one."
                        )
                    sizes[entry.shard] = path.stat().st_size
            self._within(key, entry, sizes[entry.shard])
            if entry.dtype in _DTYPES:
                size = math.prod(entry.shape) * dtype_named(_DTYPES[entry.dtype]).itemsize
                if size != entry.size:
                    raise SourceError(
                        f"{self._index}: {key} claims {entry.size} bytes for {self.spec(key)}; it is damaged."
                    )

    def _within(self, key: str, entry: Entry, size: int) -> None:
        if entry.offset + entry.size > size:
            raise SourceError(
                f"{self.shard(entry)}: cut off: {key} would end at byte {entry.offset + entry.size},"
                f" the file at {size}.\nResume from an earlier checkpoint."
            )

    def _damaged(self, key: str) -> SourceError:
        return SourceError(
            f"{self.shard(self.entries[key])}: {key} is damaged: its checksum does not match.\n"
            "Resume from an earlier checkpoint."
        )


def holds(prefix: Path) -> bool:
    """Whether a bundle of this name is there."""
    path = prefix.with_name(prefix.name + INDEX)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 48))
            return table.has_footer(file.read(48))
    except OSError:
        return False


def _shards(header: memoryview | None) -> int:
    if header is None:
        raise ValueError("its header is missing")
    shards = order = 0
    for field in wire.fields(header):
        if field.tag == 1:
            shards = field.signed
        elif field.tag == 2:
            order = field.signed
        elif field.tag == 3:
            least = next((part.signed for part in field.message if part.tag == 2), 0)
            if least > _VERSION:
                raise ValueError(f"its layout {least} is newer than the newest known here, {_VERSION}")
    if order:
        raise ValueError("it was written on a big-endian machine, which is not supported")
    if not 0 < shards < 100_000:
        raise ValueError(f"{shards} shards are claimed")
    return shards
