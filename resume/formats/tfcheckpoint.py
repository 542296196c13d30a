"""TensorFlow 2 checkpoints: tf.train.Checkpoint and CheckpointManager, TF-format save_weights, ModelCheckpoint.

A checkpoint is `NAME.index` and its `.data` files: the path may be NAME, NAME.index, or the directory, whose text file
`checkpoint` names the newest (tensorflow/python/training/checkpoint_state.proto). It holds variables and who holds
whom, no architecture, and neither the optimizer's class nor its settings.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resume.errors import SourceError
from resume.formats import bundle, graph, tfoptimizers
from resume.formats.bundle import INDEX, Bundle
from resume.formats.graph import Stored
from resume.formats.hdf5 import damage
from resume.formats.tfnames import KERAS3
from resume.formats.trackables import Model, is_numbered
from resume.state import TrainState

STATE = "checkpoint"
_LINE = re.compile(r'^\s*(?P<key>\w+)\s*:\s*(?P<value>"(?:[^"\\]|\\.)*"|[-+.\w]+)\s*$')
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_STATE_LIMIT = 1 << 24
# Edges of a Keras model that was saved as it is, and never of a tf.train.Checkpoint around one.
_KERAS_ROOT = frozenset({"root", "train_function", "train_tf_function", "keras_api"})
NO_MODEL = "this kind of checkpoint holds no architecture: give the model that it was saved from"


def holds(path: Path) -> bool:
    """Whether `path` is such a checkpoint: its name, its index, or a directory with the file `checkpoint`."""
    path = Path(path)
    if path.suffix == INDEX and bundle.holds(path.with_suffix("")):
        return True
    return (path / STATE).is_file() if path.is_dir() else bundle.holds(path)


def read(path: Path) -> TrainState:
    """The training state in a checkpoint; arrays are read, and their checksums verified, when asked for.

    Raises SourceError for a checkpoint that is missing, damaged, incomplete, or of TensorFlow 1.
    """
    path = Path(path)
    stored = graph.read(Bundle.of(prefix(path)))
    with damage(stored.bundle.prefix, "its object graph"):
        node = model(stored)
    state = Model(stored, node).state(kind="tf_checkpoint", path=path)
    return _placed(replace(state, notes=(NO_MODEL, *state.notes)), stored)


# ---- which checkpoint ----


def prefix(path: Path) -> Path:
    """The checkpoint's name without `.index`, as TensorFlow calls it."""
    if path.suffix == INDEX and path.is_file():
        return path.with_suffix("")
    return newest(path) if path.is_dir() else path


def newest(directory: Path) -> Path:
    """What the file `checkpoint` in a directory calls the newest; its name alone counts, since directories move."""
    file = directory / STATE
    with damage(file, "the list of checkpoints"):
        if not file.is_file():
            raise SourceError(
                f"{directory}: no file called {STATE}, so which checkpoint is meant is not clear."
            )
        if file.stat().st_size > _STATE_LIMIT:
            raise ValueError(f"it has {file.stat().st_size} bytes")
        named = _parsed(file.read_bytes())
    name = named.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name:
        raise SourceError(f"{file}: {named!r:.80} is no checkpoint's name; the file is damaged.")
    return directory / name


def _parsed(data: bytes) -> str:
    """model_checkpoint_path in a text-format CheckpointState."""
    found: list[str] = []
    for line in str(data, "utf-8").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"{line!r:.60} is no line of such a list")
        if match["key"] == "model_checkpoint_path":
            if not match["value"].startswith('"'):
                raise ValueError("model_checkpoint_path is no text")
            found.append(_unescaped(match["value"][1:-1]))
    if len(found) != 1:
        raise ValueError(f"model_checkpoint_path is there {len(found)} times")
    return found[0]


def _unescaped(text: str) -> str:
    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code[:1].isdigit():
            return bytes([int(code, 8) & 0xFF])
        if code[:1] == b"x" and len(code) > 1:
            return bytes([int(code[1:], 16)])
        return _ESCAPES.get(code, code)

    return str(_ESCAPE.sub(byte, text.encode()), "utf-8")


# ---- what is in it ----


def model(stored: Stored) -> int:
    """The node that is the model: what was saved as `model`, or the only model among what was saved, or the root."""
    children = stored.children(0)
    if _KERAS_ROOT & set(children) or _is_model(stored, 0):
        return 0
    if "model" in children:
        return children["model"]
    optimizers = tfoptimizers.find(stored, model=0).nodes
    held = {n for n in children.values() if n not in optimizers and not _is_beside(stored, n)}
    full = [n for n in held if any(map(stored.is_variable, stored.graph.reach(n, stop=optimizers)))]
    return full[0] if len(full) == 1 and _is_model(stored, full[0]) else 0


def _is_model(stored: Stored, node: int) -> bool:
    """By what Keras's models hold and nothing else does: numbered layers, Keras 3's containers, an optimizer."""
    edges = set(stored.children(node))
    return any(map(is_numbered, edges)) or bool(KERAS3 & edges) or (node != 0 and "optimizer" in edges)


def _is_beside(stored: Stored, node: int) -> bool:
    """A user's own `step`, or a generator of random numbers."""
    if not stored.is_variable(node):
        return set(stored.children(node)) == {"_state_var"}
    spec = stored.spec(node)
    return spec.shape == () and "int" in spec.dtype


def _placed(state: TrainState, stored: Stored) -> TrainState:
    """With the position that BackupAndRestore of Keras 2 stores: the epoch in progress, or over, and the last batch.

    The batch is -1 where it saves whole epochs (tf_keras.src.distribute.worker_training_state). A batch that was the
    epoch's last, the optimizer's count tells: then every epoch had as many batches as this one.
    """
    epoch, batch = _number(stored, "ckpt_saved_epoch"), _number(stored, "ckpt_saved_batch")
    if epoch is None or epoch < 0:
        return state
    if batch is None or batch < 0:
        return replace(state, epoch=epoch + 1, batch=0)
    over = epoch > 0 and state.iterations == (epoch + 1) * (batch + 1)
    return replace(state, epoch=epoch + 1, batch=0) if over else replace(state, epoch=epoch, batch=batch + 1)


def _number(stored: Stored, edge: str) -> int | None:
    node = stored.children(0).get(edge)
    if node is None or not stored.is_variable(node):
        return None
    value: np.ndarray[Any, Any] = stored.bundle.array(stored.key(node))
    if value.shape != () or value.dtype.kind != "i":
        raise SourceError(
            f"{stored.bundle.prefix}: {edge} is {value.dtype}{list(value.shape)}: no position of a training."
        )
    return int(value)
