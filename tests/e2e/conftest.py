"""Many command lines in one go: each is a process of its own, and TensorFlow is imported once for all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    code: int
    output: str


Batch = Callable[[list[dict[str, Any]]], list[Done]]


@pytest.fixture(scope="session")
def batch() -> Batch:
    def run(cases: list[dict[str, Any]]) -> list[Done]:
        command = [sys.executable, "-W", "ignore", str(Path(__file__).parent / "batch.py")]
        cases = [{**case, "folder": str(case["folder"])} for case in cases]
        done = subprocess.run(command, input=json.dumps(cases), stdout=subprocess.PIPE, check=True, text=True)
        return [Done(**result) for result in json.loads(done.stdout.splitlines()[-1])]

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What needs a Slurm and did not get one is not green: it is said where nobody overlooks it."""
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "slurm" in r.keywords]
    if skipped:
        reason = (
            skipped[0].longrepr[2] if isinstance(skipped[0].longrepr, tuple) else str(skipped[0].longrepr)
        )
        terminalreporter.write_sep("!", f"{len(skipped)} SLURM TESTS DID NOT RUN", red=True, bold=True)
        terminalreporter.write_line(reason.removeprefix("Skipped: "), red=True)
