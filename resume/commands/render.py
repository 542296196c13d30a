"""`resume render cluster=slurm|kubernetes [OVERRIDES]`: a job file that starts this run as often as it takes."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from resume import clusters, urls
from resume.commands import composition
from resume.errors import EXIT_COMPLETED, ContinuityError, NoCheckpointError, NoProgressError, UsageError
from resume.settings import Settings

_KINDS = ("slurm", "kubernetes")
_FINAL = sorted(e.exit_code for e in (UsageError, ContinuityError, NoCheckpointError, NoProgressError))
_HELP = """\
usage: resume render cluster=slurm|kubernetes [render.KEY=VALUE ...] [OVERRIDES of resume train]

Prints a job file whose every start runs the same `resume train`; what it finds in run_dir decides where it begins.
Lines that are left as comments, and IMAGE and CLAIM, name what only you know; render.KEY=VALUE fills them in:
  slurm       $slurm
  kubernetes  $kubernetes
"""

# Comments stand on lines of their own: what follows an option on an #SBATCH line may be read as part of it.
_SLURM = Template("""\
#!/usr/bin/env bash
# $command
# Submit with sbatch, in the folder where `python -m resume` works. A requeued job runs this script again; what it
# finds in the run directory decides where it begins.
#SBATCH --job-name=$name
#SBATCH --output=$output
#SBATCH --open-mode=append
#SBATCH --requeue
# Seconds before the time limit; to the job step, not to the shell (no B:). A minute more than a save needs.
#SBATCH --signal=USR2@$notice
#SBATCH --ntasks=1
$options

# Since Slurm 22.05, srun does not take it over from sbatch.
export SRUN_CPUS_PER_TASK=$${SLURM_CPUS_PER_TASK:-1}
export PYTHONUNBUFFERED=1
# exec srun: Slurm signals the tasks of job steps. A shell in between would die of the signal, and python with it.
exec srun $train
""")
_SLURM_OPTIONS = {  # key: option, a value to put your own in place of
    "partition": ("partition", "NAME"),
    "gres": ("gres", "gpu:1"),
    "cpus": ("cpus-per-task", "8"),
    "mem": ("mem", "32G"),
    "time": ("time", "04:00:00"),
}

# A batch/v1 Job. Strings are written as JSON, which is YAML too.
_KUBERNETES = Template("""\
# $command
# Create it with kubectl. Every pod runs the same command; what it finds in run_dir decides where it begins.
apiVersion: batch/v1
kind: Job
metadata:
  name: $name
spec:
  # Of crashes; a pod that was sent away does not count.
  backoffLimit: $retries
  podFailurePolicy:
    rules:
      # Another start would end the same way: usage, continuity broken, no whole checkpoint, no progress.
      - action: FailJob
        onExitCodes: {containerName: train, operator: In, values: $final}
      # Drained, preempted, evicted; or left in time after a SIGTERM.
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget, status: "True"}]
      - action: Ignore
        onExitCodes: {containerName: train, operator: In, values: $left}
  template:
    spec:
      # What podFailurePolicy asks for. A new pod starts once the one before is gone.
      restartPolicy: Never
      # From SIGTERM to SIGKILL: cluster.grace.
      terminationGracePeriodSeconds: $grace
      containers:
        - name: train
          # With this package and your code in it: render.image=...
          image: $image
          # No shell: as process 1 it would ignore SIGTERM.
          command:
$words
          env: [{name: PYTHONUNBUFFERED, value: "1"}]
$resources
          volumeMounts:
            - name: runs
              mountPath: $mount
      volumes:
        - name: runs
          persistentVolumeClaim:
            # Outlives the pods: render.claim=...
            claimName: $claim
""")
_RESOURCES = {  # key: resource, a value to put your own in place of
    "gpus": ("nvidia.com/gpu", "1"),
    "cpus": ("cpu", "8"),
    "mem": ("memory", "32Gi"),
}
_KEYS = {
    "slurm": (*_SLURM_OPTIONS, "output", "notice"),
    "kubernetes": ("image", "claim", *_RESOURCES, "retries"),
}


def run(arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(Template(_HELP).substitute({kind: ", ".join(keys) for kind, keys in _KEYS.items()}), end="")
        return EXIT_COMPLETED
    own = [a for a in arguments if a.lstrip("+").startswith("render.")]
    overrides = [a for a in arguments if a not in own]
    settings = composition.settings(overrides)
    if settings is None:
        return EXIT_COMPLETED
    kind = settings.cluster.kind
    if kind not in _KINDS:
        raise UsageError(f"cluster={kind}: a job file is for cluster=slurm or cluster=kubernetes.")
    job = _slurm if kind == "slurm" else _kubernetes
    typed = [_as_typed(a) for a in overrides]
    command = shlex.join(["python", "-m", "resume", "render", *typed, *own]).replace("\n", " ")
    print(job(settings, _given(kind, own), typed, command), end="")
    return EXIT_COMPLETED


def _given(kind: str, own: Sequence[str]) -> dict[str, str]:
    """The `render.` overrides by key."""
    found = {}
    for argument in own:
        key, _, value = argument.lstrip("+").removeprefix("render.").partition("=")
        if key not in _KEYS[kind]:
            raise UsageError(f"render.{key}: unknown for cluster={kind}. Keys: {', '.join(_KEYS[kind])}.")
        if not value or "\n" in value:
            raise UsageError(f"render.{key}: {value!r} is no value for a job file.")
        if key in ("notice", "retries", "gpus") and not value.isdigit():
            raise UsageError(f"render.{key}: {value!r} is not a whole number.")
        found[key] = value
    return found


def _as_typed(argument: str) -> str:
    """Without the quotes that shield a path from Hydra: `train` puts them there itself."""
    shielded = re.fullmatch(r"(\+{0,2}(?:ckpt|run_dir))='([^'\"\\]+)'", argument)
    plain = shielded and shielded[2] != "null" and "${" not in shielded[2]
    return f"{shielded[1]}={shielded[2]}" if shielded and plain else argument


def _slurm(settings: Settings, given: Mapping[str, str], overrides: Sequence[str], command: str) -> str:
    return _SLURM.substitute(
        command=command,
        name=shlex.quote(re.sub(r"\s+", "_", settings.name)),
        output=shlex.quote(given.get("output", "%x-%j.out")),
        notice=given.get("notice", "120"),
        options="\n".join(
            f"#SBATCH --{option}={shlex.quote(given[key])}"
            if key in given
            else f"##SBATCH --{option}={unknown}"
            for key, (option, unknown) in _SLURM_OPTIONS.items()
        ),
        train=shlex.join(_train(overrides)),
    )


def _kubernetes(settings: Settings, given: Mapping[str, str], overrides: Sequence[str], command: str) -> str:
    cluster = clusters.of(settings.cluster)
    if cluster.exit_code in _FINAL:
        raise UsageError(
            f"cluster.exit_code: {cluster.exit_code} also stands for an error that no retry mends."
        )
    run_dir, mount = _mounted(settings.run_dir, settings.checkpoint.local)
    words = _train(overrides)
    if run_dir != settings.run_dir:
        words = [*(w for w in words if not w.lstrip("+").startswith("run_dir=")), f"run_dir={run_dir}"]
    return _KUBERNETES.substitute(
        command=command,
        name=_label(settings.name),
        retries=given.get("retries", "6"),
        final=_FINAL,
        left=sorted({75, 143, cluster.exit_code}),
        grace=math.ceil(cluster.grace or 0),
        image=_text(given.get("image", "IMAGE")),
        words="\n".join(f"            - {_text(word.replace('$(', '$$('))}" for word in words),
        resources="\n".join(f"          {line}" for line in _resources(given)),
        mount=_text(mount),
        claim=_text(given.get("claim", "CLAIM")),
    )


def _train(overrides: Sequence[str]) -> list[str]:
    return ["python", "-m", "resume", "train", *overrides]


def _resources(given: Mapping[str, str]) -> list[str]:
    """Limits; as a comment what is not given, and all of it where nothing is."""
    nothing = "" if set(given) & set(_RESOURCES) else "# "
    lines = [f"{nothing}resources:", f"{nothing}  limits:"]
    for key, (name, unknown) in _RESOURCES.items():
        lines.append(f"{'' if key in given else '# '}    {name}: {_text(given.get(key, unknown))}")
    return lines


def _mounted(run_dir: str, local: str | None) -> tuple[str, str]:
    """The run directory as an absolute path, a relative one would be in the container; where its claim is mounted.

    For a run behind a URL the claim holds its tier in the pod.
    """
    if urls.is_remote(run_dir):
        if local is None:
            raise UsageError(
                f"run_dir={run_dir}: name where a pod keeps its own tier: checkpoint.local=/FOLDER"
            )
        return run_dir, _mounted(local, None)[0]
    if run_dir.startswith("~"):
        raise UsageError(f"run_dir={run_dir}: whose home would that be in a pod? Give an absolute path.")
    path = os.path.normpath("/" + run_dir.lstrip("/"))
    above = str(Path(path).parent)
    return path, path if above == "/" else above


def _label(name: str) -> str:
    """As a Job may be called: RFC 1123, short enough for what is added to a pod's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:52].strip("-") or "train"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
