"""Ways of keeping a training's state, ours and the others, behind one face; scripts/bench/costs sets them beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from stamps import Commit, Stamps

import resume

# What resume.fit is told about checkpoints, beside `every_steps`; one that takes other settings is measured with them.
OURS: dict[str, Any] = {"every_minutes": None, "every_epochs": None, "keep_last": 2, "cluster": "local"}


@dataclass(frozen=True)
class Training:
    """One call of fit: a checkpoint after each `every` steps, the newest `keep` of them kept in `folder`."""

    model: keras.Model
    data: tf.data.Dataset
    folder: Path
    every: int
    keep: int = 2


Callbacks = Callable[[Training], list[keras.callbacks.Callback]]


@dataclass(frozen=True)
class Way:
    """`marks`: glob of what commits a checkpoint, empty where nothing is saved. `callbacks`: what `fit` is given."""

    marks: str
    callbacks: Callbacks

    def fit(self, training: Training, first: Iterable[keras.callbacks.Callback] = ()) -> None:
        """`first`: called before all others."""
        callbacks = [*first, *self.callbacks(training)]
        training.model.fit(training.data, verbose=0, callbacks=callbacks)

    def commits(self, training: Training, stamps: Stamps) -> list[Commit]:
        return sorted(stamps.commits.values(), key=lambda c: c.clock)


class Ours(Way):
    def fit(self, training: Training, first: Iterable[keras.callbacks.Callback] = ()) -> None:
        settings = {**OURS, "every_steps": training.every, "keep_last": training.keep}
        resume.fit(
            training.model, training.data, run_dir=training.folder, verbose=0, callbacks=[*first], **settings
        )

    def commits(self, training: Training, stamps: Stamps) -> list[Commit]:
        """As the run's lineage tells: a checkpoint is in it once it has its name and is synced."""
        return [Commit(r["step"], r["time"], r["bytes"]) for r in checkpoints(training.folder)]


def checkpoints(run: Path) -> list[dict[str, Any]]:
    """The run's own account of its checkpoints."""
    lines = [json.loads(line) for line in (run / "lineage.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "checkpoint"]


class Each(keras.callbacks.Callback):
    """Calls `save(step)` after each `every` steps, and `done()` when the training ends."""

    def __init__(
        self, every: int, save: Callable[[int], Any], done: Callable[[], Any] = lambda: None
    ) -> None:
        super().__init__()
        self.every, self.save, self.done = every, save, done

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self.every == 0:
            self.save(batch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        self.done()


def variables(model: keras.Model) -> list[keras.Variable]:
    """All that a checkpoint of it holds."""
    return [*model.variables, *model.optimizer.variables]


def backup(training: Training) -> list[keras.callbacks.Callback]:
    return [keras.callbacks.BackupAndRestore(training.folder, save_freq=training.every)]


def archive(training: Training) -> list[keras.callbacks.Callback]:
    """What people write: a file a step, the oldest ones removed."""

    def save(step: int) -> None:
        training.model.save(training.folder / f"{step:06d}.keras")
        for old in sorted(training.folder.glob("*.keras"))[: -training.keep]:
            old.unlink()

    return [Each(training.every, save)]


def tracked(training: Training) -> list[keras.callbacks.Callback]:
    model = training.model
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    manager = tf.train.CheckpointManager(checkpoint, training.folder, max_to_keep=training.keep)
    return [Each(training.every, manager.save)]


def tracked_async(training: Training) -> list[keras.callbacks.Callback]:
    """Of TensorFlow's own variables: with the model itself, asynchronous saving raises in Keras 3."""
    checkpoint = tf.train.Checkpoint(variables=[v.value for v in variables(training.model)])
    manager = tf.train.CheckpointManager(checkpoint, training.folder, max_to_keep=training.keep)
    options = tf.train.CheckpointOptions(enable_async=True)
    return [Each(training.every, lambda step: manager.save(step, options=options), checkpoint.sync)]


def orbax_callback(training: Training) -> list[keras.callbacks.Callback]:
    return [
        keras.callbacks.OrbaxCheckpoint(training.folder, save_freq=training.every, max_to_keep=training.keep)
    ]


def orbax_async(training: Training) -> list[keras.callbacks.Callback]:
    """Its manager saves in the background unless told otherwise, from copies on the host."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=training.keep, enable_async_checkpointing=True)
    manager = ocp.CheckpointManager(training.folder, options=options)

    def save(step: int) -> None:
        state = {f"{i:04d}": np.array(v) for i, v in enumerate(variables(training.model))}
        manager.save(step, args=ocp.args.StandardSave(state))

    return [Each(training.every, save, manager.close)]


# "none": how much of what all others are measured by is there where nothing is saved.
WAYS: dict[str, Way] = {
    "none": Way("", lambda training: []),
    "ours": Ours("checkpoints/step-*", lambda training: []),
    "backup": Way("training_metadata.json", backup),
    "keras": Way("*.keras", archive),
    "tf": Way("*.index", tracked),
    "tf_async": Way("*.index", tracked_async),
    "orbax_keras": Way("[0-9]*", orbax_callback),
    "orbax": Way("[0-9]*", orbax_async),
}
