"""Which cluster this is, what its signals mean, and what Slurm says of a job. The texts are those of a real Slurm."""

from __future__ import annotations

import signal
import time

import pytest

from resume import clusters
from resume.clusters import Cause, slurm_cause
from resume.errors import UsageError
from resume.settings import ClusterSettings

SLURM = {"SLURM_JOB_ID": "12"}
NOW = time.mktime((2026, 11, 26, 23, 0, 0, 0, 0, -1))


def of(environ: dict[str, str], **settings: object) -> clusters.Cluster:
    return clusters.of(ClusterSettings(**settings), environ)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, "local"),
        ({"SLURM_JOB_ID": ""}, "local"),
        (SLURM, "slurm"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "SLURM_JOB_ID": "1"}, "slurm"),
    ],
)
def test_found_by_its_environment(environ: dict[str, str], kind: str) -> None:
    assert of(environ).kind == kind
    assert of(environ, kind="local").kind == "local"  # what is configured wins


@pytest.mark.parametrize(
    ("kind", "code", "signals", "grace", "requeue"),
    [
        ("local", 75, "TERM USR1 USR2 INT", None, False),
        ("slurm", 75, "TERM USR1 USR2", None, True),
        ("kubernetes", 143, "TERM", 30.0, False),
    ],
)
def test_what_each_does(kind: str, code: int, signals: str, grace: float | None, requeue: bool) -> None:
    found = of({}, kind=kind)
    assert (found.exit_code, found.grace, found.requeue) == (code, grace, requeue)
    assert [s.name.removeprefix("SIG") for s in found.signals] == signals.split()
    own = of({}, kind=kind, exit_code=9, grace=5.0, requeue=not requeue, signals=["SIGHUP", "USR1"])
    assert (own.exit_code, own.grace, own.requeue) == (9, 5.0, not requeue)
    assert own.signals == (signal.SIGHUP, signal.SIGUSR1)


@pytest.mark.parametrize(
    ("name", "said"), [("TERN", "there is no signal 'TERN'"), ("KILL", "SIGKILL"), ("SIGSTOP", "SIGSTOP")]
)
def test_signals_that_nobody_can_hear(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        of({}, signals=[name])


def test_the_job_and_its_restarts() -> None:
    assert (of(SLURM).job, of(SLURM).restarts) == ("12", 0)  # unset the first time, not 0
    array = SLURM | {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    assert (of(array).job, of(array).restarts) == ("11_3", 2)
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "digits-x7k2p"}
    assert (of(pod).job, of(pod).restarts) == ("digits-x7k2p", None)
    assert of({"HOSTNAME": "desk"}).job is None


# ---- why Slurm sends a signal ----

RUNNING = {
    "JobState": "RUNNING",
    "Reason": "None",
    "PreemptTime": "None",
    "EndTime": "Unknown",
    "Restarts": "0",
}
IN_A_MINUTE, PAST = "2026-11-26T23:01:00", "2026-11-26T22:59:59"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"PreemptTime": IN_A_MINUTE, "EndTime": IN_A_MINUTE}, Cause("preempted", 60.0)),
        ({"PreemptTime": IN_A_MINUTE}, Cause("preempted", 7.0)),  # a job without a time limit
        ({"EndTime": IN_A_MINUTE}, Cause("time limit", 60.0)),  # --signal
        ({}, Cause("signalled", 7.0)),  # scancel --signal
        (
            {"JobState": "COMPLETING", "Reason": "TimeLimit", "EndTime": PAST},
            Cause("time limit", 7.0),
        ),  # no --signal
        ({"JobState": "COMPLETING", "EndTime": PAST}, Cause("cancelled", 7.0, again=False)),
        ({"JobState": "CANCELLED", "EndTime": PAST}, Cause("cancelled", 7.0, again=False)),
        (
            {"JobState": "COMPLETING", "Restarts": "1"},
            Cause("requeued", 7.0, again=False),
        ),  # by hand, say
    ],
)
def test_why_slurm_sends_a_signal(told: dict[str, str], expected: Cause) -> None:
    assert slurm_cause(RUNNING | told, now=NOW, grace=7.0, restarts=0) == expected


def test_a_job_that_was_requeued_before_is_cancelled_all_the_same() -> None:
    told = RUNNING | {"JobState": "COMPLETING", "Restarts": "2"}
    assert slurm_cause(told, now=NOW, grace=None, restarts=2) == Cause("cancelled", None, again=False)


def test_where_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert clusters.job_facts("12") == {}
    assert clusters.partition_grace("low") is None
    assert clusters.cause(of(SLURM, grace=20.0), signal.SIGTERM) == Cause("preempted", 20.0)
    assert clusters.requeue("12") is not None
    assert clusters.cause(of({}), signal.SIGINT) == Cause("interrupted", None, again=False)
    assert clusters.cause(of({}), signal.SIGTERM) == Cause("preempted", None)
