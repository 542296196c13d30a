"""Our own checkpoint: a directory with safetensors, the model's config, and a manifest that is written last.

    step-00001200/
        state.safetensors   every array by canonical name (https://github.com/huggingface/safetensors, format section)
        model.json          Keras's serialised model
        manifest.json       schema, position, and for every array dtype, shape, place and digest: the commit marker

No manifest, no checkpoint. The manifest carries a digest of itself, so that any flipped byte is found.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from resume import plain
from resume.errors import NewerSchemaError, SourceError
from resume.state import STORABLE, Arrays, OptimizerInfo, Spec, TrainState, digest, dtype_named, spec_of

SCHEMA = 1
MANIFEST = "manifest.json"
_SHARD = "state.safetensors"
_MODEL = "model.json"
_HEADER_LIMIT = 1 << 28  # bytes; a header that claims more is damaged

_SAFETENSORS = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "complex64": "C64",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where an array lies: bytes [offset, offset + spec.nbytes) of a file of the checkpoint."""

    spec: Spec
    file: str
    offset: int


def holds(path: Path) -> bool:
    """Whether `path` is a directory with our manifest (whole or not is `read`'s to say)."""
    return (path / MANIFEST).is_file()


def write(directory: Path, state: TrainState) -> None:
    """Write a state into an existing empty directory: arrays, config, manifest; each file synced, the manifest last.

    Raises OSError as the file system does, and SourceError for a dtype that safetensors lacks (complex128).
    """
    places, header = _write_shard(directory / _SHARD, state.arrays)
    model = json.dumps(plain.encode(state.model_config), allow_nan=False).encode()
    _write_synced(directory / _MODEL, [model])
    manifest = _manifest(state, places)
    manifest["files"] = {
        _SHARD: {"bytes": (directory / _SHARD).stat().st_size, "header": _hex(header)},
        _MODEL: {"bytes": len(model), "digest": _hex(model)},
    }
    manifest["digest"] = _hex(_canonical_json(manifest))
    _write_synced(directory / MANIFEST, [_file_json(manifest)])
    sync_directory(directory)


def read(path: Path) -> TrainState:
    """The state in a checkpoint directory; arrays are read, and their digests checked, when asked for.

    Raises SourceError for a manifest that is missing, damaged, or of a newer schema than ours.
    """
    manifest = read_manifest(path)
    places = _places(path, manifest)
    optimizer = manifest["optimizer"]
    return TrainState(
        format="native",
        path=path,
        arrays=Arrays({n: p.spec for n, p in places.items()}, read=lambda n: _array(path, n, places[n])),
        model_config=_model_config(path, manifest),
        compile_config=plain.decode(manifest["compile"]),
        optimizer=OptimizerInfo(
            optimizer["class_name"], plain.decode(optimizer["config"]), optimizer.get("legacy", False)
        )
        if optimizer
        else None,
        keras_version=manifest["versions"].get("keras"),
        flavour=manifest.get("flavour", "keras"),
        epoch=manifest["epoch"],
        batch=manifest["batch"],
        progress=manifest["progress"],
        raw_names=manifest["raw_names"],
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest, its own digest checked."""
    try:
        data = (path / MANIFEST).read_bytes()
        manifest = json.loads(data)
        claimed = manifest.pop("digest")
        schema = int(manifest["schema"])
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{path}: no {MANIFEST}, so this is not a whole checkpoint.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path / MANIFEST}: damaged, it cannot be parsed ({error}).") from None
    if schema > SCHEMA:
        raise NewerSchemaError(
            f"{path}: written with checkpoint schema {schema}, this version reads up to {SCHEMA}. "
            "Install a newer keras-resume."
        )
    # Also byte for byte: a flipped bit that JSON does not care about (1e-07, 1E-07) is a flipped bit.
    if _hex(_canonical_json(manifest)) != claimed or _file_json({**manifest, "digest": claimed}) != data:
        raise SourceError(f"{path / MANIFEST}: damaged, it does not match its own digest.")
    return {**manifest, "digest": claimed}


def damage(path: Path) -> Iterator[str]:
    """Everything that is wrong with a checkpoint directory, a sentence each; nothing for a whole one.

    Raises NewerSchemaError for one that only a later version can judge.
    """
    try:
        manifest = read_manifest(path)
        for name, facts in manifest["files"].items():
            yield from _file_damage(path / name, facts)
        for name, place in _places(path, manifest).items():
            yield from _array_damage(path, name, place)
    except NewerSchemaError:
        raise
    except (SourceError, OSError) as error:
        yield str(error)


def _file_damage(file: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    if not file.is_file():
        yield f"{file}: missing."
    elif file.stat().st_size != facts["bytes"]:
        yield f"{file}: {facts['bytes']} bytes saved -> {file.stat().st_size} found."
    elif "digest" in facts and _hex(file.read_bytes()) != facts["digest"]:
        yield f"{file}: damaged, its digest does not match."
    elif "header" in facts and _hex(_read_header(file)) != facts["header"]:
        yield f"{file}: damaged, the digest of its header does not match."


def _array_damage(path: Path, name: str, place: Place) -> Iterator[str]:
    try:
        _array(path, name, place)
    except SourceError as error:
        yield str(error)


def _manifest(state: TrainState, places: Mapping[str, Place]) -> dict[str, Any]:
    optimizer = state.optimizer
    return {
        "schema": SCHEMA,
        "step": state.iterations,
        "epoch": state.epoch,
        "batch": state.batch,
        "versions": {"keras": state.keras_version},
        "flavour": state.flavour or "keras",
        "time": time.time(),
        "optimizer": optimizer
        and {
            "class_name": optimizer.class_name,
            "config": plain.encode(optimizer.config),
            "legacy": optimizer.legacy,
        },
        "compile": plain.encode(state.compile_config),
        "progress": state.progress,
        "raw_names": dict(state.raw_names),
        "arrays": {
            name: {
                "dtype": place.spec.dtype,
                "shape": list(place.spec.shape),
                "file": place.file,
                "offset": place.offset,
                "digest": place.spec.digest,
            }
            for name, place in places.items()
        },
    }


def _places(path: Path, manifest: Mapping[str, Any]) -> dict[str, Place]:
    try:
        return {name: _place(name, facts) for name, facts in manifest["arrays"].items()}
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path / MANIFEST}: the list of arrays is malformed ({error}).") from None


def _place(name: str, facts: Mapping[str, Any]) -> Place:
    spec = Spec(str(facts["dtype"]), tuple(int(n) for n in facts["shape"]), str(facts["digest"]))
    file, offset = str(facts["file"]), int(facts["offset"])
    if spec.dtype not in STORABLE or min((offset, *spec.shape)) < 0:
        raise ValueError(f"{name}: {spec} at {offset}")
    if Path(file).name != file:
        raise ValueError(f"{name}: {file} is outside this checkpoint")
    return Place(spec, file, offset)


def _model_config(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        data = (path / _MODEL).read_bytes()
    except OSError as error:
        raise SourceError(f"{path / _MODEL}: cannot be read ({error.strerror}).") from None
    if _hex(data) != manifest["files"][_MODEL]["digest"]:
        raise SourceError(f"{path / _MODEL}: damaged, its digest does not match.")
    config: dict[str, Any] | None = plain.decode(json.loads(data))
    return config


def _array(path: Path, name: str, place: Place) -> np.ndarray[Any, Any]:
    """Read one array, shape and dtype as its spec says, and check its digest."""
    file, spec = path / place.file, place.spec
    count = int(np.prod(spec.shape, dtype=np.int64))
    try:
        flat = np.fromfile(file, dtype=dtype_named(spec.dtype), count=count, offset=place.offset)
    except OSError as error:
        raise SourceError(f"{file}: {name} cannot be read ({error.strerror or error}).") from None
    if flat.size != count:
        raise SourceError(f"{file}: {name} is cut off, {count} elements saved -> {flat.size} found.")
    array = flat.reshape(spec.shape)
    if digest(array) != spec.digest:
        raise SourceError(f"{file}: {name} is damaged, its digest does not match.")
    return array


def _write_shard(file: Path, arrays: Arrays) -> tuple[dict[str, Place], bytes]:
    entries: dict[str, Any] = {}
    end = 0
    specs = {n: s if s.digest else spec_of(arrays[n]) for n, s in arrays.specs.items()}
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
    header = struct.pack("<Q", len(text)) + text
    _write_synced(
        file, (header, *(np.ascontiguousarray(arrays[n]).reshape(-1).view(np.uint8).data for n in arrays))
    )
    places = {n: Place(s, _SHARD, len(header) + entries[n]["data_offsets"][0]) for n, s in specs.items()}
    return places, header


def _read_header(file: Path) -> bytes:
    with file.open("rb") as stream:
        length = stream.read(8)
        size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
        return length + stream.read(min(size, _HEADER_LIMIT))


def _write_synced(file: Path, chunks: Any) -> None:
    with file.open("xb") as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _canonical_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _file_json(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1, allow_nan=False).encode()


def _hex(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)
