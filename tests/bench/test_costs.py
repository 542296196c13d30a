"""scripts/bench/costs in tiny sizes: every table has its figures. What they are is nobody's promise here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.fixture(scope="module")
def tables() -> Any:
    sys.path.insert(0, str(BENCH))
    try:
        import tables
    finally:
        sys.path.remove(str(BENCH))
    return tables


def ran(*arguments: str) -> str:
    command = [sys.executable, str(BENCH / "costs"), "--quick", "--rounds", "1", "--most", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# ---- the tables ----


def series(tables: ModuleType, *rounds: list[float], foreign: float = 0.0) -> Any:
    return tables.Series(
        [{"windows": [{"lost": x, "foreign": foreign} for x in each]} for each in rounds], most=0.1
    )


def test_ratios_are_of_one_round_each(tables: ModuleType) -> None:
    """A machine that is ten times slower in the second round changes no ratio."""
    ours, theirs = series(tables, [1, 1, 9], [10, 10, 10]), series(tables, [4, 4], [40])
    assert ours.under(theirs, "lost") == [0.25, 0.25]


def test_disturbed_windows_are_thrown_away_and_counted(tables: ModuleType) -> None:
    ours, disturbed = series(tables, [1, 1]), series(tables, [4, 4], foreign=0.2)
    assert disturbed.thrown() == "2 of 2"
    assert disturbed.all("lost") == []
    assert ours.under(disturbed, "lost") == []
    assert tables.spread([]) == "-"


def test_a_way_that_cannot_run_says_so(tables: ModuleType) -> None:
    found = {"orbax": tables.Series([{"error": "ModuleNotFoundError: No module named 'orbax'"}], most=1)}
    assert "not measured: ModuleNotFoundError: No module named 'orbax'" in tables.throughput(found, 12)


def test_spread(tables: ModuleType) -> None:
    assert tables.spread([1, 2, 3, 4, 5]) == "3.00 (2.00 to 4.00)"
    assert tables.spread([0.1234]) == "0.123"


# ---- the measurement ----


@pytest.mark.slow
def test_throughput_disk_and_memory_of_ours_and_a_peer() -> None:
    found = json.loads(ran("--rows", "b,d,e", "--ways", "ours,backup", "--json"))
    results = {(r["job"]["trial"], r["size"], r["job"]["way"]): r["rounds"][0] for r in found["results"]}
    for way in ("ours", "backup"):
        trained = results["trained", "50 M", way]
        assert trained["variables"] == 74
        assert len(trained["windows"]) == 2
        assert all(w["blocked"] is not None and w["bytes"] >= trained["state"] for w in trained["windows"])
    kept = results["retained", "", "ours"]
    assert kept["kept"] == 10
    assert kept["verified"] == {"here": 10, "elsewhere": 10}


@pytest.mark.slow
def test_our_load_in_its_parts() -> None:
    lines = ran("--rows", "c", "--ways", "ours").splitlines()
    assert len([line for line in lines if line.startswith("| ") and " of 2 |" in line]) == 5
    assert any(line.startswith("The proof (first line less third): ") for line in lines)
