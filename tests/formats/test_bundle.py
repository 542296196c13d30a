"""Bundles that TensorFlow wrote, read by both; and indexes with valid checksums that claim what cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import bundle, table
from resume.formats.bundle import Bundle
from resume.state import Spec

FIXTURES = Path(__file__).parents[1] / "fixtures"
CKPT = FIXTURES / "o18_e215_mlp_adam" / "tf_checkpoint" / "ckpt"
KERNEL = "model/layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"


def number(value: int) -> bytes:
    """A varint."""
    out = b""
    value &= 2**64 - 1
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def part(tag: int, data: bytes) -> bytes:
    return number(tag << 3 | 2) + number(len(data)) + data


def integer(tag: int, value: int) -> bytes:
    return number(tag << 3) + number(value)


def shape(*sizes: int) -> bytes:
    return part(2, b"".join(part(2, integer(1, size)) for size in sizes))


def entry(dtype: int, *sizes: int, offset: int = 0, size: int = 0, crc: int = 0, shard: int = 0) -> bytes:
    fixed = number(6 << 3 | 5) + crc.to_bytes(4, "little")
    return (
        integer(1, dtype) + shape(*sizes) + integer(3, shard) + integer(4, offset) + integer(5, size) + fixed
    )


def block(items: dict[bytes, bytes]) -> bytes:
    held = b"".join(number(0) + number(len(k)) + number(len(v)) + k + v for k, v in items.items())
    data = held + b"\0" * 4 + (1).to_bytes(4, "little")
    return data + b"\0" + table.masked(google_crc32c.value(data + b"\0")).to_bytes(4, "little")


def write(
    prefix: Path, items: dict[bytes, bytes], *, data: bytes = b"", header: bytes = integer(1, 1)
) -> Path:
    """A bundle with one shard."""
    first = block({b"": header, **items} if header else items)
    handle = number(0) + number(len(first) - 5)
    index = block({b"\xff": handle})
    footer = number(0) + number(0) + number(len(first)) + number(len(index) - 5)
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    prefix.with_name(prefix.name + ".index").write_bytes(first + index + footer.ljust(40, b"\0") + magic)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    return prefix


def checksum(data: bytes) -> int:
    return table.masked(google_crc32c.value(data))


def test_an_array_has_its_dtype_shape_and_bytes(tmp_path: Path) -> None:
    data = np.arange(6, dtype="float32").reshape(2, 3)
    raw = data.tobytes()
    prefix = write(
        tmp_path / "ck", {b"x": entry(1, 2, 3, offset=5, size=24, crc=checksum(raw))}, data=b"ahead" + raw
    )
    found = Bundle.of(prefix)
    assert found.spec("x") == Spec("float32", (2, 3))
    np.testing.assert_array_equal(found.array("x"), data)
    assert "y" not in found


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(2, "float64"), (9, "int64"), (10, "bool"), (14, "bfloat16"), (19, "float16"), (23, "uint64")],
)
def test_dtypes_are_those_of_tensorflow(dtype: int, name: str, tmp_path: Path) -> None:
    array = np.ones(3, dtype=bundle.dtype_named(name))
    raw = array.tobytes()
    prefix = write(tmp_path / "ck", {b"x": entry(dtype, 3, size=len(raw), crc=checksum(raw))}, data=raw)
    assert Bundle.of(prefix).array("x").tobytes() == raw
    assert Bundle.of(prefix).array("x").dtype == array.dtype


def test_an_array_without_elements(tmp_path: Path) -> None:
    prefix = write(tmp_path / "ck", {b"x": entry(1, 0, 5, crc=checksum(b""))})
    assert Bundle.of(prefix).array("x").shape == (0, 5)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (entry(1, 2, size=8, offset=1), "cut off: x would end at byte 9"),
        (entry(1, 2**40, size=2**42), "cut off"),
        (entry(1, 2**62, 2**62, size=8), "claims 8 bytes for float32"),
        (entry(1, 3, size=8), r"x claims 8 bytes for float32\[3\]"),
        (entry(1, -2, size=8), "is no shape"),
        (entry(1, *[1] * 40, size=4), "is no shape"),
        (entry(1, 2, size=8, offset=-1), "a place is negative"),
        (entry(1, 2, size=8, shard=3), "data-00003-of-00001: missing"),
        (integer(1, 1) + part(2, integer(3, 1)), "shape of a tensor is unknown"),
        (part(2, b"\xff"), "cut off"),
    ],
)
def test_an_index_that_claims_what_is_not_there_is_refused(item: bytes, message: str, tmp_path: Path) -> None:
    prefix = write(tmp_path / "ck", {b"x": item}, data=bytes(8))
    with pytest.raises(SourceError, match=message):
        Bundle.of(prefix)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "header is missing"),
        (integer(1, 0), "0 shards are claimed"),
        (integer(1, 10**9), "1000000000 shards are claimed"),
        (integer(1, 1) + integer(2, 1), "big-endian machine"),
        (integer(1, 1) + part(3, integer(2, 2)), "its layout 2 is newer"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused(header: bytes, message: str, tmp_path: Path) -> None:
    prefix = write(tmp_path / "ck", {b"x": entry(1, 2, size=8)}, data=bytes(8), header=header)
    with pytest.raises(SourceError, match=message):
        Bundle.of(prefix)


@pytest.mark.parametrize(
    ("dtype", "what"), [(7, "strings"), (20, "a resource"), (25, "TensorFlow's type 25")]
)
def test_what_is_no_number_is_no_array(dtype: int, what: str, tmp_path: Path) -> None:
    found = Bundle.of(write(tmp_path / "ck", {b"x": entry(dtype)}))
    with pytest.raises(SourceError, match=f"x is (of )?{what}, which no Keras variable is"):
        found.spec("x")


def test_a_partitioned_variable_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    sliced = integer(1, 1) + shape(4) + part(7, part(1, integer(2, 2))) * 2
    found = Bundle.of(write(tmp_path / "ck", {b"x": sliced}))
    with pytest.raises(SourceError, match="x is partitioned into 2 or more parts"):
        found.array("x")


def test_damage_in_the_data_is_found_when_an_array_is_read(tmp_path: Path) -> None:
    for file in CKPT.parent.glob("ckpt.*"):
        shutil.copyfile(file, tmp_path / file.name)
    shard = tmp_path / "ckpt.data-00000-of-00001"
    found = Bundle.of(tmp_path / "ckpt")
    data = bytearray(shard.read_bytes())
    data[found.entries[KERNEL].offset + 9] ^= 1
    shard.write_bytes(data)
    with pytest.raises(SourceError, match=r"kernel/\.ATTRIBUTES/VARIABLE_VALUE is damaged: its checksum"):
        Bundle.of(tmp_path / "ckpt").array(KERNEL)
    shard.write_bytes(bytes(data)[:-1])
    with pytest.raises(SourceError, match="cut off"):
        Bundle.of(tmp_path / "ckpt")
    shard.unlink()
    with pytest.raises(SourceError, match=r"data-00000-of-00001: missing; this part of the checkpoint holds"):
        Bundle.of(tmp_path / "ckpt")


def test_a_text_has_checksums_of_its_own(tmp_path: Path) -> None:
    key = "_CHECKPOINTABLE_OBJECT_GRAPH"
    text = Bundle.of(CKPT).text(key)
    assert b"layer_with_weights-0" in text
    for file in CKPT.parent.glob("ckpt.*"):
        shutil.copyfile(file, tmp_path / file.name)
    shard = tmp_path / "ckpt.data-00000-of-00001"
    place, whole = Bundle.of(CKPT).entries[key], shard.read_bytes()
    for at in (0, 1, 3, place.size // 2, place.size - 1):
        data = bytearray(whole)
        data[place.offset + at] ^= 4
        shard.write_bytes(data)
        with pytest.raises(SourceError, match=key):
            Bundle.of(tmp_path / "ckpt").text(key)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ck\.index: no such file"):
        Bundle.of(tmp_path / "ck")
    assert not bundle.holds(tmp_path / "ck")
    (tmp_path / "ck.index").mkdir()
    assert not bundle.holds(tmp_path / "ck")


def _compare(prefix: Path, tf: Any) -> int:
    theirs, ours = tf.train.load_checkpoint(str(prefix)), Bundle.of(prefix)
    assert set(theirs.get_variable_to_shape_map()) == set(ours.entries)
    for key in ours.entries:
        value = theirs.get_tensor(key)
        if isinstance(value, bytes):
            assert ours.text(key) == value
        else:
            found = ours.array(key)
            assert (found.dtype, found.shape) == (np.asarray(value).dtype, np.shape(value))
            assert found.tobytes() == np.asarray(value).tobytes()
    return len(ours.entries)


def test_tensorflow_reads_the_same(tmp_path: Path) -> None:
    import tensorflow as tf

    prefixes = [p.with_suffix("") for p in sorted(FIXTURES.rglob("*.index")) if "on3" not in str(p)]
    assert sum(_compare(prefix, tf) for prefix in prefixes) > 500
    rng = np.random.default_rng(0)
    dtypes = [tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.int32, tf.bool, tf.complex64]
    tensors = {f"v{n:03}": tf.cast(rng.normal(size=(100, n + 1)) * 9, dtypes[n % 7]) for n in range(210)}
    tensors |= {"empty": tf.zeros((0, 3)), "scalar": tf.constant(3, tf.int64), "text": tf.constant("häl\0lo")}
    parts = []
    for shard in range(3):
        parts.append(str(tmp_path / f"part{shard}"))
        keys = sorted(tensors)[shard::3]
        values = [tensors[key] for key in keys]
        tf.raw_ops.SaveV2(
            prefix=parts[-1], tensor_names=keys, shape_and_slices=[""] * len(keys), tensors=values
        )
    merged = str(tmp_path / "merged")
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=merged, delete_old_dirs=False)
    assert Bundle.of(Path(merged)).shards == 3
    assert _compare(Path(merged), tf) == 213
