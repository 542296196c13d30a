"""Real jobs of a real Slurm: preempted, out of time, cancelled, requeued; they end as a run that nothing broke."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resume import lineage

sys.path.insert(0, str(Path(__file__).parent))

from batchsystem import ROOT, NoSlurmError, Slurm, wait

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

STEPS = 90  # two epochs
RUN = (
    "deterministic=true", "seed=3", "run_dir=run", "fit.epochs=2", "checkpoint.every_epochs=null",
    "checkpoint.every_minutes=null", "+callbacks.pace._target_=paced.Pace", "+callbacks.pace.folder=.",
)  # fmt: skip


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    try:
        up = Slurm.up(tmp_path_factory.mktemp("slurm"))
    except NoSlurmError as error:
        pytest.skip(str(error))
    yield up
    up.down()


@dataclass(frozen=True)
class Job:
    """One job of a training that is slow until `hurry`."""

    slurm: Slurm
    folder: Path
    id: str

    @classmethod
    def submitted(cls, slurm: Slurm, folder: Path, *rendering: str) -> Job:
        folder.mkdir(exist_ok=True)
        (folder / "slow").touch()
        script = slurm.resume(
            "render",
            "cluster=slurm",
            *RUN,
            "render.partition=low",
            "render.output=job.out",
            *rendering,
            folder=folder,
        )
        return cls(slurm, folder, slurm.submit(script, folder=folder))

    def steps(self) -> list[int]:
        file = self.folder / "steps.txt"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def in_training(self) -> None:
        wait(lambda: len(self.steps()) >= 5, "the fifth step")

    def hurry(self) -> None:
        (self.folder / "slow").unlink()

    def output(self) -> str:
        return (self.folder / "job.out").read_text()

    def left(self) -> str:
        """Why the first attempt has ended, once it has."""
        wait(lambda: self._ends(), "the end of the first attempt", seconds=90)
        return str(self._ends()[0]["reason"])

    def _ends(self) -> list[Any]:
        return [r for r in lineage.read(self.folder / "run") if r["event"] == "end"]

    def starts(self) -> int:
        return len(lineage.attempts(lineage.read(self.folder / "run")))


@pytest.fixture(scope="session")
def unbroken(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    slurm.resume("train", *RUN, folder=folder)
    return folder / "run"


@pytest.fixture(scope="session")
def preempted(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that has made room for one of higher priority, and has then run to its end."""
    job = Job.submitted(slurm, tmp_path_factory.mktemp("preempted"))
    job.in_training()
    slurm.run("sbatch", "-p", "high", "-N2", "-o", "/dev/null", "--wrap", "true", folder=job.folder)
    job.left()
    job.hurry()
    slurm.ended(job.id)
    return job


def intact(job: Job, unbroken: Path) -> None:
    """Every step once, the lineage continuous, the end bit for bit that of the unbroken run."""
    assert job.steps() == list(range(1, STEPS + 1))
    verified = job.slurm.resume("verify", "run", folder=job.folder)
    assert verified.startswith(f"run: continuous, {job.starts()} attempts")
    assert differences(job, unbroken) == []


def differences(job: Job, unbroken: Path) -> list[str]:
    """By `resume diff`; the names of event files hold the time and the process, and there is one more an attempt."""
    command = [sys.executable, "-m", "resume", "diff", "run", str(unbroken), "--json"]
    done = subprocess.run(
        command, cwd=job.folder, env=job.slurm.environment, stdout=subprocess.PIPE, check=False
    )
    findings = json.loads(done.stdout)["findings"]
    return [finding["name"] for finding in findings if not finding["name"].startswith("files.logs/")]


def test_preempted(preempted: Job, unbroken: Path) -> None:
    facts = preempted.slurm.facts(preempted.id)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert preempted.left() == "preempted (SIGTERM)"
    assert re.search(r"preempted \(SIGTERM\), (9|10) s left: saving after this step", preempted.output())
    assert "attempt 2: continues run/checkpoints/step-000000" in preempted.output()
    assert preempted.starts() == 2
    intact(preempted, unbroken)


def test_a_finished_job_that_is_requeued(preempted: Job) -> None:
    slurm, lines = preempted.slurm, (preempted.folder / "run/lineage.jsonl").read_text()
    slurm.run("scontrol", "requeue", preempted.id)
    wait(lambda: slurm.facts(preempted.id)["JobState"] == "PENDING", "its requeueing")
    facts = slurm.ended(preempted.id)
    assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0")
    assert f"run run: finished already, 2 epochs, step {STEPS}" in preempted.output()
    assert (preempted.folder / "run/lineage.jsonl").read_text() == lines


def test_out_of_time(slurm: Slurm, unbroken: Path, tmp_path: Path) -> None:
    """Slurm looks every half a minute: the notice comes between the twentieth and the fiftieth second."""
    job = Job.submitted(
        slurm, tmp_path / "job", "render.time=00:01:00", "render.notice=10", "+callbacks.pace.seconds=1"
    )
    assert job.left() == "time limit (SIGUSR2)"
    job.hurry()
    facts = slurm.ended(job.id)
    assert (facts["JobState"], facts["Restarts"], job.starts()) == ("COMPLETED", "1", 2)
    intact(job, unbroken)


def test_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    """Saved, since there was time; not started again, since somebody wanted it to stop."""
    job = Job.submitted(slurm, tmp_path / "job")
    job.in_training()
    slurm.run("scancel", job.id)
    assert job.left() == "cancelled (SIGTERM)"
    facts = slurm.ended(job.id)
    assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")
    (row,) = json.loads(slurm.resume("list", "run", "--json", folder=job.folder))
    assert (row["step"], row["whole"]) == (job.steps()[-1], True)


def test_requeued_by_hand(slurm: Slurm, unbroken: Path, tmp_path: Path) -> None:
    """As by a preemption without grace: Slurm has requeued it already, and KillWait is left."""
    job = Job.submitted(slurm, tmp_path / "job")
    job.in_training()
    slurm.run("scontrol", "requeue", job.id)
    assert job.left() == "requeued (SIGTERM)"
    job.hurry()
    facts = slurm.ended(job.id)
    assert (facts["JobState"], facts["Restarts"], job.starts()) == ("COMPLETED", "1", 2)
    intact(job, unbroken)


FORMS = """\
#!/bin/bash
#SBATCH --output=job.out
look() { echo "from resume import signalpath; print('$1:', signalpath.obstacle('slurm'))"; }
python -c "$(look line)"
srun python -c "$(look step)"
srun bash -c 'python -c "$1"; true' bash "$(look script)"
python -m resume doctor --json run_dir=run > doctor.json
exec python -c "$(look exec)"
"""


def test_batch_scripts_that_cannot_work(slurm: Slurm, tmp_path: Path) -> None:
    facts = slurm.ended(slurm.submit(FORMS, folder=tmp_path))
    said = dict(line.split(": ", 1) for line in (tmp_path / "job.out").read_text().splitlines())
    assert facts["JobState"] == "COMPLETED", said
    cure = "let the last line of the batch script be: exec srun python -m resume train ..."
    assert said["step"] == "None"  # srun itself says a word, too, where it has to wait for the step
    assert said["line"].startswith("/bin/bash ")
    assert "stands between Slurm and this process" in said["line"]
    assert said["line"].endswith(cure)
    assert said["exec"].startswith("this process was started without srun and belongs to no job step")
    assert said["exec"].endswith(cure)
    assert said["script"].endswith(
        "write exec before python in what srun starts, or let srun start python itself"
    )
    found = {check["check"]: check for check in json.loads((tmp_path / "doctor.json").read_text())}
    assert (found["signal path"]["state"], found["signal path"]["advice"]) == ("warning", cure)
    assert found["cluster"]["found"].startswith("slurm, job ")
    assert found["grace"]["found"] == "10 s from signal to kill; no save has been measured yet"


@pytest.fixture(scope="session")
def launcher(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Slurm:
    """The same Slurm, with Hydra's launcher for it on the path of what is started."""
    folder = tmp_path_factory.mktemp("launcher")
    wanted = ["hydra-submitit-launcher>=1.2", "submitit>=1.5", "cloudpickle"]
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *wanted]
    if subprocess.run(command, capture_output=True, timeout=120).returncode != 0:
        pytest.skip("hydra-submitit-launcher cannot be installed: no package index answers")
    return Slurm({**slurm.environment, "PYTHONPATH": f"{slurm.environment['PYTHONPATH']}:{folder}"})


SENT_AWAY = {
    "preempted (SIGTERM)": ["sbatch", "-p", "high", "-N2", "-o", "/dev/null", "--wrap", "true"],
    "time limit (SIGUSR2)": ["scancel", "--signal=USR2", "JOB"],
}


@pytest.mark.parametrize("reason", SENT_AWAY)
def test_hydra_s_launcher(launcher: Slurm, unbroken: Path, tmp_path: Path, reason: str) -> None:
    """submitit ignores SIGTERM, and requeues at a SIGUSR2 by itself: its turn comes after ours, and is enough."""
    (tmp_path / "slow").touch()
    sweep = [
        "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "hydra.sweep.dir=sweep",
        "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10", "hydra.launcher.signal_delay_s=60",
        "hydra.launcher.max_num_timeout=1",
    ]  # fmt: skip
    command = [sys.executable, "-m", "resume", "train", *sweep, *RUN]
    log = (tmp_path / "launcher.log").open("w")
    process = subprocess.Popen(command, cwd=tmp_path, env=launcher.environment, stdout=log, stderr=log)
    try:
        (job,) = _jobs(launcher)
        trained = Job(launcher, tmp_path, job)
        trained.in_training()
        launcher.run(*(word.replace("JOB", job) for word in SENT_AWAY[reason]), folder=tmp_path)
        assert trained.left() == reason
        trained.hurry()
        facts = launcher.ended(job)
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
        assert process.wait(timeout=60) == 0, (tmp_path / "launcher.log").read_text()
    finally:
        process.kill()
        log.close()
    intact(trained, unbroken)


def _jobs(slurm: Slurm) -> list[str]:
    wait(lambda: slurm.run("squeue", "-h", "-p", "low", "-o", "%i").split(), "the launcher's job")
    return slurm.run("squeue", "-h", "-p", "low", "-o", "%i").split()


def test_the_scripts_are_there() -> None:
    assert subprocess.run([ROOT / "scripts/slurm"], capture_output=True).returncode == 2
