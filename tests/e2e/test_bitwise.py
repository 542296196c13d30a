"""Killed and repeated, a run ends as the unbroken one: arrays, History, CSV and TensorBoard scalars, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
EXPERIMENTS = sorted(path.stem for path in (HERE / "conf" / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def ends() -> dict[str, dict[str, Any]]:
    """What became of each experiment. KILLS and KILL_SEED choose others than the five kills of every run."""
    kills, seed = os.environ.get("KILLS", "5"), os.environ.get("KILL_SEED", "0")
    command = [sys.executable, "-W", "ignore", str(HERE / "kills.py"), "--kills", kills, "--seed", seed]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {end["experiment"]: end for end in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_killed_run_ends_as_the_unbroken_one(ends: dict[str, dict[str, Any]], name: str) -> None:
    end = ends[name]
    assert "error" not in end, end["error"]
    assert end["killed"] >= 1
    assert end["arrays"] > 10
    assert end["arrays_differ"] == []
    assert end["progress_differs"] == []
    assert end["scalars_differ"] == []
    assert not end["csv_differs"]
    assert end["lineage_breaks"] == []
    assert end["iterations"][0] == end["iterations"][1] > 0
