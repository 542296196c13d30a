"""What is in a checkpoint's files, by its manifest alone: an id of their content, and the proof of it.

The content id of a file is its digest where the manifest has one, else xxh3-128 of the JSON `[bytes, digest of the
header, [digest of each array of the file, by place]]` without blanks: derived without a look at the file, and equal for
equal bytes, as the header and the arrays cover a safetensors file without a gap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from resume.errors import SourceError
from resume.formats import shard
from resume.state import Spec

_ID = re.compile("[0-9a-f]{32}")


def ids(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The content id of each file of a checkpoint, by the file's name."""
    return {name: _id(manifest, name, facts) for name, facts in manifest["files"].items()}


def _id(manifest: Mapping[str, Any], name: str, facts: Mapping[str, Any]) -> str:
    if "digest" in facts:
        return str(facts["digest"])
    digests = [digest for *_, digest in _spans(manifest, name)]
    text = json.dumps([facts["bytes"], facts["header"], digests], separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def demand_names(manifest: Mapping[str, Any], at: Path) -> None:
    """What becomes a path on this machine does not lead out of it. Raises SourceError. `at`: the manifest's place."""
    for name, id in ids(manifest).items():
        if Path(name).name != name or name == "..":
            raise SourceError(f"{at}: {name} is outside this checkpoint.")
        if not _ID.fullmatch(id):
            raise SourceError(f"{at}: {id!r} is no digest of {name}.")


def demand_whole(file: Path, manifest: Mapping[str, Any]) -> None:
    """Every byte of the file is as the manifest says. Raises SourceError."""
    facts = manifest["files"][file.name]
    if not file.is_file():
        raise SourceError(f"{file}: missing.")
    size = file.stat().st_size
    if size != facts["bytes"]:
        raise SourceError(f"{file}: damaged, {facts['bytes']} bytes saved -> {size} found.")
    for start, stop, digest in _parts(manifest, file.name):
        if shard.digest_at(file, start, stop - start) != digest:
            raise SourceError(f"{file}: damaged, bytes {start} to {stop} do not match their digest.")


def _parts(manifest: Mapping[str, Any], name: str) -> list[tuple[int, int, str]]:
    """Start, end and digest of all that a file consists of: the header and each array, else the whole."""
    facts = manifest["files"][name]
    if "digest" in facts:
        return [(0, facts["bytes"], facts["digest"])]
    spans = _spans(manifest, name)
    return [(0, spans[0][0] if spans else facts["bytes"], facts["header"]), *spans]


def _spans(manifest: Mapping[str, Any], name: str) -> list[tuple[int, int, str]]:
    """Start, end and digest of each array of a file, in the order of the bytes; an empty one before what follows it."""
    held = (facts for facts in manifest["arrays"].values() if facts["file"] == name)
    return sorted((a["offset"], a["offset"] + _nbytes(a), a["digest"]) for a in held)


def _nbytes(facts: Mapping[str, Any]) -> int:
    return Spec(facts["dtype"], tuple(facts["shape"])).nbytes
