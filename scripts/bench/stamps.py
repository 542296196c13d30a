"""What one training leaves in time: a stamp at every step, seen from a callback, the same for whoever saves.

Keras calls the callbacks of a step one after the other, the run's own checkpoint last of all. Stamps is the first of
them, so whatever is done for a checkpoint on the main thread lies between its stamp of the step's end and its stamp of
the next step's beginning: that is the time for which the training stands still. (Keras turns the step's logs into
numbers before it calls anyone, so that on a GPU, too, the step is over by then.) What a checkpoint costs later, while
it is written beside the training, is in the steps that follow: `Window`s are compared for that.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """Seconds of CPU since the start: of all that there is, of others' programs and of stolen time, of this process."""

    capacity: float
    foreign: float
    own: float

    @classmethod
    def now(cls) -> Load:
        """Others: user time only, as the kernel writes back in its own threads what this process has written."""
        fields = [int(x) / _TICKS for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, stolen = fields[0], fields[1], fields[7]
        return cls(sum(fields), user + nice - os.times().user + stolen, time.process_time())

    def foreign_since(self, before: Load) -> float:
        """Share of the machine that others had."""
        return max(self.foreign - before.foreign, 0.0) / max(self.capacity - before.capacity, 1e-9)


def peak() -> int | None:
    """Most bytes resident since the last call; None where the kernel does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@dataclass
class Moment:
    """The end of one step, before any other callback has seen it. `resumed`: the beginning of the next one."""

    ended: float
    clock: float  # as the file system tells time
    load: Load
    peak: int | None
    resumed: float = float("nan")

    @property
    def gap(self) -> float:
        return self.resumed - self.ended


@dataclass(frozen=True)
class Window:
    """The same number of steps twice: those after a checkpoint, the main thread's stop included, and plain ones."""

    blocked: float  # seconds that the main thread stood still, beyond what a plain step's callbacks take
    lost: float  # seconds longer than the plain window
    cpu: float  # seconds of CPU more than in the plain window
    plain: float  # seconds of the plain window
    foreign: float  # share of the machine that others had
    peak: int | None  # bytes resident at most, during both
    published: float | None  # seconds from the step's end until what commits the checkpoint was there
    late: bool | None  # whether it was still being written when the plain window began; None where nothing is
    bytes: int | None


@dataclass(frozen=True)
class Commit:
    """A checkpoint that counts from `clock` on; `step` is None where its name does not tell."""

    step: int | None
    clock: float
    bytes: int

    @classmethod
    def at(cls, mark: Path) -> Commit:
        number = re.search(r"\d+", mark.stem)
        return cls(int(number[0]) if number else None, mark.stat().st_ctime, size(mark))

    def of(self, step: int, *, between: tuple[float, float]) -> bool:
        """Whether it is the checkpoint after `step`."""
        return self.step == step if self.step is not None else between[0] < self.clock < between[1]


class Stamps(keras.callbacks.Callback):
    """The first of all callbacks. `marks`: glob of what commits a checkpoint in `folder`."""

    def __init__(self, folder: Path, marks: str, *, window: int) -> None:
        super().__init__()
        self.folder, self.marks, self.window = folder, marks, window
        self.moments: list[Moment] = []
        self.commits: dict[tuple[Path, int], Commit] = {}

    def get_state(self) -> dict[str, Any]:
        """For resume.fit, which would put the stamps into every checkpoint."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        now = time.perf_counter()
        if self.moments:
            self.moments[-1].resumed = now
        self.look()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        at_border = (batch + 1) % self.window == 0
        load, most = (Load.now(), peak()) if at_border else (Load(0, 0, 0), None)
        self.moments.append(Moment(time.perf_counter(), time.time(), load, most))

    def look(self) -> None:
        """What has been committed since the last look; retention or the next save may remove it later."""
        for mark in committed(self.folder, self.marks):
            with contextlib.suppress(FileNotFoundError):  # a thread may be retiring it just now
                key = mark, mark.stat().st_mtime_ns
                if key not in self.commits:
                    self.commits[key] = Commit.at(mark)

    def baseline(self) -> int | None:
        """Most bytes resident in the plain window before the first checkpoint."""
        return self.moments[2 * self.window - 1].peak

    def windows(self, commits: list[Commit]) -> Iterator[Window]:
        """One for each checkpoint but the first, which makes what the later ones use again, and the last."""
        quiet = statistics.median(m.gap for m in self.moments[self.window : -1])
        for end in range(4 * self.window - 1, len(self.moments) - 2 * self.window, 2 * self.window):
            yield self._window(end, quiet, commits)

    def _window(self, end: int, quiet: float, commits: list[Commit]) -> Window:
        saved, middle, last = (self.moments[end + n * self.window] for n in range(3))
        loaded, plain = middle.ended - saved.ended, last.ended - middle.ended
        commit = next((c for c in commits if c.of(end + 1, between=(saved.clock, last.clock))), None)
        peaks = [m.peak for m in (middle, last) if m.peak is not None]
        return Window(
            blocked=saved.gap - quiet,
            lost=loaded - plain,
            cpu=(middle.load.own - saved.load.own) - (last.load.own - middle.load.own),
            plain=plain,
            foreign=last.load.foreign_since(saved.load),
            peak=max(peaks, default=None),
            published=commit.clock - saved.clock if commit else None,
            late=(commit is None or commit.clock > middle.clock) if self.marks else None,
            bytes=commit.bytes if commit else None,
        )


def committed(folder: Path, marks: str) -> list[Path]:
    """Oldest first; none where `marks` is empty. Orbax's unfinished folders begin with the name that they will have."""
    return sorted(path for path in folder.glob(marks) if "tmp" not in path.name) if marks else []


def size(mark: Path) -> int:
    """Bytes of a checkpoint: of the folder that is one, or of the files that share the number in the mark's name."""
    if mark.is_dir():
        return sum(f.stat().st_size for f in mark.rglob("*") if f.is_file())
    shared = f"{mark.stem}.*" if re.search(r"\d", mark.stem) else "*"
    return sum(f.stat().st_size for f in mark.parent.glob(shared) if f.is_file())


def as_dicts(windows: Iterator[Window]) -> list[dict[str, Any]]:
    return [asdict(window) for window in windows]
