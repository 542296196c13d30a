"""What scripts/bench/survival measures: our promises, and what Keras loses (we want to hear when it no longer does)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "survival"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    command = [sys.executable, str(SCRIPT), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=600)
    found: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return found


def row(rows: list[dict[str, Any]], saved: str, loaded: str) -> dict[str, Any]:
    """The one row whose names begin so."""
    (found,) = (r for r in rows if r["saved"].startswith(saved) and r["loaded"].startswith(loaded))
    return found


@pytest.mark.parametrize("saved", ["`.h5`", "`.keras`", "`resume.fit"])
def test_ours_keeps_the_optimizer_and_goes_on_equal(rows: list[dict[str, Any]], saved: str) -> None:
    ours = row(rows, saved, "`resume.")
    assert ours["iterations"] == [7, 7]
    assert ours["slots"] == [12, 12]
    assert ours["next"] == "yes"


def test_our_checkpoint_also_keeps_seeds_and_position(rows: list[dict[str, Any]]) -> None:
    ours = row(rows, "`resume.fit", "`resume.fit")
    assert ours["seeds"]
    assert ours["position"]
    assert ours["next_dropout"] == "yes"


def test_keras_still_loses_the_slots_of_an_h5(rows: list[dict[str, Any]]) -> None:
    plain = row(rows, "`.h5`", "Keras")
    assert plain["iterations"] == [7, 7]
    assert plain["slots"] == [0, 12]
    assert plain["next"].startswith("raises: Unknown variable")


def test_keras_still_repeats_batches_after_a_backup(rows: list[dict[str, Any]]) -> None:
    plain = row(rows, "`BackupAndRestore", "Keras")
    assert not plain["position"]
    assert plain["next"] == "no"
