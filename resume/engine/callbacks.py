"""The run's one CallbackList: Keras's own, over many calls of `fit`, with our part after everybody else's.

Each epoch is one `fit` call (resume.engine.loop says why), but callbacks see one training: it begins once and ends
once, an epoch that is resumed in the middle does not begin again, and batches count from the epoch's beginning.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from keras.src.utils.python_utils import pythonify_logs

from resume import lineage, logs, plain
from resume.engine import flavour
from resume.errors import UsageError

_GRAIN = 2.0  # seconds; the coarsest times of files that there are


@dataclass(frozen=True)
class Hooks:
    """What the loop does at the run's moments, after all callbacks."""

    began: Callable[[], None]
    fit_begun: Callable[[], None]
    epoch_begun: Callable[[], None]
    step_done: Callable[[int, Mapping[str, Any] | None], None]  # batches of this epoch applied, logs
    epoch_done: Callable[[int, Mapping[str, Any]], None]  # epochs completed, logs
    validating: Callable[[], None] = lambda: None  # after each batch of a validation


class RunCallbacks:
    """The run's part of its CallbackList; `of` joins it to the one of the model's Keras.

    `skipped`: batches of the epoch in progress that were applied before this attempt; `steps`: all of them.
    """

    callbacks: list[Any]
    params: dict[str, Any]
    set_params: Callable[[dict[str, Any]], None]
    _history: Any
    _hooks: Hooks
    _training = False
    steps, skipped, mid_epoch = 0, 0, False

    @classmethod
    def of(
        cls, callbacks: Iterable[Any], *, model: Any, hooks: Hooks, epochs: int, steps: int, verbose: int
    ) -> RunCallbacks:
        keras_list = flavour.library(flavour.of(model)).callbacks.CallbackList
        joined: Any = type(cls.__name__, (cls, keras_list), {})
        made: RunCallbacks = joined(
            list(callbacks),
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
        )
        made._hooks, made.steps = hooks, steps
        return made

    def _all(self) -> Any:
        """Keras's own list: what it does, for every callback."""
        return super()

    def on_train_begin(self, logs: Any = None) -> None:
        self._hooks.fit_begun()
        if not self._training:
            self._training = True
            self._all().on_train_begin(logs)
            self._hooks.began()

    def on_train_end(self, logs: Any = None) -> None:
        """The end of one `fit` call is not the end of the training; `finish` is."""

    def finish(self, logs: Mapping[str, Any] | None) -> None:
        self._all().on_train_end(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.mid_epoch:
            # Its beginning lies before the checkpoint: a schedule that multiplies the rate must not act twice.
            for callback in self.callbacks:
                if isinstance(callback, flavour.kinds("callbacks.ProgbarLogger")):
                    callback.on_epoch_begin(epoch, logs)
        else:
            self._all().on_epoch_begin(epoch, logs)
        self._hooks.epoch_begun()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._all().on_train_batch_begin(batch + self.skipped, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._all().on_train_batch_end(batch + self.skipped, logs)
        # With steps_per_execution, Keras names the last batch of a full block even where the epoch ends before it.
        self._hooks.step_done(min(batch + self.skipped + 1, self.steps), logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._all().on_test_batch_end(batch, logs)
        self._hooks.validating()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        known = numbers(logs)
        self._all().on_epoch_end(epoch, known)
        self.mid_epoch, self.skipped = False, 0
        self._hooks.epoch_done(epoch + 1, known)

    def settle(self) -> None:
        """Wait for callbacks that Keras runs beside the training."""
        getattr(self, "_flush_futures", lambda: None)()


def numbers(logs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Logs as plain numbers, as Keras's own CallbackList hands them on."""
    return dict(pythonify_logs(logs))


def stored(logs: Mapping[str, Any]) -> dict[str, Any]:
    """As a checkpoint holds them: NumPy's numbers as Python's, what a metric gives for each class as a list."""
    return {name: plain.bare(value) for name, value in logs.items()}


def checked(callbacks: Mapping[str, Any], born: str) -> dict[str, Any]:
    """The callbacks by name. Raises UsageError for Keras's own resumption, and for no callback of this flavour."""
    for name, callback in callbacks.items():
        if not isinstance(callback, flavour.library(born).callbacks.Callback):
            raise UsageError(
                f"callbacks.{name}: {type(callback).__name__} is not a {born}.callbacks.Callback."
            )
        if isinstance(callback, flavour.kinds("callbacks.BackupAndRestore")):
            raise UsageError(
                f"callbacks.{name}: BackupAndRestore would restore beside this run's own checkpoints. Remove it."
            )
    return dict(callbacks)


def without_double_board(callbacks: Mapping[str, Any], *, shipped: str) -> dict[str, Any]:
    """Without the shipped TensorBoard where the user has one: two of them would write each other's points."""
    boards = [name for name, callback in callbacks.items() if _is_tensorboard(callback)]
    return {name: c for name, c in callbacks.items() if name != shipped or boards in ([], [shipped])}


def log_folders(callbacks: Iterable[Any]) -> list[Path]:
    return [Path(c.log_dir) for c in callbacks if isinstance(c, flavour.kinds("callbacks.TensorBoard"))]


def appended_files(callbacks: Iterable[Any]) -> list[Path]:
    """Every file that these callbacks append to, flushed to its present end."""
    held = list(callbacks)
    for callback in held:
        for writer in getattr(callback, "_writers", {}).values() if _is_tensorboard(callback) else ():
            writer.flush()
    csv = [Path(c.filename) for c in held if isinstance(c, flavour.kinds("callbacks.CSVLogger"))]
    return logs.event_files(log_folders(held)) + csv


def continue_files(callbacks: Iterable[Any]) -> None:
    """Let callbacks go on in their files instead of beginning them again. Call before they meet their model."""
    for callback in callbacks:
        if isinstance(callback, flavour.kinds("callbacks.CSVLogger")):
            callback.append = True
        if _is_tensorboard(callback):
            callback.write_graph = False  # it is in the log already, at step 0


def realign_boards(callbacks: Iterable[Any]) -> None:
    """Keras 3's TensorBoard records by the batch count at which its writer was pushed: push it at the restored one."""
    for callback in callbacks:
        if (
            _is_tensorboard(callback)
            and flavour.of(callback) == flavour.KERAS
            and callback.update_freq != "epoch"
        ):
            callback._pop_writer()
            callback._push_writer(callback._train_writer, callback._global_train_batch)


def _is_tensorboard(callback: Any) -> bool:
    return isinstance(callback, flavour.kinds("callbacks.TensorBoard"))


class OwnLog:
    """Our own TensorBoard series, in `logs/resume`: what each checkpoint cost, how each attempt began and ended.

    No training ends because it cannot be written: that is said once. TensorFlow's error for a file that is too large
    would even end an epoch in silence, as Keras takes it for the end of the data.

    `lock`: held while something is written, by whichever thread; whoever has it may say how long the file is.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say, self._failed = folder, say, False
        self.lock = threading.Lock()
        self._writer = tf.summary.create_file_writer(str(folder))
        self._logged: int | None = None
        self._seen: tuple[float | None, list[Path]] = None, []
        self._looked = 0.0

    def files(self) -> list[Path]:
        """The event files there; looked for where the folder has changed, or too lately for its time to show it."""
        try:
            changed = self.folder.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return []
        if changed != self._seen[0] or self._looked < changed + _GRAIN:
            self._looked, self._seen = time.time(), (changed, logs.event_files([self.folder]))
        return [*self._seen[1]]

    def attempt(self, lines: Iterable[str], *, step: int) -> None:
        with self._writing():
            tf.summary.text("continuity", "  \n".join(lines), step=step)

    def timeline(self, run: Path, *, step: int) -> None:
        """All attempts so far; at an attempt's beginning that also tells how the one before has ended."""
        with self._writing():
            tf.summary.text("timeline", lineage.as_markdown(lineage.timeline(lineage.read(run))), step=step)

    def checkpoint(self, *, step: int, seconds: float, blocked: float, nbytes: int) -> None:
        """The first checkpoint at a step; a second one (after the epoch's validation) would be a duplicate there."""
        if step == self._logged:
            return
        self._logged = step
        with self._writing():
            tf.summary.scalar("checkpoint/seconds", seconds, step=step)
            tf.summary.scalar("checkpoint/blocked", blocked, step=step)
            tf.summary.scalar("checkpoint/megabytes", nbytes / 1e6, step=step)

    def close(self) -> None:
        with self._forgiven():
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self.lock, self._forgiven(), self._writer.as_default():
            yield
            self._writer.flush()

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            if not self._failed:
                reason = error.message.partition("\n")[0].rpartition("; ")[2]
                self._say(f"{self.folder}: this log has gaps now ({reason}); no checkpoint depends on it")
            self._failed = True
