"""A run directory: published whole or not at all, whatever kills the writer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import lock, rundir
from resume.errors import NoCheckpointError, RunInUseError, SourceError, UsageError
from resume.rundir import Best, Checkpoint, Directory, Retention
from resume.state import Arrays, TrainState

Make = Callable[..., TrainState]
Python = Callable[..., subprocess.Popen[str]]


def steps(run: Path) -> list[int]:
    return [c.step for c in rundir.checkpoints(run)]


def spoil(checkpoint: Path) -> None:
    """Flip one bit of the last array."""
    file = checkpoint / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


# ---- publish, list, read ----


def test_publish_and_read(tmp_path: Path, make_state: Make) -> None:
    published = rundir.publish(tmp_path, make_state(7))
    assert published.path == tmp_path / "checkpoints/step-00000007"
    assert published.nbytes == make_state(7).nbytes
    state = rundir.read(tmp_path)
    assert (state.path, state.iterations, state.epoch, state.batch) == (published.path, 7, 1, 2)
    assert state.arrays["optimizer/momentum/dense/kernel"].tolist() == [[3.5, 4], [4.5, 5], [5.5, 6]]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000007"]


def test_listed_by_step_not_by_name_or_time(tmp_path: Path, make_state: Make) -> None:
    for step in (10, 100_000_000, 9):
        rundir.publish(tmp_path, make_state(step))
    assert steps(tmp_path) == [9, 10, 100_000_000]


def test_a_second_position_at_the_same_step(tmp_path: Path, make_state: Make) -> None:
    for epoch in range(12):
        rundir.publish(tmp_path, make_state(5, epoch=epoch))
    names = [c.path.name for c in rundir.checkpoints(tmp_path)]
    assert names == ["step-00000005", *(f"step-00000005.{n}" for n in range(1, 12))]
    assert rundir.read(tmp_path).epoch == 11


def test_what_is_not_a_checkpoint_is_not_listed(tmp_path: Path, make_state: Make) -> None:
    rundir.publish(tmp_path, make_state(5))
    for name in ("step-6", "step-00000007.x", "last", ".unfinished-1", "xstep-00000008", "step-00000009~"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert steps(tmp_path) == [5]


def test_is_run(tmp_path: Path, make_state: Make) -> None:
    assert not rundir.is_run(tmp_path)
    (tmp_path / "lineage.jsonl").touch()
    assert rundir.is_run(tmp_path)
    assert rundir.newest_whole(tmp_path) == (None, [])
    with pytest.raises(SourceError, match="a run directory in which nothing has been published yet"):
        rundir.read(tmp_path)


def test_a_foreign_state_can_be_published(tmp_path: Path, make_state: Make) -> None:
    """States of other formats come without digests."""
    state = make_state(3)
    bare = {name: rundir.native.Spec(spec.dtype, spec.shape) for name, spec in state.specs.items()}
    object.__setattr__(state, "arrays", rundir.native.Arrays(bare, read=state.arrays.__getitem__))
    rundir.publish(tmp_path, state)
    assert rundir.checkpoints(tmp_path)[0].damage() == []


# ---- damage ----


def test_a_damaged_newest_is_passed_over(tmp_path: Path, make_state: Make) -> None:
    paths = [rundir.publish(tmp_path, make_state(step)).path for step in (1, 2, 3)]
    spoil(paths[2])
    (paths[1] / "manifest.json").unlink()
    found, passed = rundir.newest_whole(tmp_path)
    assert found is not None
    assert found.step == 1
    assert passed == [
        f"{paths[2]}/state.safetensors: optimizer/learning_rate is damaged, its digest does not match.",
        f"{paths[1]}: no manifest.json, so this is not a whole checkpoint.",
    ]
    assert rundir.read(tmp_path).iterations == 1


def test_all_damaged_is_an_error_and_never_a_restart(tmp_path: Path, make_state: Make) -> None:
    for step in (1, 2):
        spoil(rundir.publish(tmp_path, make_state(step)).path)
    with pytest.raises(NoCheckpointError) as raised:
        rundir.newest_whole(tmp_path)
    newest = tmp_path / "checkpoints/step-00000002/state.safetensors"
    assert str(raised.value) == (
        f"{tmp_path}: none of its 2 checkpoints is whole; the newest: {newest}: "
        "optimizer/learning_rate is damaged, its digest does not match.\n"
        "Nothing was changed. Restore one of them from a backup, or start anew in another run_dir."
    )
    assert raised.value.exit_code == 4
    assert steps(tmp_path) == [1, 2]


def test_a_damaged_one_gives_way_to_its_repair(tmp_path: Path, make_state: Make) -> None:
    """The attempt that began before it publishes the same step again, under the same name."""
    for step in (1, 2, 3):
        spoil(rundir.publish(tmp_path, make_state(step)).path)
    rundir.publish(tmp_path, make_state(2))
    assert [(c.step, c.ordinal, bool(c.damage())) for c in rundir.checkpoints(tmp_path)] == [
        (1, 0, True),
        (2, 0, False),
    ]


def test_leftovers_are_swept(tmp_path: Path, make_state: Make) -> None:
    rundir.sweep(tmp_path)  # nothing there yet
    rundir.publish(tmp_path, make_state(1))
    folder = tmp_path / "checkpoints"
    for name in (".unfinished-1", ".retired-2"):
        (folder / name).mkdir()
        (folder / name / "state.safetensors").write_bytes(b"half")
    (folder / ".mine").mkdir()
    (tmp_path / ".unfinished-3.keras").touch()
    rundir.sweep(tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert sorted(p.name for p in folder.iterdir()) == [".mine", "step-00000001"]


def test_a_failing_array_leaves_nothing(tmp_path: Path, make_state: Make) -> None:
    rundir.publish(tmp_path, make_state(1))
    with pytest.raises(
        SourceError, match=r"^model/z: safetensors has no dtype complex128; cast this variable\.$"
    ):
        rundir.publish(tmp_path, make_state(2, extra={"model/z": np.zeros(1, "complex128")}))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_failure_takes_nothing_away_from_those_it_shared_with(tmp_path: Path, make_state: Make) -> None:
    directory = Directory(tmp_path, Retention(last=9))
    frozen = {"model/base/kernel": np.ones(300_000, "float32")}
    for step in (1, 2, 3):
        directory.publish(make_state(step, extra=frozen, still=frozenset(frozen)))
    odd = {"model/z": np.zeros(1, "complex128")}
    with pytest.raises(SourceError, match="complex128"):
        directory.publish(make_state(4, extra=frozen | odd, still=frozenset(frozen)))
    found = rundir.checkpoints(tmp_path)
    assert [(c.step, c.damage()) for c in found] == [(1, []), (2, []), (3, [])]
    assert [(c.path / "still.safetensors").stat().st_nlink for c in found] == [2, 1, 2]


def test_what_this_process_has_written_is_not_read_again(tmp_path: Path, make_state: Make) -> None:
    """Nor is what it has read once: that a disk keeps its word meanwhile is not for every checkpoint to prove."""
    frozen = {"model/base/kernel": np.ones(300_000, "float32")}
    first = Directory(tmp_path, Retention(last=99))
    for step in (1, 2):
        first.publish(make_state(step, extra=frozen, still=frozenset(frozen)))
    trusted = {
        (at.st_dev, at.st_ino) for at in (p.stat() for p in tmp_path.glob("checkpoints/*/*.safetensors"))
    }
    assert len(trusted) == 4
    assert first._trusted == trusted
    second = Directory(tmp_path, Retention(last=99))
    second.publish(make_state(3, extra=frozen, still=frozenset(frozen)))
    assert len(second._trusted & trusted) == 3  # the newest, and the file that it shares with the other


# ---- retention ----


def at(*numbers: int) -> list[Checkpoint]:
    return [Checkpoint(Path(str(n)), n, 0) for n in numbers]


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(), [50, 60]),
        (Retention(last=1), [60]),
        (Retention(last=0), [60]),  # the newest always stays
        (Retention(last=9), [10, 20, 30, 40, 50, 60]),
        (Retention(last=1, every_steps=20), [20, 40, 60]),
        (Retention(last=1, every_steps=25), [30, 50, 60]),  # the first at or after 25 and 50
        (Retention(last=1, every_steps=100), [60]),
        (Retention(last=1, best=Best("val_loss")), [20, 60]),
        (Retention(last=1, best=Best("val_loss", "max")), [30, 60]),
        (Retention(last=1, best=Best("val_auc")), [60]),
        (Retention(last=2, every_steps=30, best=Best("val_loss")), [20, 30, 50, 60]),
    ],
    ids=str,
)
def test_retention(retention: Retention, kept: list[int]) -> None:
    logs = {10: {"val_loss": 3.0}, 20: {"val_loss": 1.0}, 30: {"val_loss": 4.0}, 40: {"loss": 0.0}}
    found = at(30, 10, 20, 60, 50, 40)
    gone = retention.retired(found, logs={Path(str(n)): values for n, values in logs.items()})
    assert sorted({c.step for c in found} - {c.step for c in gone}) == kept
    assert [c.step for c in gone] == sorted(c.step for c in gone)


def test_nan_is_never_the_best() -> None:
    values = {Path("1"): float("nan"), Path("2"): 2.0, Path("3"): float("inf"), Path("4"): 1.0}
    assert Best("loss", "min").of(values) == Path("4")
    assert Best("loss", "max").of(values) == Path("2")
    assert Best("loss").of({Path("1"): float("nan")}) is None


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("val_loss", Best("val_loss", "min")),
        ("val_accuracy", Best("val_accuracy", "max")),
        ("val_f1", Best("val_f1", "max")),
        ("min:val_accuracy", Best("val_accuracy", "min")),
        ("max:reward", Best("reward", "max")),
        (None, None),
    ],
)
def test_best_by_name(text: str | None, best: Best | None) -> None:
    assert Best.named(text) == best


def test_best_in_no_known_mode() -> None:
    with pytest.raises(
        UsageError, match=r"^checkpoint\.keep_best: 'best:loss' begins with neither min: nor max:\.$"
    ):
        Best.named("best:loss")


def test_a_directory_retires_as_it_publishes(tmp_path: Path, make_state: Make) -> None:
    directory = Directory(tmp_path, Retention(last=2, every_steps=4))
    listed = []
    for step in range(1, 10):
        directory.publish(make_state(step))
        listed.append(steps(tmp_path))
    assert listed[:4] == [[1], [1, 2], [2, 3], [3, 4]]
    assert listed[-1] == [4, 8, 9]
    assert all(not p.name.startswith(".") for p in (tmp_path / "checkpoints").iterdir())


def test_the_best_stays(tmp_path: Path, make_state: Make) -> None:
    """Epoch logs come from the manifests, which also hold what only the arrays can complete."""
    directory = Directory(tmp_path, Retention(last=1, best=Best("val_loss")))
    values: list[Any] = [{"$float": "nan"}, 3.0, 1.0, 2.0, {"$float": "inf"}]
    for step, value in enumerate(values, start=1):
        progress: dict[str, Any] = {"rng": {"python": {"$array": "rng/0"}}, "epoch_logs": {"val_loss": value}}
        directory.publish(make_state(step, progress=progress, extra={"rng/0": np.zeros(3, "uint32")}))
    assert steps(tmp_path) == [3, 5]
    (tmp_path / "checkpoints/step-00000003/manifest.json").write_text("{}")
    directory.publish(make_state(6, progress={"epoch_logs": None}))
    assert steps(tmp_path) == [6]  # what cannot be read is the best of nothing


# ---- a successor ----


def test_a_checkpoint_that_a_successor_has_swept_away(tmp_path: Path, make_state: Make) -> None:
    """Its writer stood still while it wrote: it is told of the successor, and of no missing file."""
    with lock.held(tmp_path) as claim:
        whole = make_state(1).arrays

        def read(name: str) -> Any:
            (tmp_path / "owner.json").write_text('{"token": "other", "host": "elsewhere", "pid": 1}')
            rundir.sweep(tmp_path)
            return whole[name]

        state = dataclasses.replace(make_state(1), arrays=Arrays(whole.specs, read=read))
        with pytest.raises(RunInUseError, match="taken over by another process \\(host elsewhere, pid 1,"):
            Directory(tmp_path, guard=claim.publishing).publish(state)
    assert rundir.checkpoints(tmp_path) == []


def test_nothing_is_retired_for_a_successor(tmp_path: Path, make_state: Make) -> None:
    """Its writer stood still after the renaming."""
    for step in (1, 2):
        rundir.publish(tmp_path, make_state(step))
    guards = iter([contextlib.nullcontext()])  # a second one there is not
    with pytest.raises(StopIteration):
        Directory(tmp_path, Retention(last=1), guard=lambda: next(guards)).publish(make_state(3))
    assert steps(tmp_path) == [1, 2, 3]


# ---- kills and full disks, in real processes ----

KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
from resume import rundir
from resume.state import Arrays, TrainState

run, kills = Path(sys.argv[1]), int(sys.argv[2])
directory = rundir.Directory(run, rundir.Retention(last=3, every_steps=50))

def publish_on():
    step = (steps() or [0])[-1]
    while True:
        step += 1
        weights = {f"model/{i}": np.full(20_000, step + i, "float32") for i in range(5)}
        frozen = {"model/frozen": np.ones(300_000, "float32")}  # a file that checkpoints share
        arrays = Arrays.of({"optimizer/iteration": np.asarray(step), **weights, **frozen})
        still = frozenset(frozen)
        directory.publish(TrainState(format="native", path=Path(), arrays=arrays, epoch=0, batch=step, still=still))

def steps():
    return [c.step for c in rundir.checkpoints(run)]

random.seed(0)
for _ in range(kills):
    pid = os.fork()
    if pid == 0:
        publish_on()
    time.sleep(random.uniform(0.005, 0.1))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    hidden = sum(p.name.startswith(".") for p in run.glob("checkpoints/*"))
    damage = [line for c in rundir.checkpoints(run) for line in c.damage()]
    print(json.dumps({"steps": steps(), "damage": damage, "hidden": hidden}))
"""


def test_sigkill_at_any_moment_leaves_every_listed_checkpoint_whole(tmp_path: Path, python: Python) -> None:
    process = python(KILLED, tmp_path, 30)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    reports = [json.loads(line) for line in out.splitlines()]
    assert len(reports) == 30
    assert [r["damage"] for r in reports] == [[]] * 30
    newest = [r["steps"][-1] for r in reports if r["steps"]]
    assert newest == sorted(newest)
    assert newest[-1] > 3
    assert reports[-1]["hidden"] > 0  # the kills did hit writers half-way
    rundir.sweep(tmp_path)
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(".")]
    assert rundir.read(tmp_path).arrays["model/4"][0] == newest[-1] + 4
    files = [p / "still.safetensors" for p in (tmp_path / "checkpoints").iterdir()]
    assert len({file.stat().st_ino for file in files}) < len(files)  # and the writers did share


def test_a_look_from_outside_never_trips_over_a_publication(tmp_path: Path) -> None:
    assert not rundir.being_written(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    done = threading.Event()

    def publish_on() -> None:
        for step in range(3_000):
            begun = folder / f".unfinished-{step}"
            begun.mkdir()
            (begun / "state.safetensors").touch()
            begun.rename(folder / f"step-{step:08d}")
            shutil.rmtree(folder / f"step-{step:08d}")
        done.set()

    threading.Thread(target=publish_on).start()
    seen = set()
    while not done.is_set():
        seen.add(rundir.being_written(tmp_path))
    assert seen == {True, False}


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from resume import rundir
from resume.state import Arrays, TrainState

def publish(step, count):
    arrays = Arrays.of({"optimizer/iteration": np.asarray(step), "model/w": np.full(count, step, "float32")})
    rundir.publish(Path(sys.argv[1]), TrainState(format="native", path=Path(), arrays=arrays))

publish(1, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    publish(2, 100_000)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("limit", [0, 100, 100_000, 399_999])
def test_a_full_disk_leaves_what_was_published(tmp_path: Path, python: Python, limit: int) -> None:
    process = python(FULL, tmp_path, limit)
    assert process.communicate(timeout=60)[0] == "File too large\n"
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert rundir.read(tmp_path).arrays["model/w"].tolist() == [1.0] * 10
