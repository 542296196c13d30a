"""Against indexes that TensorFlow wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume.formats import table

FIXTURES = Path(__file__).parents[1] / "fixtures"
INDEX = FIXTURES / "o18_e215_mlp_adam" / "tf_checkpoint" / "ckpt.index"


def test_the_mask_is_that_of_tensorflow() -> None:
    # Of the checksum of "foo", tsl/lib/hash/crc32c_test.cc: masking is no fixed point, and not its own inverse.
    crc = 0xCFC4AE1D
    assert table.masked(crc) not in (crc, table.masked(table.masked(crc)))
    rotated = (table.masked(crc) - 0xA282EAD8) & 0xFFFFFFFF
    assert ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF == crc


def test_keys_ascend_and_the_header_comes_first() -> None:
    keys = [key for key, _ in table.entries(INDEX.read_bytes())]
    assert keys == sorted(keys)
    assert keys[0] == b""
    assert b"_CHECKPOINTABLE_OBJECT_GRAPH" in keys


def test_a_footer_tells_a_table() -> None:
    data = INDEX.read_bytes()
    assert table.has_footer(data[-48:])
    assert not table.has_footer(data[-47:])
    assert not table.has_footer(data[-49:-1])


def test_every_flipped_byte_of_the_blocks_is_found() -> None:
    data = INDEX.read_bytes()
    entries = [(key, bytes(value)) for key, value in table.entries(data)]
    for at in range(0, len(data), 7):
        damaged = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            assert [(key, bytes(value)) for key, value in table.entries(damaged)] == entries
        except ValueError:
            continue


@pytest.mark.parametrize("length", [0, 1, 47, 48, 100])
def test_a_cut_off_table_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="does not end as an index"):
        list(table.entries(INDEX.read_bytes()[:length]))
