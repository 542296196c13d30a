"""`resume doctor [OVERRIDES]`: what this machine and this configuration can promise, a line each."""

from __future__ import annotations

import argparse
import os
import re
import textwrap
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import chain
from pathlib import Path

from resume import clusters, filesystem, lineage, preempt, rundir, signalpath, tenure, urls
from resume.check import OK, PROBLEM, WARNING, Check, guarded
from resume.clusters import Cluster
from resume.commands import composition, quiet, table
from resume.errors import EXIT_COMPLETED, UsageError
from resume.objects import Objects
from resume.settings import Settings

SUPPORTED = {"tensorflow": ((2, 20), (2, 22)), "keras": ((3, 12), (3, 16)), "tf_keras": ((2, 20), (2, 22))}
_WIDTH = 110


def run(arguments: Sequence[str]) -> int:
    options, overrides = _parser().parse_known_args(arguments)
    settings = composition.settings(overrides)
    if settings is None:
        return EXIT_COMPLETED
    found = list(_checks(settings))
    if options.json:
        table.show([asdict(check) for check in found], as_json=True)
    else:
        print("\n".join(chain.from_iterable(map(_lines, found))))
    return UsageError.exit_code if any(check.state == PROBLEM for check in found) else EXIT_COMPLETED


def _lines(check: Check) -> list[str]:
    lines = [f"{check.state:<8} {check.check}: {check.found}"]
    return lines + textwrap.wrap(
        check.advice, _WIDTH, initial_indent=" " * 9 + "-> ", subsequent_indent=" " * 12
    )


def _checks(settings: Settings) -> Iterator[Check]:
    cluster = clusters.of(settings.cluster)
    run, url = urls.placed(settings.run_dir, local=settings.checkpoint.local)
    yield from guarded(
        "signals", lambda: _signals(cluster)
    )  # before TensorFlow and anybody's handlers are here
    yield from guarded("cluster", lambda: _cluster(cluster))
    yield from versions()
    sizes: list[int] = []
    yield from guarded("model", lambda: _engine(settings, run, sizes))
    each = sizes[0] if sizes else None
    standing = len(rundir.checkpoints(run))
    more = max(
        settings.checkpoint.keep_last + 1 - standing, 1
    )  # the newest is written before the oldest goes
    yield from guarded("run directory", lambda: filesystem.checks(run, each=each, more=more))
    if url is not None:
        yield from guarded("remote tier", lambda: [_remote(url)])
    yield from guarded("grace", lambda: [grace(cluster, _saves(run))])


def versions() -> Iterator[Check]:
    for name, (least, below) in SUPPORTED.items():
        wanted = f"{name}>={_dotted(least)},<{_dotted(below)}"
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            state = WARNING if name == "tf_keras" else PROBLEM
            yield Check(name, state, "not installed", f"pip install '{wanted}'")
            continue
        fits = least <= _numbers(found) < below
        yield Check(name, OK if fits else PROBLEM, found, "" if fits else f"pip install '{wanted}'")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _engine(settings: Settings, run: Path, sizes: list[int]) -> Iterator[Check]:
    """`sizes` is given a checkpoint's: of the newest that is there, else of the model that the configuration builds."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet.standard_error():
        from resume.engine import doctor as engine

        devices = engine.devices(settings.devices.kind)
    yield engine.backend()
    yield devices
    present = rundir.checkpoints(run)
    if present:
        sizes.append(sum(file.stat().st_size for file in present[-1].path.glob("*")))
        yield Check("checkpoint", OK, f"{filesystem.size(sizes[0])}, as {present[-1].path}")
        return
    with quiet.standard_error():
        sizes.append(engine.checkpoint_bytes(settings))
    yield Check("checkpoint", OK, f"{filesystem.size(sizes[0])} by the model, its optimizer and metrics")


def _cluster(cluster: Cluster) -> Iterator[Check]:
    job = f", job {cluster.job}" if cluster.job else ""
    heard = ", ".join(s.name.removeprefix("SIG") for s in cluster.signals)
    yield Check(
        "cluster", OK, f"{cluster.kind}{job}; saves and leaves on {heard} with exit code {cluster.exit_code}"
    )
    if cluster.kind != "slurm" or cluster.job is None:
        return
    told = clusters.job_facts(cluster.job)
    if not told:
        yield Check("scontrol", PROBLEM, "does not answer: why a signal came cannot be asked, nor a requeue",
                    "put Slurm's commands on the PATH of the job; else cluster.requeue=false cluster.grace=SECONDS"
                    )  # fmt: skip
    elif cluster.requeue and told.get("Requeue") == "0":
        yield Check("requeue", PROBLEM, "this job may not be requeued", "#SBATCH --requeue")


def _remote(url: str) -> Check:
    """Written there and removed; and whether a name that is taken stays so, by which two starts are told apart."""
    objects, probe = Objects(url), f"{tenure.FOLDER}/doctor-{uuid.uuid4().hex}"
    began = time.monotonic()
    objects.replace(probe, b"first")
    seconds = time.monotonic() - began
    try:
        objects.create(probe, b"second")
    except FileExistsError:
        return Check("remote tier", OK, f"{url}: an object written in {seconds * 1000:.0f} ms")
    finally:
        objects.remove([probe])
    return Check("remote tier", WARNING, f"{url}: takes a second object of one name (no If-None-Match)",
                 "two attempts that start in the same second may both train: start one at a time")  # fmt: skip


def _signals(cluster: Cluster) -> Iterator[Check]:
    obstacle = signalpath.obstacle(cluster.kind)
    if obstacle:
        yield Check("signal path", WARNING, obstacle.found, obstacle.cure)
    else:
        yield Check(
            "signal path", OK, "nothing that can be seen stands between the scheduler and this process"
        )
    unheard = signalpath.unheard(cluster.signals)
    for how, names in unheard.items():
        if names:
            yield Check(f"{how} signals", WARNING, f"this process was started with {', '.join(names)} {how}",
                        "train listens all the same, once it has begun; what it starts itself does not")  # fmt: skip


def _saves(run: Path) -> list[float]:
    """Seconds of each save that the run has measured."""
    return [float(r["seconds"]) for r in lineage.read(run) if r["event"] == "checkpoint" and "seconds" in r]


def grace(cluster: Cluster, saves: Sequence[float]) -> Check:
    """The time between a signal and the kill, against what a save has taken here."""
    seconds = cluster.grace if cluster.grace is not None else _slurm_grace(cluster)
    needed = preempt.needed(max(saves, default=0.0))
    took = (
        f"the longest of {len(saves)} saves took {max(saves):.1f} s"
        if saves
        else "no save has been measured yet"
    )
    if seconds is None:
        advice = "" if cluster.kind == "local" else "set it: cluster.grace=SECONDS"
        return Check("grace", OK if cluster.kind == "local" else WARNING, f"not known; {took}", advice)
    found = f"{seconds:.0f} s from signal to kill; {took}"
    if seconds < needed:
        return Check("grace", PROBLEM, found, f"{needed:.1f} s are needed, and a step besides: ask for a longer grace "
                     "(Slurm: --signal=USR2@SECONDS; Kubernetes: cluster.grace and terminationGracePeriodSeconds)"
                     )  # fmt: skip
    if seconds < 2 * needed:
        return Check("grace", WARNING, found, "a step that takes longer than what is left costs what was trained "
                     "since the last checkpoint: checkpoint.every_minutes")  # fmt: skip
    return Check("grace", OK, found)


def _slurm_grace(cluster: Cluster) -> float | None:
    partition = os.environ.get("SLURM_JOB_PARTITION", "")
    return clusters.partition_grace(partition) if cluster.kind == "slurm" else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume doctor",
        usage="resume doctor [--json] [OVERRIDES of resume train]",
        allow_abbrev=False,
        description="What this machine and this configuration can promise: ok, warning or problem, and what to do. "
        "Run it where the training will run, from the same job script. Trains nothing, and leaves nothing behind. "
        "Exit codes: 0 no problem, 2 a problem.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON list of {check, state, found, advice}")
    return parser
