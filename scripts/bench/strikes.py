"""One process of scripts/bench/faults: `strikes.py WAY FOLDER`, faults as JSON on stdin, a line of JSON for each.

A line before these is the control: what is wrong with what came back of a run that nothing disturbed, or nothing.

It imports TensorFlow and starts nothing of it; every training, and every one that resumes it, is a fork, which ends
with it. What a fault needs (a small file system, a preloaded library) and is not there, is said in each of its lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.update(
    CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow",
    TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1",
)  # fmt: skip

from forks import Child
from injections import ERRORS, damage, fill, is_preloaded, limit, mount, refuse
from restores import EVERY, STEPS, difference, newest_files, published, restored, truth
from trainings import PAUSE, Runs, Seen

import resume.engine.face
import resume.engine.launch  # noqa: F401  (imported once, and not by each fork)

LAST = 5  # the checkpoint that is struck at the latest: others follow, which may be written or not
AIMED = 0.75  # of the faults fall into the time in which a checkpoint is written, or shortly after it


@dataclass(frozen=True)
class Outcome:
    """`due`: the last checkpoint that was due at the fault, or the first that it kept from being published.

    `missing`: how many up to that were due and never published; `lost`: intervals between `due` and what came back.
    `told`: whether the user heard of a failing write; None where no write has failed. `refused`: the first of them.
    """

    due: int
    restored: int | None
    missing: int
    unusable: bool
    wrong: bool
    told: bool | None
    refused: str
    said: str

    @property
    def lost(self) -> float | None:
        return None if self.restored is None or self.wrong else max(self.due - self.restored, 0) / EVERY


class Bench:
    def __init__(self, way: str, folder: Path) -> None:
        self.way, self.runs = way, Runs(way, folder)
        self.small = ""  # why there is no small file system
        try:
            (folder / "small").mkdir()
            mount(folder / "small")
        except (OSError, subprocess.CalledProcessError) as error:
            self.small = f"no tmpfs can be mounted: {getattr(error, 'stderr', None) or error}".strip()
        self.truth = truth()
        self.pace = self.runs.pace()
        self.whole = self.runs.whole(self.pace)

    def control(self) -> str:
        """Of a run that nothing disturbed: how what comes back differs from its newest checkpoint, or nothing."""
        with self._copied() as folder:
            return difference(restored(self.way, folder), max(published(self.way, folder)), self.truth)

    @contextlib.contextmanager
    def _copied(self) -> Iterator[Path]:
        """That run, as resuming may write to it."""
        folder = self.runs.place()
        shutil.copytree(self.whole, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    # -- one fault --

    def outcome(self, fault: dict[str, Any]) -> Outcome:
        rng = random.Random(fault["seed"])
        if fault["kind"] == "flipped":
            return self._flipped(rng)
        if fault["kind"] == "full" and self.small:
            raise RuntimeError(self.small)
        if fault["kind"] == "refused" and not is_preloaded():
            raise RuntimeError("no library is preloaded that makes writes fail")
        folder = self.runs.place("small" if fault["kind"] == "full" else ".")
        try:
            return self._struck(fault, folder, rng)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _struck(self, fault: dict[str, Any], folder: Path, rng: random.Random) -> Outcome:
        step, seconds = self._moment(rng)
        to_its_end = self.way == "ours"  # others remove their checkpoints there
        with self.runs.started(folder, on_failure=fault["on_failure"], to_its_end=to_its_end) as seen:
            if seen.until(step):
                seen.watch(seconds)
            due, ballast = seen.due, folder.with_suffix(".ballast")
            try:
                self._strike(fault["kind"], seen, ballast, rng)
                if fault["kind"] == "killed":
                    seen.kill()
                    due = seen.due
                else:
                    self._see_off(seen, to_its_end=to_its_end)
            finally:
                ballast.unlink(missing_ok=True)
        missing = [d for d in range(max(due - EVERY, EVERY), seen.due + 1, EVERY) if d not in seen.published]
        failed = bool(missing) if fault["kind"] != "refused" else seen.orders.failed > 0
        heard = was_told(seen.child, must_stop=bool(missing) and fault["on_failure"] == "stop")
        due = max(due, missing[0]) if missing else due
        return self._judged(
            seen,
            due=due,
            missing=sum(step <= due for step in missing),
            told=heard if failed and fault["kind"] != "killed" else None,
        )

    def _moment(self, rng: random.Random) -> tuple[int, float]:
        """A step, and seconds after its end."""
        if rng.random() < AIMED:
            return EVERY * rng.randint(1, LAST), rng.uniform(0, 1.25 * self.pace.seconds)
        return rng.randrange(1, EVERY * (LAST + 1)), rng.uniform(0, 1.5 * PAUSE)

    def _strike(self, kind: str, seen: Seen, ballast: Path, rng: random.Random) -> None:
        if kind == "full":
            fill(ballast, leave=rng.randrange(self.pace.bytes))
        elif kind == "limited":
            limit(seen.child.pid, self.pace.largest, rng)
        elif kind == "refused":
            refuse(seen.orders, self.pace.calls, rng)

    def _see_off(self, seen: Seen, *, to_its_end: bool) -> None:
        """To its end, or until it waits to be killed and nothing is being written."""
        if to_its_end or not seen.until(STEPS - 1):
            seen.finish()
            return
        time.sleep(5 * self.pace.seconds)
        seen.kill()

    def _flipped(self, rng: random.Random) -> Outcome:
        with self._copied() as folder, Child(lambda tell: None) as child:
            child.end()
            seen = Seen(self.way, folder, child, steps=STEPS - 1)
            seen.look()
            damage(rng.choice(newest_files(self.way, folder)), rng)
            return self._judged(seen, due=max(seen.published), missing=0, told=None)

    # -- what is left --

    def _judged(self, seen: Seen, *, due: int, missing: int, told: bool | None) -> Outcome:
        found = restored(self.way, seen.folder)
        unusable = found.step is None
        wrong = found.step is not None and (
            self.truth.get(found.step) != found.state or (found.step == 0 and bool(seen.published))
        )
        said = found.reason if unusable or wrong else seen.child.reason if told is False else ""
        return Outcome(due, found.step, missing, unusable, wrong, told, seen.orders.first, said)


def was_told(child: Child, *, must_stop: bool) -> bool:
    """Whether it has named the error, and not as if all were well: its code says so, unless it was to go on."""
    return any(text in child.said for text in ERRORS.values()) and (child.code != 0 or not must_stop)


# -- the process -------------------------------------------------------------------------------------------------------


def main() -> None:
    way, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    results = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # progress bars and whatever else a library prints
    warnings.simplefilter("ignore")
    bench = Bench(way, folder)
    print(json.dumps({"control": bench.control()}), file=results, flush=True)
    for line in sys.stdin:
        fault = json.loads(line)
        try:
            outcome = bench.outcome(fault)
            found = {**asdict(outcome), "lost": outcome.lost}
        except Exception as error:
            if os.environ.get("TRACE"):
                traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(fault | found), file=results, flush=True)


if __name__ == "__main__":
    main()
