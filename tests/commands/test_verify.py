"""`resume verify`: every digest re-read, the lineage checked, a verdict and an exit code."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import lineage, rundir
from resume.commands import verify
from resume.errors import SourceError
from resume.state import TrainState

Make = Callable[..., TrainState]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path, make_state: Make) -> Path:
    """Two attempts: the first published steps 1 and 2, the second went on to 3."""
    lineage.append(tmp_path, "start", attempt=1, verdict="fresh", **{"from": None})
    for step in (1, 2):
        last = rundir.publish(tmp_path, make_state(step)).path
        lineage.published(tmp_path, last, attempt=1)
    begun = lineage.identity(tmp_path, last, lineage.native.read_manifest(last))
    facts: dict[str, Any] = {"from": begun, "iterations_saved": 2, "iterations_restored": 2}
    lineage.append(tmp_path, "start", attempt=2, verdict="exact", **facts)
    lineage.published(tmp_path, rundir.publish(tmp_path, make_state(3)).path, attempt=2)
    return tmp_path


def spoil(path: Path) -> Path:
    file = path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    return file


def test_a_continuous_run(run: Path, capsys: Captured) -> None:
    assert verify.run([str(run)]) == 0
    assert capsys.readouterr().out == (
        f"{run}: continuous, 2 attempts, 3 checkpoints whole, "
        "optimizer iterations 2 saved -> 2 restored at the last resume, now 3\n"
    )


def test_json_of_a_run(run: Path, capsys: Captured) -> None:
    assert verify.run([str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "verdict": "exact",
        "findings": [],
        "iterations_saved": 2,
        "iterations_restored": 2,
        "attempts": 2,
        "checkpoints": 3,
        "step": 3,
    }


def test_a_run_from_a_partial_source(tmp_path: Path, make_state: Make, capsys: Captured) -> None:
    facts: dict[str, Any] = {"from": {}, "iterations_saved": 5, "iterations_restored": 5}
    lineage.append(tmp_path, "start", attempt=1, verdict="partial", **facts)
    lineage.published(tmp_path, rundir.publish(tmp_path, make_state(6)).path, attempt=1)
    assert verify.run([str(tmp_path)]) == 0
    assert ": continuous from a partial source, 1 attempts, 1 checkpoints whole" in capsys.readouterr().out
    verify.run([str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["verdict"] == "partial"


def test_a_damaged_checkpoint(run: Path, capsys: Captured) -> None:
    path = run / "checkpoints/step-00000003"
    file = spoil(path)
    said = f"{file}: optimizer/learning_rate is damaged, its digest does not match."
    assert verify.run([str(run)]) == 3
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"  {path}: {said}"
    assert out[1].startswith(f"{run}: NOT continuous, 2 attempts, 2 checkpoints whole, ")
    assert out[1].endswith(", now 2")
    assert verify.run([str(run), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "broken"
    assert found["findings"] == [{"name": str(path), "kind": said, "saved": None, "found": None}]


def test_a_break_in_the_lineage(run: Path, capsys: Captured) -> None:
    lineage.append(run, "start", attempt=3, verdict="fresh", **{"from": None})
    assert verify.run([str(run)]) == 3
    assert (
        "  lineage: attempt 3 did not begin where a checkpoint of this run ended.\n"
        in capsys.readouterr().out
    )


def test_no_whole_checkpoint(run: Path, capsys: Captured) -> None:
    for checkpoint in rundir.checkpoints(run):
        spoil(checkpoint.path)
    assert verify.run([str(run)]) == 4
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith(f"{run}: NOT continuous, 2 attempts, 0 checkpoints")
    )


def test_a_run_that_has_published_nothing(tmp_path: Path, capsys: Captured) -> None:
    lineage.append(tmp_path, "start", attempt=1, verdict="fresh")
    assert verify.run([str(tmp_path)]) == 4
    assert capsys.readouterr().out.startswith(f"  {tmp_path}: no whole checkpoint\n")


def test_one_checkpoint(run: Path, capsys: Captured) -> None:
    path = run / "checkpoints/step-00000002"
    assert verify.run([str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: whole, iterations 2\n"
    assert verify.run([str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "verdict": "exact",
        "findings": [],
        "iterations_saved": 2,
        "iterations_restored": None,
        "attempts": None,
    }
    spoil(path)
    assert verify.run([str(path)]) == 3
    assert capsys.readouterr().out.endswith(f"{path}: DAMAGED, iterations -\n")


def test_every_bad_array_is_named(run: Path, capsys: Captured) -> None:
    path = run / "checkpoints/step-00000002"
    file = path / "state.safetensors"
    data = bytearray(file.read_bytes())
    for place in (len(data) - 1, len(data) - 76):
        data[place] ^= 1
    file.write_bytes(data)
    assert verify.run([str(path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [f["kind"].split(": ")[1].split(" is")[0] for f in found] == [
        "model/dense/bias",
        "optimizer/learning_rate",
    ]


def test_a_directory_without_a_manifest(tmp_path: Path, capsys: Captured) -> None:
    assert verify.run([str(tmp_path)]) == 3
    assert f"{tmp_path}: no manifest.json, so this is not a whole checkpoint.\n" in capsys.readouterr().out


def test_a_foreign_array_that_is_not_finite(make_state: Make) -> None:
    bad = {"model/w": np.array([1, np.nan], "float32"), "model/e": np.zeros((0, 2), "float16")}
    state = make_state(1, extra=bad | {"model/i": np.zeros(2, "int8")})
    assert verify._odd(state) == ["model/w: holds NaN or infinite values"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent: no such file or directory\.$"):
        verify.run([str(tmp_path / "absent")])


LIGHT = """
import sys
from resume.cli import main
for arguments in (["inspect", sys.argv[1]], ["list", sys.argv[1]], ["verify", sys.argv[1]]):
    try:
        main(arguments)
    except SystemExit as end:
        print("code", end.code, sorted({"tensorflow", "keras", "tf_keras", "jax", "torch"} & set(sys.modules)))
"""


def test_tensorflow_is_not_imported(run: Path, python: Callable[..., subprocess.Popen[str]]) -> None:
    out, _ = python(LIGHT, run).communicate(timeout=60)
    assert [line for line in out.splitlines() if line.startswith("code")] == ["code 0 []"] * 3, out
