"""How a configuration is made short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resume.engine.drill.plan import Plan

FOUND = {
    "kind": "dataset", "takes_epoch": True, "steps": 45, "steps_given": False, "block": 1, "validates": True,
    "validation_steps": None, "validation_batches": 3, "source": "data.train (a.b)", "ends": None,
}  # fmt: skip


def plan(**facts: Any) -> Plan:
    return Plan.of(FOUND | facts, epochs=3, steps=8)


def test_data_by_epoch_is_cut() -> None:
    found = plan()
    assert (found.steps_per_epoch, found.every_steps) == (8, 2)
    assert found.notes == ("epochs are cut to 8 of 45 batches",)


def test_short_epochs_stay_as_they_are() -> None:
    found = plan(steps=6)
    assert (found.steps_per_epoch, found.every_steps, found.notes) == (None, 2, ())


def test_blocks_of_steps_stay_whole() -> None:
    found = plan(block=5)
    assert (found.steps_per_epoch, found.every_steps) == (10, 5)


def test_a_dataset_for_all_epochs_is_cut_only_where_it_is_long() -> None:
    assert plan(takes_epoch=False, steps=60).steps_per_epoch is None
    found = plan(takes_epoch=False, steps=500)
    assert found.steps_per_epoch == 8
    assert "not rehearsed" in found.notes[1]
    assert plan(takes_epoch=False, steps_given=True).steps_per_epoch == 8
    assert plan(takes_epoch=False, kind="sequence").steps_per_epoch == 8


def test_long_validations_are_cut() -> None:
    assert plan(validation_batches=100).validation_steps == 4
    assert plan(validation_batches=None).validation_steps is None
    assert plan(validation_batches=100, validation_steps=50).validation_steps is None


def test_overrides() -> None:
    found = plan().overrides(Path("/tmp/it's"))
    assert found[0] == "run_dir='/tmp/it\\'s'"
    assert {
        "++deterministic=true",
        "++cluster.requeue=false",
        "++fit.epochs=3",
        "++fit.steps_per_epoch=8",
    } <= set(found)
    assert not [text for text in found if text.endswith("=None")]
