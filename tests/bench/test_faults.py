"""scripts/bench/faults with few faults: our promises, and that its judgement can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
NOT_HERE = ("no tmpfs can be mounted", "no library is preloaded")  # what a machine may lack

FORGETFUL = """
import sys

sys.path.insert(0, sys.argv.pop(1))
import numpy as np
import restores
import strikes

import resume


def forgetful(training, tell):
    resume.load(training.folder, model=training.model)
    for slot in training.model.optimizer.variables[2:]:
        slot.assign(np.zeros(slot.shape))
    tell(restores.told(training.model))


restores.RESTORES["ours"] = forgetful
strikes.main()
"""


@pytest.fixture(scope="module")
def faults(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("faults")


def result(**facts: Any) -> dict[str, Any]:
    right = {
        "kind": "refused", "on_failure": "stop", "seed": 1, "due": 8, "restored": 4, "lost": 1.0, "missing": 1,
        "unusable": False, "wrong": False, "told": True, "refused": "", "said": "",
    }  # fmt: skip
    return right | facts


# ---- the faults and the table ----


def test_the_same_seed_gives_the_same_faults(faults: Any) -> None:
    plan = faults.plan(list(faults.KINDS), 80, 3)
    assert plan == faults.plan(list(faults.KINDS), 80, 3)
    assert plan != faults.plan(list(faults.KINDS), 80, 4)
    counts = {kind: sum(f["kind"] == kind for f in plan) for kind in faults.KINDS}
    assert counts == {"killed": 20, "full": 20, "limited": 10, "refused": 10, "flipped": 20}
    assert sum(f["on_failure"] == "warn" for f in plan) == 20


def test_a_line_counts_each_kind_of_failure(faults: Any) -> None:
    told_nobody = {"told": False, "missing": 0, "lost": 0.0}
    results = [
        result(),
        result(unusable=True, restored=None, lost=None),
        result(wrong=True, lost=None),
        result(lost=3.0),
        result(lost=2.0),
        result(lost=2.0, missing=2),
        result(**told_nobody, refused="rename /checkpoints/step-00000008"),
        result(**told_nobody, refused="fwrite /logs/resume/events.out.tfevents.1"),
    ]
    cells = faults.cells(("ours", "refused", "stop"), results)
    assert cells[2:] == ["8", "6", "1", "1", "1.5, 3", "6, 2 (1)"]
    assert [faults.is_bad(r) for r in results] == [False, True, True, True, True, False, True, False]


def test_what_cannot_be_measured_says_so(faults: Any) -> None:
    fault = {"kind": "full", "on_failure": "stop", "seed": 1, "error": "no tmpfs can be mounted: denied"}
    assert "not measured: no tmpfs can be mounted: denied" in faults.report({"tf": [fault]})


def test_a_way_that_restores_nothing_undisturbed_has_one_line(faults: Any) -> None:
    why = "restores no undisturbed run bit for bit: not those of step 24: optimizer"
    found = faults.report({"tf": [{"kind": faults.CONTROL, "on_failure": "stop", "error": why}]})
    assert [line for line in found.splitlines() if why in line] == found.splitlines()[2:]


# ---- the measurement ----


@pytest.mark.slow
def test_ours_loses_nothing(faults: Any) -> None:
    kinds = ["killed", "full", "refused", "flipped"]  # limited is full in another way
    command = [str(BENCH / "faults"), "--faults", "4", "--kinds", ",".join(kinds), "--ways", "ours", "--json"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)["results"]["ours"]
    done_here = [r for r in results if not any(text in r.get("error", "") for text in NOT_HERE)]
    assert len(done_here) >= 2
    assert [faults.verdict(r) for r in done_here if faults.is_bad(r)] == []
    assert any(r["missing"] for r in done_here)


@pytest.mark.slow
def test_a_way_that_forgets_the_moments_fails_the_control_and_is_silently_wrong(tmp_path: Path) -> None:
    asked = {"kind": "flipped", "on_failure": "stop", "seed": 1}
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL, str(BENCH), "ours", str(tmp_path)],
        input=json.dumps(asked), capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(BENCH.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    control, found = map(json.loads, done.stdout.splitlines())
    assert control == {"control": "not those of step 24: optimizer"}
    assert (found["restored"], found["wrong"], found["unusable"]) == (20, True, False)
