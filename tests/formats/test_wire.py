"""Messages are written here by hand, byte by byte, from the encoding's own description."""

from __future__ import annotations

import io

import pytest

from resume.formats.wire import BYTES, Extent, fields, varint


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"\x00", 0), (b"\x7f", 127), (b"\x96\x01", 150), (b"\xff" * 9 + b"\x01", 2**64 - 1)],
)
def test_a_varint_has_seven_bits_a_byte(data: bytes, value: int) -> None:
    assert varint(memoryview(data), 0) == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 10 + b"\x01", b"\xff" * 9 + b"\x02"])
def test_a_varint_that_is_cut_off_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="a number"):
        varint(memoryview(data), 0)


def test_fields_come_in_their_order_with_their_kinds() -> None:
    message = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d\x01\x00\x00\x00" + b"\x21" + b"\x02" + b"\x00" * 7
    found = list(fields(message))
    assert [field.tag for field in found] == [1, 2, 3, 4]
    assert [found[0].signed, found[1].text, found[2].unsigned, found[3].unsigned] == [150, "hi", 1, 2]


def test_negative_numbers_are_twos_complement() -> None:
    (field,) = fields(b"\x08" + b"\xff" * 9 + b"\x01")
    assert field.signed == -1


def test_messages_nest() -> None:
    (outer,) = fields(b"\x0a\x04\x08\x01\x10\x02")
    assert [(inner.tag, inner.unsigned) for inner in outer.message] == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0a\x05abc", "claims 5 bytes, and 3 are there"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7fabc", "claims"),
        (b"\x0d\x01", "claims 4 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "no field number"),
    ],
)
def test_what_goes_beyond_the_bytes_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(fields(data))


def test_a_field_of_another_kind_is_refused() -> None:
    (number,) = fields(b"\x08\x01")
    (text,) = fields(b"\x0a\x01a")
    with pytest.raises(ValueError, match="field 1 holds a number where bytes belong"):
        _ = number.text
    with pytest.raises(ValueError, match="field 1 holds bytes where a number belongs"):
        _ = text.signed


def test_a_member_is_found_without_reading_what_lies_before_it() -> None:
    large = b"\x12" + b"\x80\x80\x40" + b"\0" * (1 << 20)
    data = b"\x08\x07" + large + b"\x1a\x02ab"
    file = io.BytesIO(data)
    ((tag, part),) = Extent(file, 0, len(data)).parts({3})
    assert (tag, bytes(part.read())) == (3, b"ab")


@pytest.mark.parametrize("data", [b"\x1a\x05ab", b"\x1a", b"\x1b\x00", b"\x1a\xff\xff\xff\x7f"])
def test_a_member_beyond_the_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"claims|cut off|wire type"):
        list(Extent(io.BytesIO(data), 0, len(data)).parts({3}))


def test_bytes_are_the_kind_that_messages_are_of() -> None:
    assert next(fields(b"\x0a\x00")).kind == BYTES
