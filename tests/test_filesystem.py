"""What a place can promise is tried out there, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resume import filesystem
from resume.check import Check, guarded


def found(run: Path, *, each: int | None = 1000, more: int = 1) -> dict[str, Check]:
    return {check.check: check for check in filesystem.checks(run, each=each, more=more)}


def test_a_good_place(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    checks = found(run)
    assert {check.state for name, check in checks.items() if name != "file system"} == {"ok"}
    assert checks["run directory"].found == f"{run}: can be written to, to be made in {tmp_path}"
    assert checks["lock"].found == "a second process was refused, and had it once this one let go"
    assert checks["rename and sync"].found.startswith("1 MiB written, synced and renamed in ")
    assert list(tmp_path.iterdir()) == []  # not even the run directory


def test_a_run_that_is_there(tmp_path: Path) -> None:
    assert found(tmp_path)["run directory"].found == f"{tmp_path}: can be written to"


def test_nowhere_to_write() -> None:
    checks = found(Path("/proc/runs/a"))
    assert list(checks) == ["run directory"]
    assert checks["run directory"].state == "problem"
    assert checks["run directory"].found.startswith("/proc: cannot be written to")
    assert checks["run directory"].advice.endswith("run_dir=DIR")


def test_room(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert found(tmp_path, each=free // 10, more=3)["free space"].state == "ok"
    assert found(tmp_path, each=free // 4, more=3)["free space"].state == "warning"
    assert found(tmp_path, each=free, more=3)["free space"].state == "problem"
    assert found(tmp_path, each=None)["free space"].state == "warning"


@pytest.mark.parametrize(("each", "state"), [(2_000_000, "problem"), (500_000, "ok"), (None, "warning")])
def test_a_limit_on_files(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]], each: int | None, state: str
) -> None:
    code = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        "from resume import filesystem\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))\n"
        "each = json.loads(sys.argv[2])\n"
        "checks = {c.check: c for c in filesystem.checks(Path(sys.argv[1]), each=each)}\n"
        "print(checks['file size limit'].state)\n"
    )
    assert python(code, tmp_path, json.dumps(each)).communicate(timeout=60)[0] == f"{state}\n"


@pytest.mark.skipif(filesystem.mounted(Path("/dev/shm"))[0] != "tmpfs", reason="/dev/shm is no tmpfs here")
def test_memory_is_no_place_for_checkpoints() -> None:
    check = found(Path("/dev/shm/runs/a"))["file system"]
    assert (check.state, check.found.split(":")[0]) == ("warning", "tmpfs")


def test_what_is_mounted() -> None:
    assert filesystem.mounted(Path("/proc"))[0] == "proc"
    assert "rw" in filesystem.mounted(Path("/proc"))[1]
    assert filesystem.mounted(Path("/"))[0]


def test_a_look_that_fails_is_a_finding() -> None:
    def look() -> list[Check]:
        raise OSError("stale file handle\nmore")

    (check,) = guarded("lock", look)
    assert (check.check, check.state, check.found) == ("lock", "problem", "OSError: stale file handle")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (2.5e9, "2.5 GB"), (3e15, "3000.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert filesystem.size(count) == text
