"""How much memory is free: by the kernel, and by each control group above this process, whichever says least."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume import headroom

MB = 1 << 20
MEMINFO = "MemTotal:       4096000 kB\nMemFree:          10 kB\nMemAvailable:    1024000 kB\nSwapFree: 9 kB\n"
AVAILABLE = 1_024_000 * 1024


def machine(root: Path, cgroup: str = "", meminfo: str = MEMINFO) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(meminfo)
    (root / "proc/self/cgroup").write_text(cgroup)
    return root


def group(root: Path, path: str, limit: object, used: object, *, cached: int | None = None) -> None:
    """A group of version 2."""
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    if cached is not None:
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\nactive_file 7\n")


def old_group(root: Path, path: str, limit: object, used: object, *, cached: int = 0) -> None:
    folder = root / "sys/fs/cgroup/memory" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"cache 5\ninactive_file 3\ntotal_inactive_file {cached}\n")


def test_this_machine() -> None:
    free = headroom.available()
    assert free is not None
    assert 0 < free < 1 << 50


def test_where_nobody_tells(tmp_path: Path) -> None:
    assert headroom.available(tmp_path) is None


def test_by_the_kernel_alone(tmp_path: Path) -> None:
    assert headroom.available(machine(tmp_path)) == AVAILABLE


def test_an_old_kernel_says_nothing_of_what_is_available(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/job\n", "MemTotal: 4096000 kB\nMemFree: 10 kB\n")
    assert headroom.available(root) is None
    group(root, "job", 10 * MB, MB)
    assert headroom.available(root) == 9 * MB


@pytest.mark.parametrize("tightest", ["slurm/job_1/step_0", "slurm/job_1", "slurm"])
def test_any_group_above_may_be_the_tightest(tmp_path: Path, tightest: str) -> None:
    root = machine(tmp_path, "0::/slurm/job_1/step_0\n")
    for path in ("slurm/job_1/step_0", "slurm/job_1", "slurm"):
        limit = 100 * MB if path == tightest else 500 * MB
        group(root, path, limit, 40 * MB)
    group(root, "slurm/job_2", 41 * MB, 40 * MB)  # of others
    assert headroom.available(root) == 60 * MB


def test_inside_a_container_its_own_group_is_the_top(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n")
    group(root, "", 64 * MB, 30 * MB)
    (root / "sys/fs/memory.max").write_text("1\n")  # above the top: no group
    (root / "sys/fs/memory.current").write_text("1\n")
    assert headroom.available(root) == 34 * MB


def test_a_group_outside_of_what_a_container_sees(tmp_path: Path) -> None:
    """As a process reads that was moved into a namespace from elsewhere (cgroup_namespaces(7))."""
    root = machine(tmp_path, "0::/../other\n")
    group(root, "", 64 * MB, 30 * MB)
    assert headroom.available(root) == 34 * MB


def test_what_a_group_could_drop_counts_as_free(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/job\n")
    group(root, "job", 100 * MB, 99 * MB, cached=50 * MB)
    assert headroom.available(root) == 51 * MB


def test_a_group_without_a_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/job\n")
    group(root, "job", "max", 99 * MB)
    assert headroom.available(root) == AVAILABLE


def test_a_group_beyond_its_limit_has_nothing_and_not_less(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/job\n")
    group(root, "job", 100 * MB, 101 * MB)
    assert headroom.available(root) == 0


V1 = "12:pids:/user\n5:cpu,memory:/slurm/job_1\n1:name=systemd:/init:scope\n"


def test_groups_of_version_1(tmp_path: Path) -> None:
    root = machine(tmp_path, V1)
    old_group(root, "", 2**63 - 4096, 3_000 * MB)  # no limit, as version 1 says it
    old_group(root, "slurm", 300 * MB, 290 * MB, cached=20 * MB)
    old_group(root, "slurm/job_1", 200 * MB, 100 * MB)
    assert headroom.available(root) == 30 * MB


def test_both_versions_at_once(tmp_path: Path) -> None:
    """A hybrid hierarchy: memory belongs to version 1, and what version 2 has knows of none."""
    root = machine(tmp_path, V1 + "0::/user/session:1\n")
    (root / "sys/fs/cgroup/user/session:1").mkdir(parents=True)
    old_group(root, "slurm/job_1", 200 * MB, 150 * MB)
    assert headroom.available(root) == 50 * MB


def test_another_controller_is_no_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, "5:memory_like:/job\n4:cpuset:/job\n")
    old_group(root, "job", 2 * MB, MB)
    assert headroom.available(root) == AVAILABLE
