"""Runs behind a URL, on a real server: nodes that are gone with their disks, a server that goes and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import resume
from resume import cli, lineage, rundir, tiers, urls
from resume.storage import Remote
from tests.buckets import Server
from tests.e2e.kills import scalars_differ

HERE = Path(__file__).parent
ROOT = Path(resume.__file__).parents[1]
SETTINGS = ["fit.epochs=2", "checkpoint.every_steps=10", "cluster=local", "fit.verbose=0", "cluster.grace=30"]
SETTINGS += ["cluster.stale=15"]  # for how long a node that is gone with its disk is waited for
CSV = ["+callbacks.csv._target_=keras.callbacks.CSVLogger", "+callbacks.csv.filename=${run_dir}/log.csv"]


@dataclass
class Node:
    """Where training commands run; `scratch` is its own disk."""

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        self.scratch.mkdir(exist_ok=True)
        path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {
            "TMPDIR": str(self.scratch),
            "PYTHONPATH": path,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, "-W", "ignore", "-m", "resume", *arguments]
        with self._log(len(self.running)).open("w") as log:
            self.running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return self.running[-1]

    def _log(self, number: int) -> Path:
        return self.folder / f"{number}.log"

    def output(self, process: subprocess.Popen[bytes]) -> str:
        return self._log(self.running.index(process)).read_text()

    def train(self, run: str) -> subprocess.Popen[bytes]:
        pace = ["+callbacks.pace._target_=paced.Pace", f"+callbacks.pace.folder={self.folder}"]
        pace += ["+callbacks.pace.seconds=0.1"]
        return self.start("train", f"run_dir={run}", *SETTINGS, *CSV, *pace)

    def said(self, *arguments: str) -> str:
        return self.ended(self.start(*arguments))

    def ended(self, process: subprocess.Popen[bytes], code: int = 0) -> str:
        assert process.wait(timeout=60) == code, self.output(process)
        return self.output(process)

    def until(self, process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
        """While it runs."""
        give_up = time.monotonic() + 60
        while not condition():
            assert process.poll() is None, self.output(process)
            assert time.monotonic() < give_up, self.output(process)
            time.sleep(0.05)

    def slow(self, yes: bool) -> None:
        (self.folder / "slow").touch() if yes else (self.folder / "slow").unlink()

    def step(self) -> int:
        file = self.folder / "steps.txt"
        return int(file.read_text().split()[-1]) if file.is_file() and file.read_text() else 0

    def lost(self) -> None:
        """Whatever was on its disk; what a killed attempt has noted of steps is no longer true either."""
        shutil.rmtree(self.scratch)
        (self.folder / "steps.txt").unlink(missing_ok=True)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield from _node(tmp_path / "node")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Node]:
    yield from _node(tmp_path / "elsewhere")


def _node(folder: Path) -> Iterator[Node]:
    folder.mkdir()
    node = Node(folder)
    yield node
    for process in node.running:
        process.kill()
        process.wait()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """By a command that needs no TensorFlow, and so no process of its own."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 0
    return capsys.readouterr().out


def newest(url: str) -> int:
    return max((c.step for c in Remote(url).checkpoints()), default=0)


@pytest.mark.slow
def test_a_run_outlives_its_nodes(
    kept: str, node: Node, elsewhere: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, whole = f"{kept}/runs/a", tmp_path / "whole"
    unbroken = elsewhere.train(str(whole))

    node.slow(True)
    first = node.train(url)
    node.until(first, lambda: newest(url) >= 20)
    first.kill()
    first.wait()
    elsewhere.ended(unbroken)
    node.lost()
    reached = newest(url)

    second = node.train(url)
    node.until(second, lambda: node.step() > reached + 12)
    second.send_signal(signal.SIGTERM)
    node.ended(second, 75)
    left, told = node.step(), newest(url)
    assert told == left  # what was saved in time was uploaded in time
    node.lost()

    node.slow(False)
    output = node.ended(node.train(url))
    assert f"(step {left}," in output

    assert "equal: " in said(capsys, "diff", str(whole), url)
    assert "continuous, 3 attempts, 2 checkpoints whole" in said(capsys, "verify", url)
    assert f"{url}/checkpoints/step-00000090" in said(capsys, "list", url)
    with tiers.local_copy(url) as copy:
        starts = lineage.attempts(lineage.read(copy))
        assert [start["step"] for start in starts] == [0, reached, left]
        assert [start["verdict"] for start in starts] == ["fresh", "exact", "exact"]
        assert lineage.breaks(copy) == []
    here = urls.local_tier(url, within=node.scratch / "keras-resume")
    assert (here / "log.csv").read_text() == (whole / "log.csv").read_text()
    assert scalars_differ(whole, here) == []
    assert rundir.read(here).specs == rundir.read(whole).specs


def left_alone(node: Node, url: str, server: Server) -> subprocess.Popen[bytes]:
    """A training whose server is gone, with something of the run."""
    node.slow(True)
    training = node.train(url)
    node.until(training, lambda: newest(url) >= 10)
    server.kill()
    return training


@pytest.mark.slow
def test_the_training_does_not_notice_that_the_server_is_away(kept: str, keeping: Server, node: Node) -> None:
    url = f"{kept}/runs/b"
    training = left_alone(node, url, keeping)
    reached = node.step()
    # Six seconds and more: for a moment's outage the libraries try again by themselves, and nothing is said.
    node.until(training, lambda: node.step() >= min(reached + 60, 85))
    keeping.start()
    node.slow(False)
    output = node.ended(training)
    assert newest(url) == 90
    assert "uploads wait, and are tried again: s3://" in output
    assert "continuous, 1 attempts, 2 checkpoints whole" in node.said("verify", url)


@pytest.mark.slow
def test_a_completed_run_is_not_done_before_it_is_there(kept: str, keeping: Server, node: Node) -> None:
    url = f"{kept}/runs/c"
    training = left_alone(node, url, keeping)
    node.slow(False)
    local = urls.local_tier(url, within=node.scratch / "keras-resume")
    node.until(training, lambda: lineage.completed(local, epochs=2) is not None)
    time.sleep(1)
    assert training.poll() is None
    training.send_signal(signal.SIGKILL)
    training.wait()
    keeping.start()
    assert "continues" in node.ended(node.train(url))
    assert "finished already" in node.said("train", f"run_dir={url}", *SETTINGS)
    assert newest(url) == 90
