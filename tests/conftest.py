"""Small real training states, without TensorFlow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resume
from resume.state import Arrays, OptimizerInfo, TrainState
from tests.buckets import Server


@pytest.fixture
def make_state() -> Callable[..., TrainState]:
    """A state of SGD with momentum on one dense layer, at a step; its values depend on the step."""
    return _state


def _state(step: int = 0, *, extra: dict[str, Any] | None = None, **facts: Any) -> TrainState:
    kernel = np.arange(6, dtype="float32").reshape(3, 2) + step
    arrays = {
        "model/dense/kernel": kernel,
        "model/dense/bias": np.zeros(2, "float32"),
        "optimizer/iteration": np.asarray(step, "int64"),
        "optimizer/learning_rate": np.asarray(0.125, "float32"),
        "optimizer/momentum/dense/kernel": kernel / 2,
        "optimizer/momentum/dense/bias": np.ones(2, "float32"),
    }
    known: dict[str, Any] = {
        "model_config": {"class_name": "Sequential", "config": {"name": "sequential", "layers": []}},
        "optimizer": OptimizerInfo("SGD", {"learning_rate": 0.125, "momentum": 0.9, "epsilon": 1e-07}),
        "keras_version": "3.12.0",
        "epoch": 1,
        "batch": 2,
    }
    return TrainState(
        format="native", path=Path(), arrays=Arrays.of(arrays | (extra or {})), **(known | facts)
    )


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python process that can import the package under test and is given code and arguments."""
    root = str(Path(resume.__file__).resolve().parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])

    def start(code: str, *arguments: object, under: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = [*under, sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path},  # as it is by then
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Server]:
    """A server that keeps its objects when it is killed."""
    (tmp_path / "kept").mkdir()
    server = Server(tmp_path / "kept")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """moto on its own: it has lost everything when it comes back."""
    server = Server()
    server.known(monkeypatch)
    yield server
    server.kill()


@pytest.fixture(params=["moto", "keeping"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket, on either server."""
    return _bucket(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture
def kept(keeping: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same where the kind of server makes no difference."""
    return _bucket(keeping, monkeypatch)


def _bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    server.known(monkeypatch)
    return server.make(f"bucket-{uuid.uuid4().hex}")


@pytest.fixture
def own_mounts() -> Sequence[str]:
    """The command under which a process may mount file systems that nobody else sees."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which(command[0]) is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody have mounts of its own")
    return command
