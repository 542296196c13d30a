"""Uploads behind the training: what a server may do, and what a kill may do, and what is there afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resume import contents, rundir, tiers
from resume.errors import RunInUseError
from resume.formats import native
from resume.rundir import Best, Directory, Retention
from resume.state import TrainState
from resume.storage import Remote
from resume.uploading import Uploader
from tests.buckets import Server

Make = Callable[..., TrainState]
Python = Callable[..., subprocess.Popen[str]]
PAUSES = (0.1, 0.5)


class Run:
    """A local tier that publishes, its uploads, and all that was said."""

    def __init__(self, url: str, path: Path, make_state: Make, retention: Retention | None = None) -> None:
        self.url, self.path, self.make_state = url, path, make_state
        self.retention = retention or Retention(last=2)
        self.said: list[str] = []
        self.directory = Directory(path, self.retention)
        path.mkdir(exist_ok=True)

    def begin(self, **facts: object) -> Uploader:
        given = {"retention": self.retention, "say": self.said.append, "pauses": PAUSES} | facts
        self.uploads = Uploader(Remote(self.url), self.path, **given).start()  # type: ignore[arg-type]
        return self.uploads

    def publish(self, step: int, **facts: object) -> Path:
        path = self.directory.publish(self.make_state(step, **facts)).path
        self.uploads.published()
        return path

    @property
    def here(self) -> list[int]:
        return [c.step for c in rundir.checkpoints(self.path)]

    @property
    def there(self) -> list[int]:
        return [c.step for c in Remote(self.url).checkpoints()]


@pytest.fixture
def run(kept: str, tmp_path: Path, make_state: Make) -> Run:
    return Run(f"{kept}/runs/a", tmp_path / "run", make_state)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def whole(url: str, folder: Path) -> list[int]:
    """The steps of the remote checkpoints; every one of them must be whole."""
    remote = Remote(url)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for checkpoint in remote.checkpoints():
        remote.copy(checkpoint.path.name, folder)
    found = rundir.checkpoints(folder)
    assert [c.damage() for c in found] == [[] for _ in found]
    return [c.step for c in found]


# ---- in good weather ----


def test_the_remote_tier_becomes_like_the_local_one(run: Run, tmp_path: Path) -> None:
    uploads = run.begin()
    for step in range(1, 6):
        run.publish(step)
    assert uploads.finish(60) is None
    assert (run.here, whole(run.url, tmp_path / "copy")) == ([4, 5], [4, 5])
    assert uploads.behind == ()
    assert run.said == []
    remote = Remote(run.url)
    named = {s for c in remote.checkpoints() for s in contents.ids(remote.manifest(c.path.name)).values()}
    assert {name.rpartition("/")[2] for name in remote.objects.sizes("shards")} == named
    assert [p.name for p in run.path.iterdir()] == ["checkpoints"]


def test_the_same_retention_in_both_tiers(kept: str, tmp_path: Path, make_state: Make) -> None:
    """A new machine fetches one checkpoint only; that is no reason to remove the others from the remote tier."""
    retention = Retention(last=1, every_steps=3, best=Best("val_loss"))
    values = {1: 4.0, 2: 1.0, 3: 3.0, 4: 2.0, 5: 5.0}
    first = Run(kept, tmp_path / "first", make_state, retention)
    first.begin()
    for step, value in values.items():
        first.publish(step, progress={"epoch_logs": {"val_loss": value}})
        assert first.uploads.finish(60) is None
        first.begin()
    assert first.here == first.there == [2, 3, 5]
    assert first.uploads.finish(60) is None
    second = Run(kept, tmp_path / "second", make_state, retention)
    Remote(kept).fetch("step-00000005", second.path)
    second.begin()
    second.publish(8, progress={"epoch_logs": {"val_loss": 9.0}})
    assert second.uploads.finish(60) is None
    assert second.there == [2, 3, 8]


def test_what_the_remote_tier_has_outgrown_is_not_sent(run: Run, tmp_path: Path) -> None:
    """An old checkpoint of this machine, which retention keeps here only because newer ones are elsewhere."""
    remote = Remote(run.url)
    for step in (5, 6):
        remote.upload(rundir.publish(tmp_path / "other", run.make_state(step)).path)
    rundir.publish(run.path, run.make_state(3))
    remote.fetch("step-00000006", run.path)
    assert run.begin().finish(60) is None
    assert (run.here, run.there, run.uploads.sent) == ([3, 6], [5, 6], 0)


def test_what_is_there_already_is_not_sent_again(run: Run) -> None:
    run.begin()
    path = run.publish(1)
    assert run.uploads.finish(60) is None
    size = sum(f.stat().st_size for f in path.iterdir()) - (path / "manifest.json").stat().st_size
    assert run.uploads.sent == size
    assert run.begin().finish(60) is None
    assert run.uploads.sent == 0


def test_logs_go_before_the_checkpoint_that_continues_them(run: Run) -> None:
    run.begin(demand=lambda: logs.append((run.there, Remote(run.url).files())))
    logs: list[tuple[list[int], list[str]]] = []
    (run.path / "log.csv").write_text("epoch\n")
    run.publish(1)
    assert run.uploads.finish(60) is None
    first = next(files for steps, files in logs if files)
    assert first == ["log.csv"]
    assert all(files == ["log.csv"] for steps, files in logs if steps)
    (run.path / "log.csv").write_text("epoch\n1\n")
    assert run.begin().finish(60) is None
    assert Remote(run.url).objects.read("log.csv") == b"epoch\n1\n"


def test_a_damaged_local_checkpoint_stays_here(run: Run) -> None:
    path = rundir.publish(run.path, run.make_state(1)).path
    with (path / "state.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    rundir.publish(run.path, run.make_state(2))
    assert run.begin().finish(60) is None  # nothing is left that could be sent
    assert run.there == [2]
    assert len(run.said) == 1
    assert run.said[0].startswith(f"{path}/state.safetensors: damaged, bytes ")


# ---- retired meanwhile ----


def test_retired_beneath_its_upload(kept: str, tmp_path: Path, make_state: Make) -> None:
    """The files stay as long as they are needed, and go then."""
    run = Run(kept, tmp_path / "run", make_state, Retention(last=1))
    entered, go_on = threading.Event(), threading.Event()

    def demand() -> None:
        if run.path.joinpath("checkpoints").is_dir() and list(run.path.glob(".uploading-*")):
            entered.set()
            go_on.wait(30)

    run.begin(demand=demand)
    run.publish(1)
    assert entered.wait(30)
    run.publish(2)
    assert run.here == [2]
    go_on.set()
    until(lambda: run.there == [2])
    assert run.uploads.finish(60) is None
    assert run.said == []
    assert run.uploads.sent > 2 * 500  # both were sent: the first was not torn off
    assert [p.name for p in run.path.iterdir()] == ["checkpoints"]


def test_without_hard_links_the_next_one_goes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file system is not to be had here: the call says what it would say there."""
    monkeypatch.setattr(os, "link", _no_links)
    begun = threading.Event()

    def demand() -> None:
        if 1 in run.here and not begun.is_set():
            begun.set()
            until(lambda: 1 not in run.here)

    run.begin(demand=demand)
    for step in (1, 2, 3):
        run.publish(step)
        assert begun.wait(30)
    assert run.uploads.finish(60) is None
    assert run.there == run.here == [2, 3]
    assert run.said == []


def _no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_what_a_killed_attempt_left_linked_goes(run: Run) -> None:
    left = run.path / ".uploading-1"
    left.mkdir()
    (left / "state.safetensors").touch()
    assert run.begin().finish(60) is None
    assert not left.exists()


# ---- a server that is away ----


def test_killed_and_restarted_in_the_middle(run: Run, keeping: Server, tmp_path: Path) -> None:
    """Three times, with the training going on all the while."""
    big = {"model/big": np.random.default_rng(0).normal(size=1 << 20)}
    armed, killed = threading.Event(), threading.Event()

    def demand() -> None:
        if armed.is_set() and list(run.path.glob(".uploading-*")):
            armed.clear()
            keeping.kill()
            killed.set()

    run.begin(demand=demand)
    for step in range(1, 13):
        if step % 4 == 2:
            armed.set()
        run.publish(step, extra=big | {"model/step": np.full(1 << 18, step)})
        if step % 4 == 2:
            assert killed.wait(30)
            killed.clear()
        time.sleep(0.3)
        if step % 4 == 0:
            assert run.uploads.behind
            keeping.start()
    assert run.uploads.finish(60) is None
    assert whole(run.url, tmp_path / "copy") == run.here == [11, 12]
    waits = [line for line in run.said if line.startswith("uploads wait, and are tried again: s3://")]
    assert len(waits) <= 3  # an outage that the retries of the library outlast is none
    assert run.said[1::2] == [f"{run.url}: uploads go on, and have caught up"] * len(waits)


def test_restarted_and_empty(forgetful: Server, tmp_path: Path, make_state: Make) -> None:
    """Everything that is kept here goes there again."""
    forgetful.start()
    run = Run(f"{forgetful.make('bucket')}/a", tmp_path / "run", make_state)
    run.begin()
    (run.path / "log.csv").write_text("epoch\n")
    for step in (1, 2):
        run.publish(step)
    until(lambda: not run.uploads.behind)
    forgetful.kill()
    run.publish(3)
    until(lambda: bool(run.said))
    forgetful.start()
    forgetful.make("bucket")
    assert run.uploads.finish(60) is None
    assert whole(run.url, tmp_path / "copy") == [2, 3]
    assert Remote(run.url).files() == ["log.csv"]


def test_started_late(forgetful: Server, tmp_path: Path, make_state: Make) -> None:
    run = Run("s3://bucket/a", tmp_path / "run", make_state)
    run.begin()
    for step in range(1, 4):
        run.publish(step)
        time.sleep(0.5)
    assert run.uploads.behind == ("step-00000002", "step-00000003")
    until(lambda: bool(run.said))
    forgetful.start()
    time.sleep(1)  # a server without the bucket is trouble, too
    forgetful.make("bucket")
    assert run.uploads.finish(60) is None
    assert run.there == [2, 3]
    assert len(run.said) == 2


def test_a_server_that_hangs_costs_the_training_nothing(run: Run, keeping: Server) -> None:
    run.begin()
    run.publish(1)
    until(lambda: not run.uploads.behind)
    keeping.pause()
    began = time.perf_counter()
    for step in range(2, 7):
        path = run.directory.publish(run.make_state(step)).path
        assert path.name in run.uploads.behind
        begun = time.perf_counter()
        run.uploads.published()
        assert time.perf_counter() - begun < 1
    assert run.here == [5, 6]
    assert time.perf_counter() - began < 20  # and a request would hang for a minute
    sentence = run.uploads.finish(0.5)
    assert sentence == (
        f"{run.url}: behind by 2 checkpoints (step-00000005, step-00000006), which are in {run.path} on this machine "
        "only"
    )
    keeping.go_on()
    run.uploads._thread.join(60)
    assert 6 not in run.there  # abandoned: its manifest never comes, though the process lives


def test_lagging_is_said_once(kept: str, tmp_path: Path, make_state: Make) -> None:
    run = Run(kept, tmp_path / "run", make_state, Retention(last=9))
    gate = threading.Event()
    run.begin(demand=lambda: gate.wait(60))
    for step in range(1, 6):
        run.publish(step)
    assert run.said == [f"{kept}: uploads lag, 3 checkpoints are on this machine only"]
    gate.set()
    assert run.uploads.finish(60) is None
    assert run.said[1:] == [f"{kept}: uploads go on, and have caught up"]
    assert run.there == [1, 2, 3, 4, 5]


# ---- another process ----


def test_taken_over_by_another_process(run: Run) -> None:
    taken = threading.Event()

    def demand() -> None:
        if taken.is_set():
            raise RunInUseError("taken over")

    run.begin(demand=demand)
    run.publish(1)
    until(lambda: not run.uploads.behind)
    taken.set()
    run.publish(2)
    sentence = run.uploads.finish(60)
    assert isinstance(run.uploads.lost, RunInUseError)
    assert sentence is not None
    assert "behind by 1 checkpoints (step-00000002)" in sentence
    assert (run.said, run.there, run.here) == (["taken over"], [1], [1, 2])


def test_newer_ones_that_are_damaged_push_out_none(kept: str, tmp_path: Path, make_state: Make) -> None:
    first = Run(kept, tmp_path / "first", make_state)
    first.begin()
    for step in (10, 20, 30):
        first.publish(step)
    assert first.uploads.finish(60) is None
    remote = Remote(kept)
    remote.objects.write("checkpoints/step-00000030/manifest.json", b"{")
    other = Run(kept, tmp_path / "other", make_state)
    assert len(tiers.bring(Remote(kept), other.path)) == 1
    other.begin()
    for step in (21, 22, 23):
        other.publish(step)
        until(lambda: other.uploads._reached == other.uploads._asked)
    assert (other.here, other.there) == ([22, 23], [22, 23, 30])
    for step in (30, 31):
        other.publish(step)
    assert other.uploads.finish(60) is None
    assert (whole(kept, tmp_path / "copy"), other.said) == ([30, 31], [])


def test_a_server_that_came_back_empty_while_nobody_looked(
    forgetful: Server, tmp_path: Path, make_state: Make
) -> None:
    forgetful.start()
    run = Run(forgetful.make("bucket"), tmp_path / "run", make_state, Retention(last=1, every_steps=2))
    run.begin()
    (run.path / "log.csv").write_text("epoch")
    for step in (2, 3):
        run.publish(step)
    until(lambda: run.uploads._reached == run.uploads._asked)
    for publishes in (True, False):
        forgetful.kill()
        forgetful.start()
        forgetful.make("bucket")
        if publishes:
            run.publish(5)
        else:
            run.uploads.published()
        until(lambda: run.uploads._reached == run.uploads._asked)
        assert (run.here, whole(run.url, tmp_path / "copy")) == ([2, 5], [2, 5])
        assert Remote(run.url).files() == ["log.csv"]
    assert run.uploads.finish(60) is None
    assert run.said == []


def test_nobody_listens(run: Run, keeping: Server) -> None:
    """The log's disk is full, say."""

    def say(line: str) -> None:
        raise OSError(28, "No space left on device")

    run.begin(say=say)
    keeping.kill()
    run.publish(1)
    until(lambda: run.uploads.troubled)
    keeping.start()
    assert run.uploads.finish(60) is None
    assert run.there == [1]

    def taken() -> None:
        raise RunInUseError("taken over")

    uploads = run.begin(say=say, demand=taken)
    run.publish(2)
    until(lambda: uploads.lost is not None)


# ---- kills ----

KILLED = """
import os, sys, time, signal, random, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of the fork: this process has no threads of its own
from pathlib import Path
import numpy as np
from resume import rundir
from resume.rundir import Directory, Retention
from resume.state import Arrays, TrainState
from resume.storage import Remote
from resume.uploading import Uploader

def train(url, run, told):
    retention = Retention(last=2)
    directory = Directory(run, retention)
    rundir.sweep(run)
    uploads = Uploader(Remote(url), run, retention=retention, say=lambda line: None).start()
    step = max((c.step for c in rundir.checkpoints(run)), default=0)
    frozen = np.arange(1 << 18)
    os.write(told, b".")
    said = False
    while True:
        if uploads.sent and not said:
            said = os.write(told, b".")
        step += 1
        moving = np.full(1 << 19, step)
        arrays = {"model/frozen": frozen, "model/w": moving, "optimizer/iteration": np.asarray(step)}
        directory.publish(TrainState(format="native", path=Path(), arrays=Arrays.of(arrays), epoch=0, batch=step))
        uploads.published()

def look(url, copy):
    remote = Remote(url)
    for checkpoint in remote.checkpoints():
        remote.copy(checkpoint.path.name, copy)
    found = rundir.checkpoints(copy)
    for checkpoint in found:
        for line in checkpoint.damage():
            print(line)
    print("newest", found[-1].step if found else 0, "of", len(found), flush=True)

def child(work, *arguments):
    pid = os.fork()
    if not pid:
        try:
            work(*arguments)
        finally:
            os._exit(0)
    return pid

url, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
moments = random.Random(5)
for kill in range(kills):
    reads, writes = os.pipe()
    pid = child(train, url, folder / "run", writes)
    os.read(reads, 1)
    if kill % 2:
        os.read(reads, 1)  # on a busy machine none would come that far
    time.sleep(moments.uniform(0, 1.0))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.waitpid(child(look, url, folder / f"copy{kill}"), 0)
"""


@pytest.mark.slow
def test_thirty_kills(kept: str, tmp_path: Path, python: Python) -> None:
    """A process that publishes and uploads without a pause, killed at random: no marker without its files, ever."""
    (tmp_path / "run").mkdir()
    said = python(KILLED, kept, tmp_path, 30).communicate(timeout=300)[0].splitlines()
    assert [line for line in said if not line.startswith("newest ")] == []
    steps = [int(line.split()[1]) for line in said]
    assert len(steps) == 30
    assert steps == sorted(steps)
    assert steps[-1] > 10
    assert native.holds(rundir.checkpoints(tmp_path / "run")[-1].path)
    uploads = Uploader(Remote(kept), tmp_path / "run", retention=Retention(last=2)).start()
    assert uploads.finish(60) is None
    remote = Remote(kept)
    named = {s for c in remote.checkpoints() for s in contents.ids(remote.manifest(c.path.name)).values()}
    remote.sweep()
    assert {name.rpartition("/")[2] for name in remote.objects.sizes("shards")} == named


def test_a_hanging_thread_does_not_keep_the_process(run: Run, keeping: Server, python: Python) -> None:
    """The process leaves at its deadline, whatever the server does."""
    rundir.publish(run.path, run.make_state(1))
    keeping.pause()
    code = """
import sys
from pathlib import Path
from resume.rundir import Retention
from resume.storage import Remote
from resume.uploading import Uploader
print(Uploader(Remote(sys.argv[1]), Path(sys.argv[2]), retention=Retention()).start().finish(1))
"""
    began = time.monotonic()
    process = python(code, run.url, run.path)
    said = process.communicate(timeout=30)[0]
    assert "behind by 1 checkpoints (step-00000001)" in said
    assert process.returncode == 0
    assert time.monotonic() - began < 25
    keeping.go_on()
