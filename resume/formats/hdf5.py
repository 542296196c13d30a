"""Careful access to HDF5 and JSON inside foreign files: nothing is executed, no link leads out of the file.

Whatever h5py raises on damaged bytes becomes a SourceError that names the file and the element.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from resume.errors import SourceError
from resume.formats import quarantine, survey
from resume.state import Spec, dtype_named

_DEPTH_LIMIT = 200  # objects inside objects of a JSON text; a model inside a model adds about four
_INTEGER_LIMIT = 1 << 63
# Whatever h5py, zipfile and json raise on damaged bytes.
_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    NotImplementedError,
    RecursionError,
)


def starts_with(path: Path, signature: bytes) -> bool:
    """Whether `path` is a regular file (a pipe would wait for ever) that begins with `signature`."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(signature)) == signature
    except OSError:
        return False


def check_file(path: Path, signature: bytes, *, kind: str) -> None:
    """Raise SourceError unless `path` is a file that begins with `signature`."""
    with damage(path, "the file"):
        exists, is_file = path.exists(), path.is_file()
    if not exists:
        raise SourceError(f"{path}: no such file.")
    if not is_file:
        raise SourceError(f"{path}: this is a directory or a device; a file is needed.")
    with damage(path, "the file"), path.open("rb") as file:
        start = file.read(len(signature))
    if not start:
        raise SourceError(f"{path}: the file is empty. Resume from an earlier checkpoint.")
    if start != signature:
        raise SourceError(f"{path}: not {kind} (it begins with {start!r}, {signature!r} was expected).")


@contextmanager
def damage(path: Path, element: str) -> Iterator[None]:
    """Turn whatever a library raises on damaged bytes into a SourceError that names file and element."""
    try:
        yield
    except _DAMAGE as error:
        cause = str(error).strip("'\"").splitlines()[:1] or [type(error).__name__]
        raise SourceError(
            f"{path}: {element} cannot be read ({cause[0][:160]}).\n"
            "The file is damaged or was cut off; resume from an earlier checkpoint."
        ) from error


@contextmanager
def opened(path: Path, file: BinaryIO | None = None) -> Iterator[Any]:
    """The h5py.File at `path`, once its structure has been found sound (resume.formats.quarantine), read only.

    `file`: what to parse instead, a part of `path`; whoever hands it over has had it surveyed.
    """
    import h5py

    with damage(path, "its HDF5 structure" if file is None else "its weights file"):
        seen = quarantine.demand(path) if file is None else quarantine.stamp(path)
        handle = h5py.File(path if file is None else file, "r")
    try:
        if quarantine.stamp(path) != seen:
            raise SourceError(f"{path}: the file was written to while it was read.")
        yield handle
    finally:
        handle.close()


@dataclass(frozen=True)
class Tree:
    """A group of an HDF5 file, reached by hard links only."""

    group_: Any
    path: Path
    address: str = ""

    def group(self, name: str) -> Tree:
        """The group at `name`, a path below this one. Raises SourceError if it is not there or is no group."""
        found = self._member(name)
        address = self._address(name)
        if not hasattr(found, "keys"):
            raise SourceError(f"{self.path}: {address} should be a group of the file, and is an array.")
        return Tree(found, self.path, address)

    def children(self) -> list[str]:
        with damage(self.path, self.address or "its root group"):
            return [str(name) for name in self.group_]

    def is_group(self, name: str) -> bool:
        return hasattr(self._member(name), "keys")

    def spec(self, name: str) -> Spec:
        """Dtype and shape of the dataset at `name`. Raises SourceError for what no Keras variable looks like."""
        return self._checked(name)[1]

    def array(self, name: str, *, expected: Spec | None = None) -> np.ndarray[Any, Any]:
        """The dataset's values, in the machine's byte order. Raises SourceError if it is not `expected` any more."""
        dataset, spec = self._checked(name)
        if expected is not None and spec != expected:
            raise SourceError(
                f"{self.path}: {name} has changed since the file was opened: {expected} -> {spec}."
            )
        with damage(self.path, self._address(name)):
            values = np.asarray(dataset[()])
        if values.dtype.kind == "V":
            return values.view(dtype_named("bfloat16")).reshape(spec.shape)
        return values.astype(dtype_named(spec.dtype), copy=False).reshape(spec.shape)

    def names(self, attribute: str) -> list[str]:
        """A list of names in an attribute, or in its parts `<attribute>0`, `<attribute>1`, ..."""
        with damage(self.path, f"{self.address}, attribute {attribute},"):
            attributes = self.group_.attrs
            whole = attribute in attributes
            parts = [attribute] if whole else list(_numbered(attribute, attributes))
            found = [_text(item) for part in parts for item in attributes[part]]
        if not parts:
            raise SourceError(f"{self.path}: {self.address} lacks its list of names ({attribute}): damaged.")
        if len(set(found)) != len(found):
            raise SourceError(
                f"{self.path}: {self.address} lists a name twice ({attribute}), so what it holds cannot be told apart. "
                "Keras cannot write such a model to .h5 (Adafactor's state, for one): save it as .keras."
            )
        return found

    def attribute(self, name: str) -> str | None:
        with damage(self.path, f"{self.address}, attribute {name},"):
            return _text(self.group_.attrs[name]) if name in self.group_.attrs else None

    def _address(self, name: str) -> str:
        return f"{self.address}/{name}" if self.address else name

    def _member(self, name: str) -> Any:
        import h5py

        here = self.group_
        for part in name.split("/"):
            with damage(self.path, self._address(name)):
                link = here.get(part, getlink=True) if part not in ("", ".", "..") else None
            if link is None:
                raise SourceError(f"{self.path}: {self._address(name)} is missing; the file is damaged.")
            if not isinstance(link, h5py.HardLink):
                raise SourceError(
                    f"{self.path}: {self._address(name)} is a link to elsewhere; links are not followed."
                )
            with damage(self.path, self._address(name)):
                here = here[part]
        return here

    def _checked(self, name: str) -> tuple[Any, Spec]:
        dataset = self._member(name)
        where = f"{self.path}: {self._address(name)}"
        if not hasattr(dataset, "shape"):
            raise SourceError(f"{where} should be an array, and is a group.")
        with damage(self.path, self._address(name)):
            if dataset.is_virtual or dataset.external:
                raise SourceError(f"{where} keeps its values in another file; links are not followed.")
            spec = Spec(_dtype_name(dataset), tuple(int(n) for n in dataset.shape or ()))
            stored = dataset.id.get_storage_size()
            total = dataset.file.id.get_filesize()
        try:
            size = spec.nbytes
        except KeyError:
            raise SourceError(f"{where} has the dtype {spec.dtype}, which no Keras variable has.") from None
        if size > (survey.allowance(total) if dataset.chunks and stored else stored):
            raise SourceError(f"{where} claims {size} bytes, and {stored} are stored: damaged.")
        return dataset, spec


def _numbered(attribute: str, attributes: Any) -> Iterator[str]:
    for part in itertools.count():
        if f"{attribute}{part}" not in attributes:
            return
        yield f"{attribute}{part}"


def _dtype_name(dataset: Any) -> str:
    # bfloat16 has no HDF5 type: h5py writes it as two opaque bytes (keras.src.saving.saving_lib.H5IOStore adds an
    # attribute; whole-model .h5 files have none).
    dtype = dataset.dtype
    return (
        "bfloat16" if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None else str(dtype.name)
    )


def strict_json(text: str | bytes, path: Path, element: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises SourceError for anything else: keys that occur twice, numbers of hundreds of digits, nesting that no model
    has. NaN and Infinity, which Keras writes, are left to whoever knows what they stand for.
    """
    with damage(path, element):
        found = json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_integer)
        if not isinstance(found, dict):
            raise ValueError(f"a JSON object is expected, not {type(found).__name__}")
        _shallow(found)
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -_INTEGER_LIMIT <= int(digits) < 2 * _INTEGER_LIMIT:
        raise ValueError(f"the number {digits[:20]}... has {len(digits)} digits")
    return int(digits)


def _shallow(found: Any) -> None:
    """By level, not by recursion, of which there is too little for what is looked for."""
    level, depth = [found], 0
    while level:
        if depth > _DEPTH_LIMIT:
            raise ValueError(f"nested more than {_DEPTH_LIMIT} deep")
        inner = (i.values() if isinstance(i, dict) else i for i in level if isinstance(i, dict | list))
        level, depth = [item for items in inner for item in items], depth + 1


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
