"""The sorted table of strings in which a tensor bundle keeps its index (tensorflow/core/lib/io/table_format.txt).

    block ... block, metaindex block, index block, footer (48 bytes: two handles, padding, magic)
    block:   entries (shared, fresh and value length as varints, key's fresh part, value), restarts, count of restarts
    trailer: 1 byte compression, 4 bytes masked crc32c of block and compression

It is LevelDB's. Damage raises ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

from resume.formats import wire

_FOOTER, _HANDLES, _TRAILER = 48, 40, 5
_MAGIC = 0xDB4775248B80FB57


def masked(crc: int) -> int:
    """As checksums are stored, lest a checksum of checksums be weak (tsl/lib/hash/crc32c.h)."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def has_footer(end: bytes) -> bool:
    """Whether a file that ends so is such a table."""
    return len(end) >= _FOOTER and int.from_bytes(end[-8:], "little") == _MAGIC


def entries(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(key, value), the keys ascending, each block's checksum verified."""
    view = memoryview(data)
    if not has_footer(data[-_FOOTER:]):
        raise ValueError("it does not end as an index of TensorFlow does")
    footer = view[-_FOOTER:]
    _, used = _handle(footer[:_HANDLES], 0)
    index, _ = _handle(footer[:_HANDLES], used)
    last = None
    for _, place in _block(_checked(view, index)):
        for key, value in _block(_checked(view, _handle(place, 0)[0])):
            if last is not None and key <= last:
                raise ValueError("its keys are not in order")
            last = key
            yield key, value


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    offset, at = wire.varint(data, at)
    size, at = wire.varint(data, at)
    return (offset, size), at


def _checked(view: memoryview, handle: tuple[int, int]) -> memoryview:
    offset, size = handle
    if offset + size > len(view) - _FOOTER - _TRAILER:
        raise ValueError(f"a block of {size} bytes at {offset} would lie behind its end")
    block, trailer = view[offset : offset + size + 1], view[offset + size : offset + size + _TRAILER]
    if masked(google_crc32c.value(bytes(block))) != int.from_bytes(trailer[1:], "little"):
        raise ValueError(f"the checksum of the block at {offset} does not match")
    if trailer[0]:
        raise ValueError(
            "it is compressed, as only TensorFlow 1 wrote some; load and save it there once more"
        )
    return block[:-1]


def _block(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    restarts = int.from_bytes(data[-4:], "little")
    end = len(data) - 4 * (restarts + 1)
    if len(data) < 4 or end < 0:
        raise ValueError("a block is too short")
    at, key = 0, b""
    while at < end:
        shared, at = wire.varint(data, at)
        fresh, at = wire.varint(data, at)
        length, at = wire.varint(data, at)
        if shared > len(key) or fresh + length > end - at:
            raise ValueError("an entry is longer than its block")
        key = key[:shared] + bytes(data[at : at + fresh])
        at += fresh
        yield key, data[at : at + length]
        at += length
