"""What runs us: which signals mean "save and leave", how long there is, and what to do once the state is safe.

Slurm        scontrol tells why and until when; the job requeues itself and leaves with 75; if it cannot, it waits to be
             killed, since a job that leaves by itself with another code is not started again (slurm.schedmd.com,
             preempt.html, sbatch.html --signal --requeue)
Kubernetes   SIGTERM, then the pod's grace period; 143, since operators start again only what ended above 127
local        systemd, spot machines, a terminal: 75 (sysexits.h EX_TEMPFAIL)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from resume.errors import UsageError
from resume.settings import ClusterSettings

_SIGNALS = {
    "slurm": ("SIGTERM", "SIGUSR1", "SIGUSR2"),
    "kubernetes": ("SIGTERM",),
    "local": ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"),
}
_EXIT_CODES = {"slurm": 75, "kubernetes": 143, "local": 75}
_GRACE = {"kubernetes": 30.0}  # terminationGracePeriodSeconds, where the pod does not say another
_PATIENCE = 5.0  # seconds for scontrol to answer
_FIELD = re.compile(r"(\w+)=(\S*)")
_ENDED = ("CANCELLED", "COMPLETING", "FAILED", "TIMEOUT", "PENDING")  # of a job that is still here to ask


@dataclass(frozen=True)
class Cluster:
    """`grace`: seconds from a signal to the kill, None where nothing is known; `job`: its id there."""

    kind: str
    signals: tuple[signal.Signals, ...]
    exit_code: int
    requeue: bool = False
    grace: float | None = None
    job: str | None = None
    restarts: int | None = None  # how often it was started again before this time
    notices: tuple[str, ...] = ()  # clouds to ask (resume.notices)
    notice_address: str | None = None


@dataclass(frozen=True)
class Cause:
    """Why a signal came, as far as the cluster tells. `seconds`: until the kill; None where it cannot be known."""

    reason: str
    seconds: float | None
    again: bool = True  # whether the job is to be started again


def of(settings: ClusterSettings, environ: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster that is configured; for `auto`, the one that the environment speaks of.

    Raises UsageError for a signal that does not exist or cannot be caught.
    """
    kind = settings.kind if settings.kind != "auto" else _found(environ)
    names = settings.signals if settings.signals is not None else _SIGNALS[kind]
    restarts = environ.get("SLURM_RESTART_COUNT", "0" if kind == "slurm" else "")
    return Cluster(
        kind,
        tuple(_signal(name) for name in names),
        settings.exit_code or _EXIT_CODES[kind],
        requeue=kind == "slurm" if settings.requeue is None else settings.requeue,
        grace=settings.grace if settings.grace is not None else _GRACE.get(kind),
        job=_job(kind, environ),
        restarts=int(restarts) if restarts.isdigit() else None,
        notices=tuple(settings.notices),
        notice_address=settings.notice_address,
    )


def _found(environ: Mapping[str, str]) -> str:
    if environ.get("SLURM_JOB_ID"):
        return "slurm"
    return "kubernetes" if environ.get("KUBERNETES_SERVICE_HOST") else "local"


def _signal(name: str) -> signal.Signals:
    try:
        found = signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise UsageError(f"cluster.signals: there is no signal {name!r}.") from None
    if found in (signal.SIGKILL, signal.SIGSTOP):
        raise UsageError(f"cluster.signals: nobody can catch {found.name}.")
    return found


def _job(kind: str, environ: Mapping[str, str]) -> str | None:
    if kind != "slurm":
        return environ.get("HOSTNAME") if kind == "kubernetes" else None
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID")


def cause(cluster: Cluster, received: signal.Signals) -> Cause:
    """Why this signal came and how long there is."""
    if cluster.kind == "slurm" and cluster.job is not None:
        told = job_facts(cluster.job)
        if told:
            grace = cluster.grace if cluster.grace is not None else slurm_grace(told)
            return slurm_cause(told, now=time.time(), grace=grace, restarts=cluster.restarts)
    if received == signal.SIGINT:
        return Cause("interrupted", cluster.grace, again=False)
    return Cause("preempted", cluster.grace)


def job_facts(job: str) -> dict[str, str]:
    """What `scontrol show job` says; empty where it does not answer."""
    return dict(_FIELD.findall(_scontrol("show", "job", job)))


def slurm_grace(told: Mapping[str, str]) -> float | None:
    """Seconds to the kill as the partition (of a running job) or KillWait (of an ended one) has them."""
    if told.get("JobState") in _ENDED:
        found = re.search(r"^KillWait\s*= (\d+) sec", _scontrol("show", "config"), re.MULTILINE)
        return float(found[1]) if found else None
    return partition_grace(told.get("Partition", "")) if _has_time(told, "PreemptTime") else None


def partition_grace(name: str) -> float | None:
    """Seconds between a preemption's first signal and its kill; None where Slurm does not say."""
    text = dict(_FIELD.findall(_scontrol("show", "partition", name))).get("GraceTime", "") if name else ""
    return float(text) if text.isdigit() else None


def _scontrol(*arguments: str) -> str:
    """Its answer; empty where it has none."""
    try:
        done = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def slurm_cause(
    told: Mapping[str, str], *, now: float, grace: float | None, restarts: int | None = None
) -> Cause:
    """Preemption has a PreemptTime, and EndTime is its deadline, unless the job's time is unlimited.

    A job that has ended gets its TERM as well, KillWait before its KILL: cancelled; out of time, when nobody asked for
    --signal; or requeued already by Slurm (a preemption without GraceTime) or by a person, which counts as a restart.
    """
    if told.get("JobState") not in _ENDED:
        limit = _until(told.get("EndTime"), now)
        seconds = grace if limit is None else limit
        if _has_time(told, "PreemptTime"):
            return Cause("preempted", seconds)
        return Cause("signalled" if limit is None else "time limit", seconds)
    if told.get("Restarts", "").isdigit() and int(told["Restarts"]) > (restarts or 0):
        return Cause("requeued", grace, again=False)
    timed_out = told.get("Reason") == "TimeLimit"
    return Cause("time limit" if timed_out else "cancelled", grace, again=timed_out)


def _has_time(told: Mapping[str, str], field: str) -> bool:
    return told.get(field, "None") not in ("None", "Unknown", "(null)")


def _until(text: str | None, now: float) -> float | None:
    try:
        return time.mktime(time.strptime(text or "", "%Y-%m-%dT%H:%M:%S")) - now
    except ValueError:
        return None


def requeue(job: str) -> str | None:
    """Ask Slurm to start the job again; None when it will, else why not."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.strip() or done.stdout.strip()
    if done.returncode == 0 or "pending" in said:  # by Slurm itself, by a person, by an earlier handler
        return None
    return said.splitlines()[0] if said else f"exit {done.returncode}"
