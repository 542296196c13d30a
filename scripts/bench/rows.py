"""One process of scripts/bench/costs: `rows.py JOB RESULT`, a job as JSON, its result written to a file as JSON.

A process measures one way once, so that no way finds the memory, the threads or the buffers of another.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from stamps import Load, Stamps, as_dicts, committed
from ways import WAYS, Training, checkpoints, variables

import resume
from resume import cli, rundir
from resume.engine import live, restore

BATCHES = 4096  # rows in a batch at most, where steps are to take their time

Job = dict[str, Any]

_BUFFER = bytearray(1 << 24)


# -- what is trained ---------------------------------------------------------------------------------------------------


def dense(job: Job) -> keras.Model:
    """Layers of one size, with Adam six variables each; none of their gradients is zero, which some ways compress."""
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(job["units"], activation="tanh") for _ in range(job["layers"])]
    model = keras.Sequential([keras.Input((job["units"],)), *layers])
    model.compile(keras.optimizers.Adam(1e-5), "mean_squared_error", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def finetuned(job: Job) -> keras.Model:
    """Layers of one size, of which the last alone is trained, by an optimizer without slots."""
    model = dense(job)
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile(keras.optimizers.SGD(1e-3), "mean_squared_error", jit_compile=False)
    return model


def batches(job: Job, steps: int) -> tf.data.Dataset:
    """The same batch again and again, so that the training waits for no data."""
    x, y = np.random.default_rng(0).normal(size=(2, job["batch"], job["units"])).astype("float32")
    return tf.data.Dataset.from_tensors((x, y)).repeat(steps)


def state_bytes(model: keras.Model) -> int:
    return sum(math.prod(v.shape) * np.dtype(str(v.dtype)).itemsize for v in variables(model))


# -- trials ------------------------------------------------------------------------------------------------------------


def calibrated(job: Job, folder: Path) -> dict[str, Any]:
    """The batch with which a step takes `seconds`, and what it takes with that."""
    model, tried = dense(job), []
    for batch in itertools.takewhile(lambda b: b <= BATCHES, (8 << n for n in itertools.count())):
        tried.append((batch, step_seconds(model, job | {"batch": batch})))
        if tried[-1][1] >= job["seconds"]:
            break
    (low, fast), (high, slow) = tried[-2] if len(tried) > 1 else tried[-1], tried[-1]
    if slow > job["seconds"] > fast:
        high = int(low + (high - low) * (job["seconds"] - fast) / (slow - fast))
        slow = step_seconds(model, job | {"batch": high})
    return {"batch": high, "step": slow}


def step_seconds(model: keras.Model, job: Job) -> float:
    (x, y), *_ = batches(job, 1)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        model.train_on_batch(x, y)
        taken.append(time.perf_counter() - started)
    return sorted(taken[1:])[1]


def trained(job: Job, folder: Path) -> dict[str, Any]:
    """Windows with a checkpoint and windows without, by turns."""
    way, window, model = WAYS[job["way"]], job["window"], dense(job)
    stamps = Stamps(folder, way.marks, window=window)
    data = batches(job, 2 * window * (job["checkpoints"] + 2))
    training = Training(model, data, folder, every=2 * window)
    way.fit(training, [stamps])
    return {
        "windows": as_dicts(stamps.windows(way.commits(training, stamps))),
        "baseline": stamps.baseline(),
        "state": state_bytes(model),
        "variables": len(variables(model)),
        "step": sorted(w.plain / window for w in stamps.windows([]))[0],
        "own_account": own_account(folder) if job["way"] == "ours" else [],
    }


def own_account(run: Path) -> list[dict[str, Any]]:
    """What our lineage says of the same checkpoints, the first and the last left out as in `Stamps.windows`."""
    found = checkpoints(run)[1:-1]
    return [{key: line[key] for key in ("seconds", "blocked") if key in line} for line in found]


def restored(job: Job, folder: Path) -> dict[str, Any]:
    """Seconds of a process's first load into the built model, and of those that follow; from a warm cache.

    What is loaded another process has saved: this one is as fresh as one that resumes.
    """
    other = json.dumps(job | {"trial": "saved", "into": str(folder)})
    subprocess.run([sys.executable, __file__, other, str(folder.with_name("saved.json"))], check=True)
    bytes_once(folder)
    model = dense(job)
    load = READERS[job["way"]](model, job, folder)
    assert resume.load  # imported when it is first asked for
    loads: list[dict[str, Any]] = []
    for _ in range(job["checkpoints"] + 1):
        before, started = Load.now(), time.perf_counter()
        load()
        taken = dict.fromkeys(("once", "seconds"))
        taken["seconds" if loads else "once"] = time.perf_counter() - started
        loads.append(taken | {"foreign": Load.now().foreign_since(before)})
    return {"windows": loads, "state": state_bytes(model)}


def saved(job: Job, folder: Path) -> dict[str, Any]:
    """For `restored`."""
    READERS[job["way"]](dense(job), job, Path(job["into"]))
    return {}


def retained(job: Job, folder: Path) -> dict[str, Any]:
    """A fine-tune that keeps all of its checkpoints, one a step."""
    way, steps = WAYS[job["way"]], job["checkpoints"]
    model = finetuned(job)
    way.fit(Training(model, batches(job, steps), folder, every=1, keep=steps + 1))
    if job["way"] == "ours":
        kept = [checkpoint.path for checkpoint in rundir.checkpoints(folder)]
        shutil.rmtree(folder / "logs")
        (folder / "model.keras").unlink(missing_ok=True)
    else:
        kept = committed(folder, way.marks)
    one = alone(kept[0], folder.with_name("alone"), lambda copy: disk([copy]))
    return {
        "kept": len(kept),
        "disk": disk([folder]),
        "one": one,
        "verified": verified(kept) if job["way"] == "ours" else None,
        "state": sum(v.numpy().nbytes for v in variables(model)),
    }


def alone(mark: Path, target: Path, look: Callable[[Path], Any]) -> Any:
    """What `look` says of a copy in which nothing is shared with another checkpoint."""
    target.mkdir()
    try:
        for part in [mark] if mark.is_dir() else mark.parent.glob(f"{mark.stem}.*"):
            copy = shutil.copytree if part.is_dir() else shutil.copy2
            copy(part, target / part.name)
        return look(target)
    finally:
        shutil.rmtree(target)


def disk(paths: Iterable[Path]) -> int:
    """Bytes that the files below occupy, each of them once, however many names it has."""
    files = [f for path in paths for f in path.rglob("*") if f.is_file() and not f.is_symlink()]
    stats = {(s.st_dev, s.st_ino): s for s in (f.stat() for f in files)}
    return sum(s.st_blocks * 512 for s in stats.values())


def verified(kept: list[Path]) -> dict[str, int]:
    """How many `resume verify` finds whole, where they are and copied elsewhere."""
    target = kept[0].parents[2] / "alone"
    there = [alone(path, target, lambda copy: is_whole(next(copy.iterdir()))) for path in kept]
    return {"here": sum(map(is_whole, kept)), "elsewhere": sum(there)}


def is_whole(path: Path) -> bool:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            cli.main(["verify", str(path)])
    except SystemExit as ended:
        return not ended.code
    return True


# -- reading back ------------------------------------------------------------------------------------------------------

Reader = Callable[[keras.Model, Job, Path], Callable[[], Any]]


def saved_by_us(model: keras.Model, job: Job, folder: Path) -> Path:
    if not rundir.checkpoints(folder):
        WAYS["ours"].fit(Training(model, batches(job, 1), folder, every=1))
    return folder / str(checkpoints(folder)[-1]["path"])


def proven(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    path = saved_by_us(model, job, folder)
    return lambda: demand_exact(resume.load(path, model=model)[1])


def proven_run(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    saved_by_us(model, job, folder)
    return lambda: demand_exact(resume.load(folder, model=model)[1])


def demand_exact(proof: Any) -> None:
    assert proof.verdict != "broken", proof


def assigned(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    """What is left of our load without its proof, in which the digests are checked: every array into its variable."""
    path = saved_by_us(model, job, folder)

    def load() -> None:
        state, variables = resume.read(path), live.of(model).variables
        restore.assign_all(variables, state.arrays, [name for name in state.specs if name in variables])

    return load


def digested(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    path = saved_by_us(model, job, folder)

    def load() -> None:
        state = resume.read(path)
        for name in state.specs:
            state.arrays[name]

    return load


def only_bytes(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    path = saved_by_us(model, job, folder)
    return lambda: bytes_once(path)


def bytes_once(path: Path) -> None:
    for file in filter(Path.is_file, path.rglob("*")):
        with file.open("rb", buffering=0) as handle:
            while handle.readinto(_BUFFER):
                pass


def from_weights(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    path = folder / "saved.weights.h5"
    if not path.exists():
        model.fit(batches(job, 1), verbose=0)
        model.save_weights(path)
    return lambda: model.load_weights(path)


def from_archive(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    path = folder / "saved.keras"
    if not path.exists():
        model.fit(batches(job, 1), verbose=0)
        model.save(path)
    return lambda: keras.saving.load_model(path)


def from_tracked(model: keras.Model, job: Job, folder: Path) -> Callable[[], Any]:
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    if not list(folder.glob("saved.index")):
        model.fit(batches(job, 1), verbose=0)
        checkpoint.write(folder / "saved")
    return lambda: checkpoint.read(folder / "saved").assert_existing_objects_matched()


READERS: dict[str, Reader] = {
    "ours": proven, "ours_run": proven_run, "assigned": assigned, "digested": digested, "bytes": only_bytes,
    "weights": from_weights, "tf": from_tracked, "keras": from_archive,
}  # fmt: skip

TRIALS: dict[str, Callable[[Job, Path], dict[str, Any]]] = {
    "calibrated": calibrated, "trained": trained, "restored": restored, "saved": saved, "retained": retained,
}  # fmt: skip


# -- the process -------------------------------------------------------------------------------------------------------


def device() -> str:
    found = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(d).get("device_name", "GPU") for d in found]
    return ", ".join(names) or f"CPU, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    found = {"keras": keras.__version__, "tensorflow": tf.__version__, "resume": resume.__version__}
    with contextlib.suppress(ImportError):
        from importlib import metadata

        found["orbax-checkpoint"] = metadata.version("orbax-checkpoint")
    return found


def main() -> None:
    job, target = json.loads(sys.argv[1]), Path(sys.argv[2])
    logging.set_verbosity(logging.FATAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        place = Path(folder, "saved")
        place.mkdir()
        try:
            found = TRIALS[job["trial"]](job, place)
        except Exception as error:
            if os.environ.get("TRACE"):
                raise
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    target.write_text(json.dumps(found | {"device": device(), "versions": versions()}))


if __name__ == "__main__":
    main()
