"""`resume doctor`: what this machine and a configuration can promise."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resume import cli, lineage, rundir
from resume.clusters import Cluster
from resume.commands import doctor
from resume.objects import Objects
from resume.state import TrainState
from resume.storage import Remote

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"check", "state", "found", "advice"}


def run(folder: Path, *arguments: str, code: int = 0, **environ: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    environment |= {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", **environ}
    command = [sys.executable, "-m", "resume", "doctor", *arguments]
    # What a shell has put into the background ignores SIGINT, which doctor would speak of.
    heard = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def by_name(text: str) -> dict[str, dict[str, Any]]:
    return {check["check"]: check for check in json.loads(text)}


@pytest.mark.slow
def test_a_machine_that_will_do(tmp_path: Path) -> None:
    found = by_name(run(tmp_path, "--json", "cluster=local"))
    assert all(set(check) == KEYS for check in found.values())
    assert {check["state"] for check in found.values()} <= {"ok", "warning"}
    assert list(found) == [
        "signal path", "cluster", "tensorflow", "keras", "tf_keras", "keras backend", "devices", "checkpoint",
        "run directory", "file system", "rename and sync", "lock", "clock", "free space", "file size limit", "grace",
    ]  # fmt: skip
    assert found["cluster"]["found"] == "local; saves and leaves on TERM, USR1, USR2, INT with exit code 75"
    assert re.fullmatch(r"1\d\d\.\d KB by the model, its optimizer and metrics", found["checkpoint"]["found"])
    assert found["grace"]["found"] == "not known; no save has been measured yet"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_problems(tmp_path: Path, make_state: Callable[..., TrainState]) -> None:
    """A run whose saves take longer than the grace, behind a container's shell, on a file system that takes nothing."""
    lineage.append(tmp_path, "start", attempt=1)
    path = rundir.publish(tmp_path, make_state(1)).path
    lineage.published(tmp_path, path, attempt=1, seconds=25.0)
    text = run(tmp_path, "cluster=kubernetes", "run_dir=.", code=2)
    assert "problem  grace: 30 s from signal to kill; the longest of 1 saves took 25.0 s\n" in text
    assert "         -> 38.5 s are needed" in text
    assert (
        f"ok       checkpoint: {doctor.filesystem.size(sum(f.stat().st_size for f in path.glob('*')))}, as"
        in text
    )
    said = run(tmp_path, "run_dir=/proc/runs/a", "--json", "model={_target_: no.such.model}", code=2)
    found = by_name(said)
    assert (found["run directory"]["state"], found["model"]["state"]) == ("problem", "problem")
    assert "no.such" in found["model"]["found"]
    assert found["devices"]["state"] == "ok"  # what was seen before stays said


def test_the_supported_range_is_that_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for name, (least, below) in doctor.SUPPORTED.items():
        assert f'"{name}>={least[0]}.{least[1]},<{below[0]}.{below[1]}"' in text
    assert {check.state for check in doctor.versions()} == {"ok"}


@pytest.mark.parametrize(
    ("kind", "seconds", "saves", "state"),
    [
        ("local", None, [], "ok"),
        ("slurm", None, [1.0], "warning"),
        ("kubernetes", 30.0, [], "ok"),
        ("kubernetes", 30.0, [1.0, 3.0], "ok"),
        ("kubernetes", 30.0, [12.0], "warning"),
        ("slurm", 10.0, [8.0], "problem"),
        ("slurm", 0.0, [], "problem"),
    ],
)
def test_grace(
    monkeypatch: pytest.MonkeyPatch, kind: str, seconds: float | None, saves: list[float], state: str
) -> None:
    monkeypatch.delenv("SLURM_JOB_PARTITION", raising=False)
    check = doctor.grace(Cluster(kind, (), 75, grace=seconds), saves)
    assert check.state == state
    assert bool(check.advice) is (state != "ok")


def test_help_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["--help"], 0), (["fit.epoch=1"], 2), (["-m", "seed=0,1"], 2)):
        with pytest.raises(SystemExit) as end:
            cli.main(["doctor", *arguments])
        assert end.value.code == code
    out, err = capsys.readouterr()
    assert out.startswith("usage: resume doctor [--json] [OVERRIDES of resume train]")
    assert "fit.epoch: unknown key" in err


def test_the_remote_tier(kept: str) -> None:
    found = doctor._remote(f"{kept}/a")
    assert (found.check, found.state) == ("remote tier", "ok")
    assert Remote(f"{kept}/a").objects.sizes() == {}


def test_a_store_that_does_not_hear_conditions(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objects, "create", lambda self, name, data: self.write(name, data))
    found = doctor._remote(f"{kept}/a")
    assert found.state == "warning"
    assert "no If-None-Match" in found.found
