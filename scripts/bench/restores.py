"""How each way resumes, and what is trained, by which the state that came back is judged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
import ways
import xxhash
from forks import Child, Tell
from stamps import committed
from ways import WAYS, Training

from resume import rundir

UNITS, LAYERS, BATCH = 160, 3, 8  # 0.93 MB of state with Adam
EVERY, STEPS = 4, 28


class State(NamedTuple):
    """Digests of all that a checkpoint holds."""

    weights: str
    optimizer: str


Table = dict[int, State]  # by the step


# -- what is trained ---------------------------------------------------------------------------------------------------


def dense() -> keras.Model:
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(UNITS, activation="tanh") for _ in range(LAYERS)]
    model = keras.Sequential([keras.Input((UNITS,)), *layers])
    model.compile(keras.optimizers.Adam(1e-3), "mean_squared_error", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def batches() -> tf.data.Dataset:
    """Another batch for each step."""
    x, y = np.random.default_rng(0).normal(size=(2, STEPS * BATCH, UNITS)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def training(folder: Path) -> Training:
    return Training(dense(), batches(), folder, every=EVERY)


def told(model: keras.Model) -> bytes:
    """The step that the optimizer claims, and the digests of all variables."""
    parts = (digest(part.variables) for part in (model, model.optimizer))
    return " ".join([str(int(model.optimizer.iterations)), *parts, "\n"]).encode()


def digest(variables: list[keras.Variable]) -> str:
    found = xxhash.xxh3_128()
    for variable in variables:
        array = np.ascontiguousarray(variable)
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(array.tobytes())
    return str(found.hexdigest())


class Beat(keras.callbacks.Callback):
    """`ended`: called after each step, before all other callbacks; `begun`: before each one, after them."""

    def __init__(
        self,
        ended: Callable[[keras.Model], Any] = lambda model: None,
        begun: Callable[[keras.Model], Any] = lambda model: None,
    ) -> None:
        super().__init__()
        self.ended, self.begun = ended, begun

    def get_state(self) -> dict[str, Any]:
        """For resume.fit, which would put it into every checkpoint."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begun(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ended(self.model)


# -- how each way resumes ----------------------------------------------------------------------------------------------


def by_itself(way: str) -> Callable[[Training, Tell], None]:
    """The same fit again, as far as its first step."""

    def restore(training: Training, tell: Tell) -> None:
        def leave(model: keras.Model) -> None:
            tell(told(model))
            sys.stdout.flush()
            os._exit(0)

        WAYS[way].fit(training, [Beat(begun=leave)])
        tell(told(training.model))  # its training was over

    return restore


def newest_archive(training: Training, tell: Tell) -> None:
    files = committed(training.folder, "*.keras")
    tell(told(keras.saving.load_model(files[-1]) if files else training.model))


def tracked(training: Training, tell: Tell) -> None:
    model = training.model
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    tf.train.CheckpointManager(checkpoint, training.folder, max_to_keep=2).restore_or_initialize()
    tell(told(model))


def tracked_async(training: Training, tell: Tell) -> None:
    checkpoint = tf.train.Checkpoint(variables=[v.value for v in ways.variables(training.model)])
    tf.train.CheckpointManager(checkpoint, training.folder, max_to_keep=2).restore_or_initialize()
    tell(told(training.model))


def orbax_callback(training: Training, tell: Tell) -> None:
    """Into the model that the script builds again, optimizer and all.

    load_model would make another one, whose variables have no "sequential/" in their paths: of all arrays that are not
    found by these, it sets none, and says nothing (github.com/keras-team/keras/issues/23251).
    """
    if committed(training.folder, "[0-9]*"):
        training.model.load_weights(training.folder)
    tell(told(training.model))


def orbax_manager(training: Training, tell: Tell) -> None:
    import orbax.checkpoint as ocp

    held = ways.variables(training.model)
    manager = ocp.CheckpointManager(training.folder)
    if manager.latest_step() is not None:
        like = {f"{i:04d}": np.array(v) for i, v in enumerate(held)}
        state = manager.restore(manager.latest_step(), args=ocp.args.StandardRestore(like))
        for variable, value in zip(held, (state[name] for name in sorted(state)), strict=True):
            variable.assign(value)
    tell(told(training.model))


RESTORES: dict[str, Callable[[Training, Tell], None]] = {
    "ours": by_itself("ours"), "backup": by_itself("backup"), "keras": newest_archive, "tf": tracked,
    "tf_async": tracked_async, "orbax_keras": orbax_callback, "orbax": orbax_manager,
}  # fmt: skip


@dataclass(frozen=True)
class Restored:
    """`step`: that the optimizer claims; None where resuming raised. `reason`: what it said."""

    step: int | None
    state: State | None
    reason: str


def restored(way: str, folder: Path) -> Restored:
    with Child(lambda tell: RESTORES[way](training(folder), tell)) as child:
        words = child.answer().decode().split()
    state = State(*words[1:]) if words else None
    return Restored(int(words[0]) if words else None, state, child.reason)


def difference(found: Restored, step: int, truth: Table) -> str:
    """Between what came back and what the training had at that step; nothing where there is none."""
    if found.state is None:
        return f"resuming raised: {found.reason or 'no word'}"
    if found.step != step:
        return f"what came back says that it is of step {found.step}, and the newest checkpoint is of {step}"
    others = [
        part for part, *both in zip(State._fields, found.state, truth[step], strict=True) if len({*both}) > 1
    ]
    return f"not those of step {step}: {', '.join(others)}" if others else ""


# -- what each way has published ---------------------------------------------------------------------------------------


def published(way: str, folder: Path) -> set[int]:
    """Steps of the checkpoints that are there, by what commits them."""
    if way == "ours":
        return {checkpoint.step for checkpoint in rundir.checkpoints(folder)}
    if way == "backup":
        with contextlib.suppress(OSError, ValueError):
            return {json.loads((folder / "training_metadata.json").read_text())["batch"] + 1}
        return set()
    marks = committed(folder, WAYS[way].marks)
    if way == "keras":  # an archive has its name from the first byte on; what ends it is written last
        marks = [mark for mark in marks if zipfile.is_zipfile(mark)]
    return {step_of(mark) for mark in marks}


def step_of(mark: Path) -> int:
    return int(re.findall(r"\d+", mark.stem)[0])


def newest_files(way: str, folder: Path) -> list[Path]:
    """All files of the newest checkpoint, and what says that it is the newest."""
    if way == "backup":
        found = [folder]
    elif way == "ours":
        found = [rundir.checkpoints(folder)[-1].path]
    else:
        newest = max(committed(folder, WAYS[way].marks), key=step_of)
        found = [*folder.glob(f"{newest.stem}.*"), folder / "checkpoint"] if newest.is_file() else [newest]
    files = [f for path in found for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file()]
    return sorted(file for file in files if file.stat().st_size)


# -- the truth ---------------------------------------------------------------------------------------------------------


def truth() -> Table:
    """Of a training that nothing is kept of."""

    def task(tell: Tell) -> None:
        model = dense()
        tell(told(model))
        model.fit(batches(), verbose=0, callbacks=[Beat(lambda model: tell(told(model)))])

    with Child(task) as child:
        lines = child.rest().decode().splitlines()
        child.end()
    found = {int(step): State(*digests) for step, *digests in map(str.split, lines)}
    assert len(set(found.values())) == STEPS + 1, child.said
    return found
