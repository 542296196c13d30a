"""Who stands between a scheduler and a process: real processes by /proc, and chains as Slurm makes them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import resume
from resume.signalpath import Process, ancestors, obstacle, unheard

ROOT = str(Path(resume.__file__).resolve().parents[1])
LOOK = f"{shlex.quote(sys.executable)} -c 'from resume import signalpath as s; print(s.obstacle(\"slurm\"))'"
CURE = "let the last line of the batch script be: exec srun python -m resume train ..."

SCRIPT = Process(20, ("/bin/bash", "/var/spool/slurmd/job00007/slurm_script"))
BATCH, STEP, INIT = (
    Process(n, (f"slurmstepd: [7.{name}]",)) for n, name in ((10, "batch"), (11, "0"), (1, "x"))
)
IN_STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("chain", "found", "cure"),
    [
        ([STEP], None, ""),
        (
            [Process(30, ("python", "tool.py")), STEP, SCRIPT],
            None,
            "",
        ),  # what is above Slurm's own process is Slurm's
        (
            [SCRIPT, BATCH],
            "/bin/bash /var/spool/slurmd/job00007/slurm_script (pid 20) stands between Slurm",
            CURE,
        ),
        ([BATCH], "this process was started without srun and belongs to no job step", CURE),
        (
            [Process(30, ("bash", "-c", "python x; true")), STEP],
            "bash -c python x; true (pid 30) stands",
            "write exec",
        ),
        (
            [Process(30, ("-zsh",)), Process(12, ("slurmstepd: [7.interactive]",))],
            "-zsh (pid 30) stands",
            CURE,
        ),
        ([SCRIPT, Process(13, ("slurmstepd: [7+1.batch]",))], "/bin/bash", CURE),
    ],
)
def test_under_slurm(chain: list[Process], found: str | None, cure: str) -> None:
    seen = obstacle("slurm", chain=chain, environ={})
    assert (seen is None) is (found is None)
    if seen is not None:
        assert seen.found.startswith(found or "")
        assert seen.cure.startswith(cure)
        assert str(seen) == f"{seen.found}; {seen.cure}"


def test_where_slurm_is_out_of_sight() -> None:
    """In a container of its own: srun's variables tell, and the shells that can be seen."""
    assert obstacle("slurm", chain=[Process(1, ("python",))], environ=IN_STEP) is None
    assert obstacle("slurm", chain=[], environ={"SLURM_JOB_ID": "7"}) is not None
    assert obstacle("slurm", chain=[Process(1, ("sh", "-c", "x"))], environ=IN_STEP) is not None


@pytest.mark.parametrize(
    ("kind", "chain", "found"),
    [
        (
            "kubernetes",
            [Process(1, ("/bin/sh", "-c", "python -m resume train; true"))],
            "/bin/sh -c python -m resume",
        ),
        (
            "kubernetes",
            [Process(7, ("bash", "start.sh")), Process(1, ("/sbin/tini", "--"))],
            "bash start.sh (pid 7)",
        ),
        ("kubernetes", [Process(1, ("/sbin/tini", "--"))], None),
        ("kubernetes", [], None),
        ("local", [Process(1, ("sh", "-c", "python x"))], "sh -c python x (pid 1)"),
        ("local", [Process(99, ("-bash",)), Process(1, ("/sbin/init",))], None),  # somebody's terminal
    ],
)
def test_in_a_container(kind: str, chain: list[Process], found: str | None) -> None:
    seen = obstacle(kind, chain=chain)
    assert seen is None if found is None else (seen is not None and seen.found.startswith(found))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f"{LOOK}; true", "stands between Slurm and this process: Slurm's first signal ends it"),
        (f"exec {LOOK}", "this process was started without srun"),
    ],
)
def test_real_processes(tmp_path: Path, script: str, said: str) -> None:
    (tmp_path / "slurm_script").write_text(f"#!/bin/bash\n{script}\n")
    parent = f'{sys.executable} -c \'import subprocess; subprocess.run(["bash", "{tmp_path}/slurm_script"])\''
    command = ["bash", "-c", f"exec -a 'slurmstepd: [7.batch]' {parent}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | {"PYTHONPATH": ROOT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert done.stdout.strip().endswith(CURE)


def test_our_own_ancestors() -> None:
    above = list(ancestors())
    assert above[0].pid == os.getppid()
    assert [p.pid for p in ancestors(os.getpid())] == [p.pid for p in above]
    assert list(ancestors(2**22 + 1)) == []  # no such process


def test_started_with_signals_ignored_and_blocked(python: Callable[..., subprocess.Popen[str]]) -> None:
    look = "from signal import *; from resume.signalpath import unheard; print(unheard([SIGTERM, SIGUSR1, SIGUSR2]))"
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})\n"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])\n"
    )
    said = python(code, look).communicate(timeout=30)[0]
    assert said == "{'ignored': ['SIGTERM'], 'blocked': ['SIGUSR2']}\n"


def test_a_status_without_masks() -> None:
    assert unheard([signal.SIGTERM], "Name:\tpython\n") == {"ignored": [], "blocked": []}
