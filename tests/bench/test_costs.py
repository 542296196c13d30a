"""scripts/bench/costs in tiny sizes: every table has its figures. What they are is nobody's promise here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
Import = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def tables(imported: Import) -> Any:
    return imported("tables")


@pytest.fixture(scope="module")
def stamps(imported: Import) -> Any:
    return imported("stamps")


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


# ---- what is measured of a training ----


def training(stamps: ModuleType) -> Any:
    """Twelve steps of 1 s; after each fourth 5 s of standing still, and the two steps after that take 2 s each."""
    seen, now, cpu = stamps.Stamps(Path(), "*", window=2), 100.0, 0.0
    for step in range(1, 13):
        slow = step > 4 and step % 4 in (1, 2)
        now, cpu = now + (2 if slow else 1), cpu + (3 if slow else 1)
        load = stamps.Load(capacity=2 * now, foreign=0.5 * now, own=cpu)
        gap = 5.25 if step % 4 == 0 else 0.25
        seen.moments.append(stamps.Moment(now, now, load, peak=100 * step, resumed=now + gap))
        now += gap
    return seen


def test_a_window_with_a_checkpoint_is_compared_with_the_plain_one_after_it(stamps: ModuleType) -> None:
    seen = training(stamps)
    saved = seen.moments[7]
    commits = [stamps.Commit(4, saved.clock + 1, 30), stamps.Commit(8, saved.clock + 6, 40)]
    (window,) = seen.windows(commits)
    assert (window.blocked, window.lost, window.cpu, window.plain) == (5.0, 7.0, 4.0, 2.5)
    assert (window.published, window.late, window.bytes) == (6.0, False, 40)
    assert (window.foreign, window.peak, seen.baseline()) == (0.25, 1200, 400)


def test_a_commit_without_a_step_in_its_name_is_told_by_its_time(stamps: ModuleType) -> None:
    seen = training(stamps)
    before, after = (stamps.Commit(None, seen.moments[7].clock + x, 40) for x in (-3, 2))
    (window,) = seen.windows([before, after])
    assert window.published == 2.0
    (window,) = seen.windows([before])
    assert (window.published, window.late) == (None, True)


def test_where_nothing_is_saved_the_windows_are_compared_all_the_same(
    stamps: ModuleType, tables: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "anything").touch()
    assert stamps.committed(tmp_path, "") == []
    seen = training(stamps)
    seen.marks = ""
    windows = stamps.as_dicts(seen.windows([]))
    assert [(w["lost"], w["published"], w["late"]) for w in windows] == [(7, None, None)]
    found = {way: tables.Series([{"windows": windows}], most=1) for way in ("none", "ours")}
    none, ours = tables.throughput(found, 2).splitlines()[2:]
    assert none == "| nothing is saved | 7.00 | 280 | - | 4.00 | - | - | - | - | - | 0 of 1 |"
    assert ours.split(" | ")[3] == "1.00"


def test_what_is_not_finished_is_no_commit(stamps: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "24.orbax-checkpoint-tmp-1").mkdir()
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "data").write_bytes(b"1234")
    (mark,) = stamps.committed(tmp_path, "[0-9]*")
    found = stamps.Commit.at(mark)
    assert (found.step, found.bytes) == (12, 4)


# ---- the measurement ----


def test_what_does_not_vary_is_measured_once(imported: Import) -> None:
    seen: list[str] = []

    def run(job: dict[str, Any]) -> dict[str, Any]:
        seen.append(job["name"])
        return job

    costs, bench = imported("costs"), SimpleNamespace(run=run)
    trials = {"d": "retained", "a": "trained", "b": "trained"}
    jobs = {(trial, "", name): {"name": name} for name, trial in trials.items()}
    costs.measure(jobs, bench, 3)
    assert seen == ["d", "a", "b", "b", "a", "a", "b"]
    alone = {key: jobs[key] for key in jobs if key[0] == "retained"}
    assert costs.measure(alone, bench, 3) == {("retained", "", "d"): [{"name": "d"}]}


@pytest.mark.slow
def test_throughput_disk_and_memory_of_ours_and_a_peer() -> None:
    found = json.loads(ran("--rows", "b,d,e", "--ways", "ours,backup", "--json"))
    results = {(r["job"]["trial"], r["size"], r["job"]["way"]): r["rounds"][0] for r in found["results"]}
    for way in ("ours", "backup"):
        trained = results["trained", "50M", way]
        assert trained["variables"] == 74
        assert len(trained["windows"]) == 2
        assert all(w["blocked"] is not None and w["bytes"] >= trained["state"] for w in trained["windows"])
    kept = results["retained", "", "ours"]
    assert kept["kept"] == 10
    assert kept["verified"] == {"here": 10, "elsewhere": 10}


@pytest.mark.slow
def test_our_load_in_its_parts() -> None:
    lines = ran("--rows", "c", "--ways", "ours").splitlines()
    assert len([line for line in lines if line.startswith("| ") and " of 3 |" in line]) == 5
    assert any(line.startswith("The proof (first line less third): ") for line in lines)
