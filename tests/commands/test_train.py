"""`resume train` up to the job; what becomes of a job is tests/engine's, real command lines are tests/e2e's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resume import lineage, rundir
from resume.commands import train
from resume.errors import UsageError
from resume.formats import native


@pytest.fixture(autouse=True)
def _command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["resume"])
    monkeypatch.chdir(tmp_path)


def test_what_is_to_be_done_with_the_job_is_done_instead_of_training(tmp_path: Path) -> None:
    jobs: list[Any] = []
    assert train.run(["fit.epochs=3", "run_dir=r"], act=jobs.append) == 0
    (job,) = jobs
    assert (job.run_dir, job.epochs, job.ckpt) == (Path("r"), 3, None)
    assert callable(job.train)
    assert not (tmp_path / "r" / "checkpoints").exists()


def test_a_file_with_the_name_of_a_shipped_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "digits.yaml").write_text("{}")
    with pytest.raises(UsageError, match="a shipped data called digits"):
        train.run(["--config-dir", "mine", "data=digits"])


def test_a_finished_run_whose_last_checkpoint_is_damaged_is_finished_again() -> None:
    run = Path("r")

    def trained() -> str:
        options = ["fit.epochs=1", "checkpoint.every_steps=30", "run_dir=r", "cluster=local", "fit.verbose=0"]
        command = [sys.executable, "-m", "resume", "train", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    trained()
    last = rundir.checkpoints(run)[-1].path
    file = last / "state.safetensors"
    saved = file.read_bytes()
    assert "finished already" in trained()
    file.write_bytes(saved[:-1] + bytes([saved[-1] ^ 1]))
    said = trained()
    assert "finished already" not in said
    assert f"passed over: {file}:" in said.replace(str(run.absolute()), str(run))
    assert file.read_bytes() == saved
    assert list(native.damage(last)) == []
    assert lineage.breaks(run) == []
    assert "finished already" in trained()
    for checkpoint in rundir.checkpoints(run):
        rundir.retire(checkpoint)
    assert "finished already" in trained()
