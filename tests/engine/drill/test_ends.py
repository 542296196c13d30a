"""Two runs' ends, compared part by part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from resume import lineage, rundir
from resume.engine.drill import ends
from resume.state import TrainState


@pytest.fixture
def run(tmp_path: Path, make_state: Callable[..., TrainState]) -> Callable[..., Path]:
    def make(name: str, step: int = 3, **progress: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        lineage.append(folder, "start", attempt=1, verdict="fresh")
        state = make_state(step, progress={"epoch_logs": {"loss": 0.5}, "files": {name: 1}, **progress})
        lineage.published(folder, rundir.publish(folder, state).path, attempt=1)
        (folder / "log.csv").write_text("epoch,loss\n0,0.5\n")
        (folder / "config.yaml").write_text(name)
        return folder

    return make


def board(folder: Path, value: float) -> None:
    with tf.summary.create_file_writer(str(folder)).as_default():
        tf.summary.scalar("loss", value, step=1)


def test_alike(run: Callable[..., Path]) -> None:
    a, b = run("a"), run("b")
    for folder in (a, b):
        board(folder / "logs/train", 0.5)
    board(b / "logs/resume", 1.0)  # an attempt's own
    assert ends.differences(a, b) == []


def test_arrays_and_sections(run: Callable[..., Path]) -> None:
    found = ends.differences(run("a"), run("b", 4, callbacks={"stop": {"wait": 2}}))
    assert found[:2] == ["array model/dense/kernel", "array optimizer/iteration"]
    assert "callbacks" in found


def test_logs(run: Callable[..., Path]) -> None:
    a, b = run("a"), run("b")
    board(a / "logs/train", 0.5)
    board(b / "logs/train", 0.25)
    (b / "log.csv").write_text("epoch,loss\n0,0.5\n0,0.5\n")
    (b / "more.txt").touch()
    assert ends.differences(a, b) == [
        "TensorBoard series logs/train/loss",
        "file log.csv",
        "file more.txt",
    ]


def test_as_an_answer(run: Callable[..., Path], tmp_path: Path) -> None:
    ends.compared(run("a"), run("b"), tmp_path / "answer")
    assert json.loads((tmp_path / "answer").read_text()) == {"differences": [], "arrays": 6}
