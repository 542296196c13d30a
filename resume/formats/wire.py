"""The protocol buffer wire format, as far as checkpoints need it: fields by number, nothing beyond the given bytes.

A message is a sequence of (tag, value), tag = field number << 3 | wire type, in varints of seven bits a byte
(https://protobuf.dev/programming-guides/encoding). Damage raises ValueError.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_FIXED = {FIXED64: 8, FIXED32: 4}


@dataclass(frozen=True)
class Field:
    """One field: `number` for varints and fixed widths (unsigned), `data` for strings, bytes and messages."""

    tag: int
    kind: int
    number: int = 0
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    @property
    def text(self) -> str:
        self._is(BYTES)
        return str(self.data, "utf-8")

    @property
    def message(self) -> Iterator[Field]:
        self._is(BYTES)
        return fields(self.data)

    @property
    def unsigned(self) -> int:
        if self.kind == BYTES:
            raise ValueError(f"field {self.tag} holds bytes where a number belongs")
        return self.number

    @property
    def signed(self) -> int:
        """Two's complement of 64 bits: how int32, int64 and enums are written."""
        number = self.unsigned
        return number - (1 << 64) if number >> 63 else number

    def _is(self, kind: int) -> None:
        if self.kind != kind:
            raise ValueError(f"field {self.tag} holds a number where bytes belong")


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends) of the varint at `at`."""
    value = 0
    for shift in range(_VARINT_BYTES):
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise ValueError("a number has more than 64 bits")


def fields(data: memoryview | bytes) -> Iterator[Field]:
    """The fields of one message, in the order in which they lie there."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        tag, at = varint(view, at)
        kind, width = tag & 7, 0
        if kind == VARINT:
            number, at = varint(view, at)
            yield Field(_number(tag), kind, number)
            continue
        if kind == BYTES:
            width, at = varint(view, at)
        elif kind in _FIXED:
            width = _FIXED[kind]
        else:
            raise ValueError(f"wire type {kind} is not one of protocol buffers' own")
        if width > len(view) - at:
            raise ValueError(f"field {tag >> 3} claims {width} bytes, and {len(view) - at} are there")
        part, at = view[at : at + width], at + width
        if kind == BYTES:
            yield Field(_number(tag), kind, data=part)
        else:
            yield Field(_number(tag), kind, int.from_bytes(part, "little"))


def _number(tag: int) -> int:
    if not 0 < tag >> 3 < 1 << 29:
        raise ValueError(f"{tag >> 3} is no field number")
    return tag >> 3


@dataclass(frozen=True)
class Extent:
    """A message inside a file that need not be read whole."""

    file: BinaryIO
    start: int
    end: int

    def parts(self, wanted: Collection[int]) -> Iterator[tuple[int, Extent]]:
        """(field number, extent) of the members of these numbers that hold bytes; all others are stepped over."""
        at = self.start
        while at < self.end:
            self.file.seek(at)
            head = memoryview(self.file.read(min(2 * _VARINT_BYTES, self.end - at)))
            tag, used = varint(head, 0)
            width, kind = 0, tag & 7
            if kind == BYTES:
                width, used = varint(head, used)
            elif kind == VARINT:
                _, used = varint(head, used)
            elif kind in _FIXED:
                width = _FIXED[kind]
            else:
                raise ValueError(f"wire type {kind} is not one of protocol buffers' own")
            if width > self.end - at - used:
                raise ValueError(
                    f"field {tag >> 3} claims {width} bytes, and {self.end - at - used} are there"
                )
            start, at = at + used, at + used + width
            if kind == BYTES and _number(tag) in wanted:
                yield tag >> 3, Extent(self.file, start, at)

    def read(self) -> memoryview:
        self.file.seek(self.start)
        return memoryview(self.file.read(self.end - self.start))
