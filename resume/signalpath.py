"""The way of a signal from the scheduler to this process: who stands between, and what of it arrives.

Slurm signals the tasks of job steps. A shell between it and us dies of the signal, and we are killed a moment later,
unheard; what a batch script starts without srun belongs to no step, and hears nothing until the grace has ended. In a
container, a shell that is process 1 ignores SIGTERM, and no shell passes on what it gets.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh"}
_STEP = re.compile(r"slurmstepd: \[\d+(?:\+\d+)?\.(\w+)")
_CURE = "let the last line of the batch script be: exec srun python -m resume train ..."


@dataclass(frozen=True)
class Process:
    pid: int
    command: tuple[str, ...]

    @property
    def is_shell(self) -> bool:
        return bool(self.command) and Path(self.command[0]).name.lstrip("-") in _SHELLS

    def __str__(self) -> str:
        return f"{' '.join(self.command)[:60].strip()} (pid {self.pid})"


@dataclass(frozen=True)
class Obstacle:
    found: str
    cure: str

    def __str__(self) -> str:
        return f"{self.found}; {self.cure}"


def ancestors(pid: int | None = None) -> Iterator[Process]:
    """Of a process, the nearest first, as far as /proc shows them."""
    parent = os.getppid() if pid is None else _parent(pid)
    while parent:
        yield Process(parent, _command(parent))
        parent = _parent(parent)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _command(pid: int) -> tuple[str, ...]:
    try:
        return tuple(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0"))
    except OSError:
        return ()


def obstacle(
    kind: str, *, chain: Iterable[Process] | None = None, environ: Mapping[str, str] = os.environ
) -> Obstacle | None:
    """What keeps the scheduler's signals from this process; None where nothing that can be seen does."""
    above = list(ancestors() if chain is None else chain)
    if kind == "slurm":
        return _under_slurm(above, environ)
    shells = [p for p in above if p.is_shell and (kind == "kubernetes" or p.pid == 1)]
    if not shells:
        return None
    return Obstacle(
        f"{shells[-1]} stands between the container's runtime and this process, and passes no SIGTERM on",
        "start python itself: command: [python, -m, resume, train, ...], or with exec as the script's last line",
    )


def _under_slurm(above: list[Process], environ: Mapping[str, str]) -> Obstacle | None:
    """By slurmstepd's title, `slurmstepd: [7.batch]` or `[7.0]`; where it is out of sight, by what srun exports."""
    steps = [_STEP.match(" ".join(p.command)) for p in above]
    place = next((i for i, step in enumerate(steps) if step), len(above))
    found = steps[place] if place < len(above) else None
    in_step = found[1].isdigit() if found else "SLURM_STEP_ID" in environ
    shells = [p for p in above[:place] if p.is_shell]
    if shells:
        cure = (
            "write exec before python in what srun starts, or let srun start python itself"
            if in_step
            else _CURE
        )
        return Obstacle(
            f"{shells[-1]} stands between Slurm and this process: Slurm's first signal ends it, and this process is "
            "killed without having heard of it", cure
        )  # fmt: skip
    if in_step:
        return None
    return Obstacle(
        "this process was started without srun and belongs to no job step: it hears nothing until the grace has ended",
        _CURE,
    )


def unheard(signals: Iterable[signal.Signals], status: str | None = None) -> dict[str, list[str]]:
    """Which of the signals this process was started with `ignored` or `blocked`, by /proc/self/status.

    Meant for a process that has installed no handlers yet.
    """
    try:
        text = Path("/proc/self/status").read_text() if status is None else status
    except OSError:
        return {"ignored": [], "blocked": []}
    masks = {
        name: int(mask, 16) for name, mask in re.findall(r"^Sig(Ign|Blk):\s*([0-9a-f]+)", text, re.MULTILINE)
    }
    named = {"ignored": masks.get("Ign", 0), "blocked": masks.get("Blk", 0)}
    return {how: [s.name for s in signals if mask >> (s - 1) & 1] for how, mask in named.items()}
