"""Directories of Keras's BackupAndRestore: a state and its position, in files of their own.

Keras 3:  latest.weights.h5 and training_metadata.json ({"epoch": ..., "batch": index of the last batch, or 0}); with
          double_checkpoint the ones before as *.bkp (keras.src.callbacks.backup_and_restore)
Keras 2:  chief/checkpoint and chief/ckpt-<n>, a TensorFlow checkpoint that holds the position, too
          (tf_keras.src.distribute.worker_training_state)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from resume.errors import SourceError
from resume.formats import tfcheckpoint, weights
from resume.formats.h5 import SIGNATURE
from resume.formats.hdf5 import check_file, damage, strict_json
from resume.state import TrainState

WEIGHTS, METADATA, CHIEF = "latest.weights.h5", "training_metadata.json", "chief"
_BEFORE = ".bkp"
_METADATA_LIMIT = 1 << 20


def holds(path: Path) -> bool:
    """Whether `path` is such a directory, whole or not."""
    return any((path / name).is_file() for name in (WEIGHTS, METADATA, f"{CHIEF}/{tfcheckpoint.STATE}"))


def read(path: Path) -> TrainState:
    """The state that training was to go on from; arrays are read when asked for.

    Raises SourceError where a file is missing or damaged: weights without their position are no place to go on from.
    """
    path = Path(path)
    if not any((path / name).exists() for name in (WEIGHTS, METADATA)):
        return replace(tfcheckpoint.read(path / CHIEF), format="backup", path=path)
    try:
        epoch, batch = _position(path / METADATA)
        check_file(path / WEIGHTS, SIGNATURE, kind="an HDF5 file")
        state = weights.read(path / WEIGHTS)
    except SourceError as error:
        if not (path / f"{WEIGHTS}{_BEFORE}").is_file():
            raise
        raise SourceError(
            f"{error}\nThe backup before it, without its place in the epoch: {path / WEIGHTS}{_BEFORE}"
        ) from None
    epoch, applied = _applied(epoch, batch, state.iterations)
    return replace(state, format="backup", path=path, epoch=epoch, batch=applied)


def _position(file: Path) -> tuple[int, int]:
    with damage(file, "the position"):
        if not file.is_file():
            raise ValueError("there is no such file, and nothing else tells the epoch")
        if file.stat().st_size > _METADATA_LIMIT:
            raise ValueError(f"it has {file.stat().st_size} bytes")
        text = file.read_bytes()
    found = strict_json(text, file, "the position")
    return _number(found.get("epoch"), file), _number(found.get("batch", 0), file)


def _number(value: Any, file: Path) -> int:
    if type(value) is not int or value < 0:
        raise SourceError(f"{file}: {value!r:.40} is no epoch or batch; the file is damaged.")
    return value


def _applied(epoch: int, batch: int, iterations: int | None) -> tuple[int, int]:
    """Epochs that are complete, and batches applied of the next.

    Keras writes the index of the last batch; 0 stands for the first one, and for none at an epoch's end. The
    optimizer's count tells which, since the epochs before had equally many batches; after a single one nothing does.
    """
    if iterations is None:
        return epoch, batch + 1 if batch else 0
    if batch:
        over = epoch > 0 and iterations == (epoch + 1) * (batch + 1)
        return (epoch + 1, 0) if over else (epoch, batch + 1)
    return epoch, 1 if (iterations % epoch if epoch else iterations) else 0
