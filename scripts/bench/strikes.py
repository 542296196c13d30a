"""One process of scripts/bench/faults: `strikes.py WAY FOLDER`, faults as JSON on stdin, a line of JSON for each.

It imports TensorFlow and starts nothing of it; every training, and every one that resumes it, is a fork, which ends
with it. What a fault needs (a small file system, a preloaded library) and is not there, is said in each of its lines.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import re
import resource
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

os.environ.update(
    CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow",
    TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1",
)  # fmt: skip

import keras
import numpy as np
import tensorflow as tf
import ways
import xxhash
from stamps import committed
from ways import WAYS, Training

import resume.engine.face
import resume.engine.launch  # noqa: F401  (imported once, and not by each fork)
from resume import rundir

UNITS, LAYERS, BATCH = 160, 3, 8  # 0.93 MB of state with Adam
EVERY, STEPS = 4, 28
PAUSE = (
    0.008  # seconds that each step takes longer, so that a checkpoint is written while several steps are done
)
LAST = 5  # the checkpoint that is struck at the latest: others follow, which may be written or not
AIMED = 0.75  # of the faults fall into the time in which a checkpoint is written, or shortly after it
SMALL = 16 << 20  # bytes of the file system that gets full
LITTLE = 16 << 10  # bytes: half of the limits are below that, for the small files
PATIENCE = 30.0  # seconds for one step, or for all of a resumption
ERRORS = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EFBIG, errno.EIO)}

_CLONE_NEWNS = 0x00020000

Tell = Callable[[bytes], Any]
Table = dict[int, str]  # the digest of the state by its step


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
    """The step that the optimizer claims, and the digest of all variables."""
    found = xxhash.xxh3_128()
    for variable in ways.variables(model):
        array = np.ascontiguousarray(variable)
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(array.tobytes())
    return f"{int(model.optimizer.iterations)} {found.hexdigest()}\n".encode()


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
    found = committed(training.folder, "[0-9]*")
    tell(told(keras.saving.load_model(training.folder) if found else training.model))


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


# -- forks -------------------------------------------------------------------------------------------------------------


class Child:
    """A fork that does a task. `told`: what the task tells; `said`: its output.

    Both are pipes: a file would be as full as the disk, and no larger than the limit, which the child is to speak of.
    """

    def __init__(self, task: Callable[[Tell], Any]) -> None:
        (self.told, tell), (self._said, say) = os.pipe(), os.pipe()
        fcntl.fcntl(say, fcntl.F_SETPIPE_SZ, 1 << 20)  # so that nobody has to read it in the meantime
        self.pid = os.fork()
        if self.pid == 0:
            _inside(lambda: task(lambda data: os.write(tell, data)), say)
        os.close(tell)
        os.close(say)
        self.code: int | None = None
        self.said = ""

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        os.close(self.told)

    def hear(self, seconds: float) -> bytes | None:
        """What it tells next, nothing once it is over; None where it has not told within that time."""
        ready, _, _ = select.select([self.told], [], [], seconds)
        return os.read(self.told, 1 << 16) if ready else None

    def rest(self) -> bytes:
        parts = []
        while part := self.hear(PATIENCE):
            parts.append(part)
        if part is None:
            raise TimeoutError(f"no word for {PATIENCE:.0f} s")
        return b"".join(parts)

    def answer(self) -> bytes:
        """All that it tells; nothing where it takes too long."""
        try:
            told = self.rest()
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            told = b""
        self.end()
        return told

    def end(self) -> None:
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with os.fdopen(self._said, "rb") as said:
            self.said = said.read().decode(errors="replace")


def _inside(task: Callable[[], Any], say: int) -> NoReturn:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody is left behind
    os.dup2(say, 1)
    os.dup2(say, 2)
    code = 0
    try:
        task()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class Orders:
    """What failing.c is told, in memory that is shared with forks."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def obey(self, folder: Path) -> None:
        """In the fork: from now on its calls are counted, if the library was preloaded."""
        begin = getattr(ctypes.CDLL(None), "failing_begin", None)
        if begin is not None:
            self._held = ctypes.c_char.from_buffer(self._memory)
            begin(ctypes.c_void_p(ctypes.addressof(self._held)), os.fsencode(folder))

    def give(self, *, after: int, error: int, lasting: bool) -> None:
        """Let the `after`th call from now on fail."""
        struct.pack_into("2q", self._memory, 16, error, lasting)
        struct.pack_into("q", self._memory, 8, self.calls + after)

    @property
    def calls(self) -> int:
        return int(struct.unpack_from("q", self._memory, 0)[0])

    @property
    def failed(self) -> int:
        return int(struct.unpack_from("q", self._memory, 32)[0])

    @property
    def first(self) -> str:
        """The call that failed first."""
        return self._memory[40:296].split(b"\0")[0].decode()


def is_preloaded() -> bool:
    return hasattr(ctypes.CDLL(None), "failing_begin")


# -- a training, seen from outside -------------------------------------------------------------------------------------


@dataclass
class Seen:
    """`steps`: that have ended; `published`: steps of all checkpoints that were there at some step's end."""

    way: str
    folder: Path
    child: Child
    steps: int = 0
    published: set[int] = field(default_factory=set)

    def until(self, step: int) -> bool:
        """Wait for that step's end. Whether it came to that."""
        while self.steps < step:
            heard = self.child.hear(PATIENCE)
            if heard is None:
                raise TimeoutError(f"no step for {PATIENCE:.0f} s")
            if not heard:
                return False
            self._count(heard)
        return True

    def now(self) -> None:
        """Count what has ended up to now."""
        while heard := self.child.hear(0):
            self._count(heard)

    def _count(self, heard: bytes) -> None:
        self.steps += len(heard)
        self.look()

    def look(self) -> None:
        self.published |= published(self.way, self.folder)

    @property
    def due(self) -> int:
        """The last step after which a checkpoint was due."""
        return self.steps // EVERY * EVERY

    def kill(self) -> None:
        os.kill(self.child.pid, signal.SIGKILL)
        self.finish()

    def finish(self) -> None:
        self.until(STEPS + 1)
        self.child.end()
        self.look()


@dataclass(frozen=True)
class Pace:
    """What an undisturbed run of a way tells. `seconds`: from the step until its checkpoint is published."""

    seconds: float
    calls: int  # that write, a checkpoint
    bytes: int  # a checkpoint
    largest: int  # bytes of the largest file


# -- faults ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """`due`: the last checkpoint that was due at the fault, or the first that it kept from being published.

    `hit`: whether there is one that was due and never published; `lost`: intervals between `due` and what came back.
    `told`: whether the user heard of a failing write; None where no write has failed. `refused`: the first of them.
    """

    due: int
    restored: int | None
    hit: bool
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
        self.way, self.folder, self.count = way, folder, 0
        self.orders = Orders()
        self.small = ""  # why there is no small file system
        try:
            (folder / "small").mkdir()
            mount(folder / "small")
        except (OSError, subprocess.CalledProcessError) as error:
            self.small = f"no tmpfs can be mounted: {getattr(error, 'stderr', None) or error}".strip()
        self.truth = truth()
        self.pace = self._paced()
        self.whole = self._trained()

    # -- the runs that nothing disturbs --

    def _paced(self) -> Pace:
        """Also warms up what the first run has to read."""
        taken = []
        with self._started(self._place()) as seen:
            for step in range(EVERY, STEPS, EVERY):
                seen.until(step)
                started = time.perf_counter()
                while (
                    step not in published(self.way, seen.folder) and time.perf_counter() < started + PATIENCE
                ):
                    time.sleep(2e-4)
                taken.append(time.perf_counter() - started)
            seen.kill()
            files = [file.stat().st_size for file in newest_files(self.way, seen.folder)]
            calls = self.orders.calls // (STEPS // EVERY)
            return Pace(statistics.median(taken[1:]), max(calls, 1), sum(files), max(files))

    def _trained(self) -> Path:
        """A run that was killed while nothing was being written."""
        with self._started(self._place()) as seen:
            seen.until(STEPS - 1)
            time.sleep(5 * self.pace.seconds)
            seen.kill()
            return seen.folder

    def _place(self, within: str = ".") -> Path:
        self.count += 1
        return self.folder / within / f"run-{self.count}"

    @contextlib.contextmanager
    def _started(self, folder: Path, *, on_failure: str = "stop", to_its_end: bool = False) -> Iterator[Seen]:
        """Otherwise it stands still before its last step, to be killed."""
        self.orders = Orders()

        def task(tell: Tell) -> None:
            ways.OURS["on_failure"] = on_failure
            self.orders.obey(folder)
            WAYS[self.way].fit(training(folder), [Beat(lambda model: beat(model, tell))])

        def beat(model: keras.Model, tell: Tell) -> None:
            time.sleep(PAUSE)
            tell(b".")
            if not to_its_end and int(model.optimizer.iterations) == STEPS - 1:
                time.sleep(PATIENCE)

        folder.mkdir()
        with Child(task) as child:
            yield Seen(self.way, folder, child)

    # -- one fault --

    def outcome(self, fault: dict[str, Any]) -> Outcome:
        rng = random.Random(fault["seed"])
        if fault["kind"] == "flipped":
            return self._flipped(rng)
        if fault["kind"] == "full" and self.small:
            raise RuntimeError(self.small)
        if fault["kind"] == "refused" and not is_preloaded():
            raise RuntimeError("no library is preloaded that makes writes fail")
        folder = self._place("small" if fault["kind"] == "full" else ".")
        try:
            return self._struck(fault, folder, rng)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _struck(self, fault: dict[str, Any], folder: Path, rng: random.Random) -> Outcome:
        step, seconds = self._moment(rng)
        to_its_end = self.way == "ours"  # others remove their checkpoints there
        with self._started(folder, on_failure=fault["on_failure"], to_its_end=to_its_end) as seen:
            if seen.until(step):
                time.sleep(seconds)
                seen.now()
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
        failed = bool(missing) if fault["kind"] != "refused" else self.orders.failed > 0
        heard = was_told(seen.child, must_stop=bool(missing) and fault["on_failure"] == "stop")
        return self._judged(
            seen,
            due=max(due, missing[0]) if missing else due,
            hit=bool(missing),
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
            limit = rng.randrange(rng.choice([self.pace.largest, LITTLE]))
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                resource.prlimit(seen.child.pid, resource.RLIMIT_FSIZE, (limit, limit))
        elif kind == "refused":
            number, lasting = rng.choice([(errno.EIO, False), (errno.EIO, True), (errno.ENOSPC, True)])
            self.orders.give(after=rng.randint(1, self.pace.calls), error=number, lasting=lasting)

    def _see_off(self, seen: Seen, *, to_its_end: bool) -> None:
        """To its end, or until it waits to be killed and nothing is being written."""
        if to_its_end or not seen.until(STEPS - 1):
            seen.finish()
            return
        time.sleep(5 * self.pace.seconds)
        seen.kill()

    def _flipped(self, rng: random.Random) -> Outcome:
        folder, self.orders = self._place(), Orders()
        shutil.copytree(self.whole, folder)
        try:
            damage(rng.choice(newest_files(self.way, folder)), rng)
            seen = Seen(
                self.way, folder, Child(lambda tell: None), STEPS - 1, published(self.way, self.whole)
            )
            with seen.child:
                seen.child.end()
            return self._judged(seen, due=max(seen.published), hit=False, told=None)
        finally:
            shutil.rmtree(folder)

    # -- what is left --

    def _judged(self, seen: Seen, *, due: int, hit: bool, told: bool | None) -> Outcome:
        with Child(lambda tell: RESTORES[self.way](training(seen.folder), tell)) as child:
            words = child.answer().split()
        restored, digest = (int(words[0]), words[1].decode()) if words else (None, "")
        wrong = restored is not None and (
            self.truth.get(restored) != digest or (restored == 0 and bool(seen.published))
        )
        said = child.said if restored is None or wrong else seen.child.said if told is False else ""
        unusable = restored is None
        return Outcome(due, restored, hit, unusable, wrong, told, self.orders.first, reason(said))


def was_told(child: Child, *, must_stop: bool) -> bool:
    """Whether it has named the error, and not as if all were well: its code says so, unless it was to go on."""
    return any(text in child.said for text in ERRORS.values()) and (child.code != 0 or not must_stop)


def reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or [""])[-1][:300]


def truth() -> Table:
    """Of a training that nothing is kept of."""

    def task(tell: Tell) -> None:
        model = dense()
        tell(told(model))
        model.fit(batches(), verbose=0, callbacks=[Beat(lambda model: tell(told(model)))])

    with Child(task) as child:
        lines = child.rest().decode().splitlines()
        child.end()
    found = {int(step): digest for step, digest in map(str.split, lines)}
    assert len(set(found.values())) == STEPS + 1, child.said
    return found


def mount(folder: Path) -> None:
    """In a name space of mounts that this process makes its own, with which it is gone however that ends."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True, capture_output=True, text=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "faults", folder]
    subprocess.run(command, check=True, capture_output=True, text=True)


def fill(ballast: Path, *, leave: int) -> None:
    """Until no more than that is free, whatever others write and remove at the same time."""
    with ballast.open("wb") as file:
        size = 0
        while True:
            facts = os.statvfs(ballast)
            free = facts.f_bavail * facts.f_frsize
            if free <= leave:
                return
            with contextlib.suppress(OSError):  # what was free is taken by now
                os.posix_fallocate(file.fileno(), size, free - leave)
                size += free - leave


def damage(file: Path, rng: random.Random) -> None:
    """One bit, mostly; or its end cut off; or one block of zeros."""
    data = bytearray(file.read_bytes())
    kind, at = rng.random(), rng.randrange(len(data))
    block = slice(at // 4096 * 4096, (at // 4096 + 1) * 4096)
    if kind < 0.15:
        del data[at:]
    elif kind < 0.3 and any(data[block]):
        data[block] = bytes(len(data[block]))
    else:
        data[at] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


# -- the process -------------------------------------------------------------------------------------------------------


def main() -> None:
    way, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    results = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # progress bars and whatever else a library prints
    warnings.simplefilter("ignore")
    bench = Bench(way, folder)
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
