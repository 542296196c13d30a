"""A run directory: publish a checkpoint atomically, list them, find the newest whole one, retire old ones.

runs/a/
    checkpoints/step-00001200/   one published checkpoint; step-00001200.1 is a later position at the same step
    logs/                        TensorBoard
    lineage.jsonl                attempts and what they published (resume.lineage)
    config.yaml                  the configuration of the newest attempt, resolved
    lock                         held by the process that trains here (resume.lock)
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resume import formats, plain
from resume.errors import NoCheckpointError, SourceError, UsageError
from resume.formats import native
from resume.formats.shard import Buffers
from resume.formats.sharing import Donor
from resume.state import TrainState

_NAME = re.compile(r"^step-(\d{8,})(?:\.(\d+))?$")
_UNFINISHED = ".unfinished-"
_RETIRED = ".retired-"


@dataclass(frozen=True)
class Checkpoint:
    """A published directory, by its name alone; whether it is whole is `damage`'s to say."""

    path: Path
    step: int
    ordinal: int  # 0 for the first position published at this step

    @property
    def order(self) -> tuple[int, int]:
        return (self.step, self.ordinal)

    def damage(self) -> list[str]:
        """What is wrong with it, every digest re-read; empty when whole."""
        return list(native.damage(self.path))


def checkpoints(run: Path) -> list[Checkpoint]:
    """Published checkpoints, oldest first, found by scanning (there is no pointer that could lie)."""
    folder = run / "checkpoints"
    names = [(p, _NAME.match(p.name)) for p in folder.iterdir()] if folder.is_dir() else []
    found = [Checkpoint(p, int(m[1]), int(m[2] or 0)) for p, m in names if m]
    return sorted(found, key=lambda c: c.order)


def is_run(path: Path) -> bool:
    return (path / "checkpoints").is_dir() or (path / "lineage.jsonl").is_file()


def newest_whole(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose every digest holds, and a sentence for each newer one that was passed over.

    None when nothing was ever published. Raises NoCheckpointError when checkpoints are there and none is whole.
    """
    passed: list[str] = []
    found = checkpoints(run)
    for checkpoint in reversed(found):
        damage = checkpoint.damage()
        if not damage:
            return checkpoint, passed
        passed.append(damage[0])
    if passed:
        raise NoCheckpointError(
            f"{run}: none of its {len(passed)} checkpoints is whole; the newest: {passed[0]}\n"
            "Nothing was changed. Restore one of them from a backup, or start anew in another run_dir."
        )
    return None, []


def read(path: str | os.PathLike[str]) -> TrainState:
    """The training state in any source; for a run directory, its newest whole checkpoint."""
    source = Path(path)
    if source.is_dir() and not native.holds(source) and is_run(source):
        checkpoint, _ = newest_whole(source)
        if checkpoint is None:
            raise SourceError(f"{source}: a run directory in which nothing has been published yet.")
        source = checkpoint.path
    return formats.read(source)


@dataclass(frozen=True)
class Published:
    path: Path
    seconds: float
    nbytes: int
    trouble: str | None = None  # what went wrong after it was published


def publish(
    run: Path,
    state: TrainState,
    *,
    guard: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    trusted: set[tuple[int, int]] | None = None,
    buffers: Buffers | None = None,
) -> Published:
    """Write a state as the run's next checkpoint: a temporary sibling, synced, renamed, parent synced.

    `guard`: entered for the renaming alone; raises where this process may not publish any more.
    `trusted`: device and inode of data files that this process knows to be whole; those of this one are added. Without
    it, nothing is shared with earlier checkpoints.
    `buffers`: memory for the way to the disk, kept from one checkpoint to the next.
    Whatever kills this process, at whatever moment, the checkpoints published before stay as they were.
    Raises OSError (a full disk, say) after removing what it had begun.
    """
    started = time.perf_counter()
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / f"{_UNFINISHED}{uuid.uuid4().hex}"
    begun.mkdir()
    step, nbytes = state.iterations or 0, state.nbytes
    try:
        donor = None if trusted is None else _donor(run, trusted)
        native.write(begun, state, donor=donor, buffers=buffers)
        inodes = _inodes(begun)
        with guard():
            target = _next_name(folder, step)
            begun.rename(target)
    except OSError:
        shutil.rmtree(begun, ignore_errors=True)
        with guard():  # a successor has swept it away: that is the reason then, and no full disk
            raise
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
    native.sync_directory(folder)
    if trusted is not None:
        trusted |= inodes
    return Published(target, time.perf_counter() - started, nbytes)


def _donor(run: Path, trusted: set[tuple[int, int]]) -> Donor | None:
    """The newest checkpoint that shares nothing with the newest whole one (resume.formats.sharing says why)."""
    with contextlib.suppress(SourceError, OSError):  # a damaged one has nothing to give
        found = list(reversed(checkpoints(run)))
        while found and not _whole(found[0], trusted):  # as good as gone: it is no second copy of anything
            del found[0]
        if len(found) < 2:
            return None
        newest, *earlier = found
        taken = _inodes(newest.path)
        other = next((c.path for c in earlier if taken.isdisjoint(_inodes(c.path))), None)
        return native.donor(other, before=newest.path, trusted=trusted) if other is not None else None
    return None


def _whole(checkpoint: Checkpoint, trusted: set[tuple[int, int]]) -> bool:
    """Its digests are read again only where this process has neither written nor read it."""
    inodes = _inodes(checkpoint.path)
    if not inodes <= trusted:
        if checkpoint.damage():
            return False
        trusted |= inodes
    return True


def _inodes(checkpoint: Path) -> set[tuple[int, int]]:
    """Of its data files."""
    found = (file.stat() for file in checkpoint.iterdir() if file.suffix == ".safetensors")
    return {(at.st_dev, at.st_ino) for at in found}


def _next_name(folder: Path, step: int) -> Path:
    """A free name for this step. A damaged checkpoint that stands there is in the way of its own repair: it goes."""
    for checkpoint in checkpoints(folder.parent):
        if checkpoint.step >= step and checkpoint.damage():
            retire(checkpoint)
    taken = [c.ordinal for c in checkpoints(folder.parent) if c.step == step]
    name = f"step-{step:08d}"
    return folder / (f"{name}.{max(taken) + 1}" if taken else name)


def retire(checkpoint: Checkpoint) -> None:
    """Remove a checkpoint; renamed first, so that a half-removed one never looks published."""
    hidden = checkpoint.path.with_name(f"{_RETIRED}{uuid.uuid4().hex}")
    checkpoint.path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def being_written(run: Path) -> bool:
    """Whether a checkpoint is half written right now; a look from outside, which may come a moment late."""
    with contextlib.suppress(FileNotFoundError):
        begun = [p for p in (run / "checkpoints").iterdir() if p.name.startswith(_UNFINISHED)]
        return any(any(path.iterdir()) for path in begun)
    return False  # nothing was begun yet, or it was published between the two looks


def sweep(run: Path) -> None:
    """Remove what killed attempts left behind. Only for the holder of the lock."""
    for model in run.glob(f"{_UNFINISHED}*"):
        model.unlink()
    folder = run / "checkpoints"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith((_UNFINISHED, _RETIRED)):
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Best:
    """Keep the checkpoint with the best value of a logged metric."""

    metric: str
    mode: str = "min"

    @classmethod
    def named(cls, text: str | None) -> Best | None:
        """From `val_loss`, or `max:val_accuracy`; without a mode, names that say accuracy or score are maximised."""
        if text is None:
            return None
        mode, _, metric = text.rpartition(":")
        if mode not in ("", "min", "max"):
            raise UsageError(f"checkpoint.keep_best: {text!r} begins with neither min: nor max:.")
        rising = any(word in metric for word in ("acc", "auc", "precision", "recall", "f1", "score", "iou"))
        return cls(metric, mode or ("max" if rising else "min"))

    def of(self, values: Mapping[Path, float]) -> Path | None:
        pick = min if self.mode == "min" else max
        finite = [path for path, value in values.items() if math.isfinite(value)]
        return pick(finite, key=lambda path: values[path]) if finite else None


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: any of these rules keeps one."""

    last: int = 2
    every_steps: int | None = None
    best: Best | None = None

    def retired(
        self, found: Iterable[Checkpoint], *, logs: Mapping[Path, Mapping[str, Any]]
    ) -> list[Checkpoint]:
        """Of the checkpoints, oldest first, those that no rule keeps. `logs`: epoch logs by path."""
        ordered = sorted(found, key=lambda c: c.order)
        kept = {c.path for c in ordered[-max(self.last, 1) :]}
        if self.every_steps:
            # The first at or after each multiple: a schedule need not hit the multiple itself.
            firsts = {c.step // self.every_steps: c.path for c in reversed(ordered)}
            kept |= {path for multiple, path in firsts.items() if multiple}
        if self.best:
            metric = self.best.metric
            kept |= {self.best.of({p: v[metric] for p, v in logs.items() if metric in v}) or Path()}
        return [c for c in ordered if c.path not in kept]


@dataclass
class Directory:
    """A run directory that this process writes to; it holds the lock."""

    path: Path
    retention: Retention = field(default_factory=Retention)
    guard: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    buffers: Buffers = field(default_factory=Buffers)
    _trusted: set[tuple[int, int]] = field(default_factory=set)

    def publish(
        self, state: TrainState, *, note: Callable[[Published], None] = lambda published: None
    ) -> Published:
        """Publish, have it noted, retire what no rule keeps. What fails after the renaming is told as `trouble`."""
        published = publish(self.path, state, guard=self.guard, trusted=self._trusted, buffers=self.buffers)
        try:
            with self.guard():  # anew: what would be noted and retired by now may be another's
                note(published)
                found = checkpoints(self.path)
                for checkpoint in self.retention.retired(found, logs=self._logs(found)):
                    retire(checkpoint)
                # A number that is free again may become another file's.
                self._trusted &= {i for c in checkpoints(self.path) for i in _inodes(c.path)}
        except OSError as error:
            return replace(published, trouble=f"{error.strerror or error}")
        return published

    def _logs(self, found: Iterable[Checkpoint]) -> dict[Path, Mapping[str, Any]]:
        if self.retention.best is None:
            return {}
        logs: dict[Path, Mapping[str, Any]] = {}
        for checkpoint in found:
            with contextlib.suppress(SourceError):  # a damaged one is the best of nothing
                progress = native.read_manifest(checkpoint.path)["progress"]
                logs[checkpoint.path] = plain.decode(progress.get("epoch_logs")) or {}
        return logs
