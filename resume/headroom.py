"""How much memory this process may still take on this machine, by the kernel's word and by its control groups'."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def available(root: Path = Path("/")) -> int | None:
    """Bytes; None where nobody tells. `root`: where /proc and /sys are."""
    limits = [room for room in (_machine(root), *_groups(root)) if room is not None]
    return max(min(limits), 0) if limits else None


def _machine(root: Path) -> int | None:
    """What could be used without swapping (proc(5), MemAvailable)."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _groups(root: Path) -> Iterator[int]:
    """Of each control group above this process: its limit less what it uses and could not drop at once.

    Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html, memory.max and memory.current; version 1 calls them
    memory.limit_in_bytes and memory.usage_in_bytes. Slurm limits a job's memory by these, and so does Kubernetes.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            yield from _rooms(root / "sys/fs/cgroup", path, "memory.max", "memory.current")
        elif "memory" in kinds.split(","):
            top = root / "sys/fs/cgroup/memory"
            yield from _rooms(top, path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _rooms(top: Path, path: str, limit: str, used: str) -> Iterator[int]:
    group = top / path.lstrip("/")
    for folder in (group, *group.parents):
        most, now = _text(folder / limit).strip(), _text(folder / used).strip()
        cached = _cached(_text(folder / "memory.stat"))
        if most.isdigit() and now.isdigit():
            yield int(most) - int(now) + cached
        if folder == top:
            return


def _cached(stat: str) -> int:
    """Of files, and not in use. Version 1 counts a group's own apart from the total of all below it."""
    found = {key: int(value) for key, value in re.findall(r"^(\w*inactive_file) (\d+)$", stat, re.MULTILINE)}
    return found.get("total_inactive_file", found.get("inactive_file", 0))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
