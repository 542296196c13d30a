"""Our own checkpoint: a directory with safetensors, the model's config, and a manifest that is written last.

    step-00001200/
        state.safetensors   arrays by canonical name (https://github.com/huggingface/safetensors, format section)
        still.safetensors   those that do not change, if they are many: a file that checkpoints share by hard links
        model.json          Keras's serialised model
        manifest.json       schema, position, and for every array dtype, shape, place and digest: the commit marker

No manifest, no checkpoint. The manifest carries a digest of itself, so that any flipped byte is found. A shared file
is counted by the file system: whichever of its checkpoints is removed or copied away, the others are whole.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from resume import plain
from resume.errors import NewerSchemaError, SourceError
from resume.formats import shard, sharing
from resume.formats.shard import Buffers, Place
from resume.formats.sharing import Donor
from resume.state import STORABLE, Arrays, OptimizerInfo, Spec, TrainState, dtype_named

SCHEMA = 1
MANIFEST = "manifest.json"
_SHARD, _STILL = "state.safetensors", "still.safetensors"
_MODEL = "model.json"


def holds(path: Path) -> bool:
    """Whether `path` is a directory with our manifest (whole or not is `read`'s to say)."""
    return (path / MANIFEST).is_file()


def write(
    directory: Path, state: TrainState, *, donor: Donor | None = None, buffers: Buffers | None = None
) -> None:
    """Write a state into an existing empty directory: arrays, config, manifest; each file synced, the manifest last.

    What does not change is shared with `donor`'s checkpoint where that holds the same bytes. Arrays are let go of as
    they are copied into `buffers` (`Arrays.take`).
    Raises OSError as the file system does, and SourceError for a dtype that safetensors lacks (complex128).
    """
    step, buffers = state.iterations, buffers or Buffers()  # the step before it is let go of
    still = sharing.still(state, donor)
    places, files = sharing.link(directory, donor, still) if donor is not None else ({}, {})
    for name in places:
        state.arrays.release(name)
    specs = {name: still.get(name, spec) for name, spec in state.specs.items() if name not in places}
    for shard_name, held in ((_STILL, specs.keys() & still.keys()), (_SHARD, specs.keys() - still.keys())):
        if held or not (files or shard_name == _STILL):
            file = _free(directory / shard_name)
            ordered = {name: specs[name] for name in _as_updated(state) if name in held}
            written, header = shard.write(file, state.arrays, ordered, buffers=buffers)
            places |= written
            files[file.name] = {"bytes": file.stat().st_size, "header": _hex(header)}
    _write_documents(directory, state, step, {name: places[name] for name in state.specs}, files)


def _as_updated(state: TrainState) -> list[str]:
    """Every name, the last layer's first, each variable with its slots: so a backward pass comes to them.

    What a snapshot has let go of by then is updated in place, and costs no copy.
    """
    order = {name.removeprefix("model/"): at for at, name in enumerate(state.weights)}

    def turn(name: str) -> int:
        # Behind model/, optimizer/<role>/, beside/<optimizer>/<role>/.
        paths = (name.split("/", depth)[-1] for depth in (1, 2, 3))
        return next((order[path] for path in paths if path in order), -1)

    return sorted(state.specs, key=turn, reverse=True)


def _free(file: Path) -> Path:
    """A linked file may have the name already."""
    numbered = (file.with_stem(f"{file.stem}-{n}") for n in itertools.count(1))
    return next(path for path in itertools.chain((file,), numbered) if not path.exists())


def _write_documents(
    directory: Path,
    state: TrainState,
    step: int | None,
    places: Mapping[str, Place],
    files: Mapping[str, Any],
) -> None:
    model = json.dumps(plain.encode(state.model_config), allow_nan=False).encode()
    _write_synced(directory / _MODEL, model)
    manifest = _manifest(state, step, places)
    manifest["files"] = {**files, _MODEL: {"bytes": len(model), "digest": _hex(model)}}
    manifest["digest"] = _hex(_canonical_json(manifest))
    _write_synced(directory / MANIFEST, _file_json(manifest))
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
        arrays=Arrays(
            {n: p.spec for n, p in places.items()},
            read=lambda n: _array(path, n, places[n]),
            fill=lambda n, memory: _fill(path, n, places[n], memory),
        ),
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


def donor(path: Path, *, before: Path, trusted: set[tuple[int, int]]) -> Donor:
    """What a new checkpoint may share with the one at `path`; `before`: the newest one.

    Only files that are whole: `trusted` holds device and inode of those that this process has written or checked.
    """
    manifest, newest = read_manifest(path), _places(before, read_manifest(before))
    places = _places(path, manifest)
    files: dict[str, dict[str, Place]] = {}
    for name, place in places.items():
        files.setdefault(place.file, {})[name] = place
    for file, held in list(files.items()):
        at = (path / file).stat()
        if (at.st_dev, at.st_ino) not in trusted and (
            any(_file_damage(path / file, manifest["files"][file]))
            or any(_array_damage(path, *item) for item in held.items())
        ):
            del files[file]
    same = {name for name, place in places.items() if name in newest and newest[name].spec == place.spec}
    return Donor(
        path, files, manifest["files"], frozenset(same), frozenset((places.keys() & newest.keys()) - same)
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
        with ThreadPoolExecutor(
            os.cpu_count()
        ) as pool:  # reading and digesting leave the interpreter to others
            yield from filter(
                None, pool.map(lambda item: _array_damage(path, *item), _places(path, manifest).items())
            )
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
    elif "header" in facts and _hex(shard.read_header(file)) != facts["header"]:
        yield f"{file}: damaged, the digest of its header does not match."


def _array_damage(path: Path, name: str, place: Place) -> str | None:
    file, spec = path / place.file, place.spec
    try:
        there = max(file.stat().st_size - place.offset, 0)
        if there < spec.nbytes:
            return _cut_off(file, name, spec, found=there // dtype_named(spec.dtype).itemsize)
        if shard.digest_at(file, place.offset, spec.nbytes) != spec.digest:
            return f"{file}: {name} is damaged, its digest does not match."
    except OSError as error:
        return _unreadable(file, name, error)
    return None


def _manifest(state: TrainState, step: int | None, places: Mapping[str, Place]) -> dict[str, Any]:
    optimizer = state.optimizer
    return {
        "schema": SCHEMA,
        "step": step,
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
    damage = _array_damage(
        path, name, place
    )  # by reading: what a bad disk answers to a mapping ends the process
    if damage is not None:
        raise SourceError(damage)
    return shard.read(path / place.file, place)


def _fill(path: Path, name: str, place: Place, memory: np.ndarray[Any, Any]) -> None:
    file, spec = path / place.file, place.spec
    try:
        found = shard.read_into(file, place.offset, memory)
    except OSError as error:
        raise SourceError(_unreadable(file, name, error)) from None
    if found < spec.nbytes:
        raise SourceError(_cut_off(file, name, spec, found=found // dtype_named(spec.dtype).itemsize))


def _unreadable(file: Path, name: str, error: OSError) -> str:
    return f"{file}: {name} cannot be read ({error.strerror or error})."


def _cut_off(file: Path, name: str, spec: Spec, *, found: int) -> str:
    count = int(np.prod(spec.shape, dtype=np.int64))
    return f"{file}: {name} is cut off, {count} elements saved -> {found} found."


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(data)
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
