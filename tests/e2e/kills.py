"""Kill real training runs and compare what is left with the unbroken run, bit for bit.

    python tests/e2e/kills.py --kills 5 --seed 1 [EXPERIMENT ...]

Per experiment: one unbroken run; then another that is hit KILLS times, by SIGTERM and SIGKILL (in a validation, after
a checkpoint, in a save, at random moments), and repeated with the same command until it ends. One JSON line each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import processes  # noqa: E402

from resume import rundir  # noqa: E402

ANY_NUMBER = ["cluster.fruitless=null"]  # of attempts that are killed before they publish anything
EXPERIMENTS = sorted(path.stem for path in (HERE / "conf" / "experiment").glob("*.yaml"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS, metavar="EXPERIMENT")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    processes.preload()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.experiments:
            rng = random.Random(f"{name} {options.seed}")
            print(json.dumps(compare(name, Path(folder), kills=options.kills, rng=rng)), flush=True)


def compare(name: str, folder: Path, *, kills: int, rng: random.Random) -> dict[str, Any]:
    """Both runs of one experiment, and whether they ended alike."""
    whole, broken, log = folder / f"{name}-whole", folder / f"{name}-broken", folder / f"{name}.log"
    started = time.monotonic()
    code = processes.attempt([f"+experiment={name}", f"run_dir={whole}"], log=log)
    seconds = time.monotonic() - started
    if code != 0:
        return {"experiment": name, "error": log.read_text()[-2000:]}
    codes = [
        processes.attempt([f"+experiment={name}", f"run_dir={broken}", *ANY_NUMBER], log=log, **moment)
        for moment in moments(broken, seconds, kills=kills, rng=rng)
    ]
    code = processes.attempt([f"+experiment={name}", f"run_dir={broken}", *ANY_NUMBER], log=log)
    if code != 0:
        return {"experiment": name, "error": log.read_text()[-2000:]}
    return {
        "experiment": name,
        "seconds": round(seconds, 1),
        "killed": codes.count(-9),
        "preempted": codes.count(75),
        **differences(whole, broken),
    }


def moments(run: Path, seconds: float, *, kills: int, rng: random.Random) -> list[dict[str, Any]]:
    """When to kill: in a validation, after some checkpoint, in a save, and at random moments of a whole run's time.

    Every other one of these is a SIGTERM, which lets the process save and leave, the others are SIGKILLs.
    """
    published, term, kill = rng.randrange(1, 9), signal.SIGTERM, signal.SIGKILL
    aimed: list[dict[str, Any]] = [
        # In a validation a SIGTERM, which has to publish what was before it.
        {"kill_when": _nth((run / "validating").exists, rng.randrange(3)), "kill": term},
        {"kill_when": lambda: published_in(run) >= published, "kill": kill},
        {"kill_when": _nth(lambda: rundir.being_written(run), rng.randrange(4)), "kill": kill},
    ]
    late = [{"kill_after": rng.uniform(0.2, seconds)} for _ in range(kills - len(aimed))]
    signals = itertools.cycle((kill, term) if rng.randrange(2) else (term, kill))
    return aimed[:kills] + [{**moment, "kill": number} for moment, number in zip(late, signals, strict=False)]


def published_in(run: Path) -> int:
    lineage = run / "lineage.jsonl"
    return lineage.read_text().count('"event": "checkpoint"') if lineage.is_file() else 0


def _nth(test: Callable[[], bool], skip: int) -> Callable[[], bool]:
    """True once `test` has become true for the time number `skip` + 1."""
    state = {"left": skip, "before": False}

    def reached() -> bool:
        now = test()
        if now and not state["before"]:
            state["left"] -= 1
        state["before"] = now
        return now and state["left"] < 0

    return reached


def differences(whole: Path, broken: Path) -> dict[str, Any]:
    """What differs between the two runs' ends; empty lists for a continuation that is bit for bit the unbroken run."""
    from resume import lineage

    a, b = rundir.read(whole), rundir.read(broken)
    names = a.specs.keys() | b.specs.keys()
    progress = [key for key in a.progress if key != "files" and _text(a, key) != _text(b, key)]
    return {
        "attempts": len(lineage.attempts(lineage.read(broken))),
        "arrays": len(names),
        "arrays_differ": sorted(n for n in names if a.specs.get(n) != b.specs.get(n)),
        "progress_differs": progress,
        "scalars_differ": scalars_differ(whole, broken),
        "csv_differs": (whole / "log.csv").read_text() != (broken / "log.csv").read_text(),
        "lineage_breaks": lineage.breaks(broken),
        "iterations": [a.iterations, b.iterations],
    }


def _text(state: Any, key: str) -> str:
    text = json.dumps(state.progress[key], sort_keys=True)
    return text.replace("-broken", "-whole")


def scalars_differ(whole: Path, broken: Path) -> list[str]:
    """Series that differ in any step or value, or whose steps repeat or run backwards, by TensorBoard's own reader."""
    out = []
    for part in ("train", "validation"):
        a, b = series(whole / "logs" / part), series(broken / "logs" / part)
        out += [f"{part}/{tag}" for tag in sorted(a.keys() | b.keys()) if a.get(tag) != b.get(tag)]
        out += [
            f"{part}/{tag} steps" for tag, points in b.items() if not _rising([step for step, _ in points])
        ]
    return out


def _rising(steps: list[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(steps))


def series(folder: Path) -> dict[str, list[tuple[int, bytes]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    return {tag: [(e.step, e.tensor_proto.SerializeToString()) for e in events.Tensors(tag)] for tag in tags}


if __name__ == "__main__":
    main()
