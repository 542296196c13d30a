"""A real Slurm for tests, brought up by scripts/slurm: submit, ask, wait."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class NoSlurmError(Exception):
    """It cannot be brought up here; the message says why."""


@dataclass(frozen=True)
class Slurm:
    environment: dict[str, str]

    @classmethod
    def up(cls, base: Path) -> Slurm:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{HERE}",
            "SLURM_BASE": str(base),
            "SLURM_PORT": str(_free_port()),
            "SLURM_CONF": str(base / "slurm.conf"),
        }
        done = subprocess.run([ROOT / "scripts/slurm", "up"], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise NoSlurmError(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "scripts/slurm up"
            )
        return cls(environment)

    def down(self) -> None:
        subprocess.run(
            [ROOT / "scripts/slurm", "down"], env=self.environment, check=True, capture_output=True
        )

    def run(self, *command: str, folder: Path | None = None) -> str:
        done = subprocess.run(command, env=self.environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def resume(self, *arguments: str, folder: Path) -> str:
        return self.run(sys.executable, "-m", "resume", *arguments, folder=folder)

    def submit(self, script: str, *options: str, folder: Path) -> str:
        """The job's id. It runs in `folder`, and its output is there in `job.out`."""
        (folder / "job.sbatch").write_text(script)
        return self.run("sbatch", "--parsable", *options, "job.sbatch", folder=folder).strip()

    def facts(self, job: str) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", job)))

    def ended(self, job: str) -> dict[str, str]:
        """Wait for the end of a job; one that waits to be requeued is not let wait the two minutes that Slurm gives.

        Two seconds it has to: a node takes what starts in the second in which it was killed for the killed one.
        """
        hastened = False

        def over() -> bool:
            nonlocal hastened
            facts = self.facts(job)
            if facts["JobState"] == "PENDING" and facts["Reason"] == "BeginTime" and not hastened:
                self.run("scontrol", "update", f"jobid={job}", "starttime=now+2")
                hastened = True
            return facts["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        wait(over, f"the end of job {job}", seconds=120)
        return self.facts(job)


def wait(until: Callable[[], object], what: str, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s"
        time.sleep(0.2)


def _free_port() -> int:
    """The first of three that are free now: the controller's and those of two nodes."""
    for port in range(26817, 36817, 10):
        try:
            for each in range(port, port + 3):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port
    raise NoSlurmError("no three free ports in a row")
