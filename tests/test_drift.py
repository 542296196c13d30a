"""Drift: what is declared today against what was declared then."""

from __future__ import annotations

from typing import Any

import pytest

from resume import drift
from resume.continuity import Finding
from resume.errors import DriftError


def dense(units: int, **config: Any) -> dict[str, Any]:
    return {"class_name": "Dense", "module": "keras.layers", "config": {"units": units, **config}}


def sequential(*layers: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"layers": list(layers), **config}}


def test_layers_by_place_and_class() -> None:
    found = drift.layers(sequential(dense(3, activation="relu"), sequential(dense(2)), name="m"))
    assert found == {
        "0 Dense": {"units": 3, "activation": "relu"},
        "1 Sequential": {"inside 0 Dense": {"units": 2}},
    }
    assert drift.layers(None) == {}
    assert drift.layers({"class_name": "Mine", "config": {"width": 3}}) == {}


def test_names_and_places_are_no_settings() -> None:
    ours = sequential(dense(3, name="dense", dtype={"class_name": "DTypePolicy"}))
    theirs = sequential({**dense(3, name="dense_7"), "build_config": {"input_shape": [None, 3]}})
    assert drift.compare({"model": drift.layers(ours)}, {"model": drift.layers(theirs)}) == []


def test_objects_inside_are_compared_by_class_and_config() -> None:
    def initialised(kind: str, seed: int | None) -> dict[str, Any]:
        config = {"seed": seed}
        return sequential(
            dense(3, kernel_initializer={"module": "keras", "class_name": kind, "config": config})
        )

    ours, theirs = (drift.layers(initialised("Zeros", seed)) for seed in (None, 1))
    assert drift.lines(drift.compare({"model": ours}, {"model": theirs})) == [
        "model.0 Dense.kernel_initializer.Zeros.seed: None saved -> 1 configured"
    ]


def test_what_differs_is_named_leaf_by_leaf() -> None:
    saved = {"data": {"batch_size": 32, "path": "a"}, "fit": {"shuffle": True}}
    today = {"data": {"batch_size": 64, "path": "a", "cache": True}, "fit": {"shuffle": True}}
    assert drift.compare(saved, today) == [
        Finding("data.batch_size", "drift", "32", "64"),
        Finding("data.cache", "drift", "None", "True"),
    ]
    assert drift.compare(saved, saved) == []


def test_tuples_are_lists() -> None:
    assert drift.compare({"a": {"size": (3, (2, 1))}}, {"a": {"size": [3, [2, 1]]}}) == []
    assert drift.compare({"a": {"size": (3, 3)}}, {"a": {"size": [3, 4]}}) != []


def test_a_part_that_one_side_did_not_declare_is_not_compared() -> None:
    assert drift.compare({"loss": "mse", "data": None}, {"data": {"x": 1}, "model": {"y": 2}}) == []


def test_optimizer() -> None:
    config = {"name": "adam_3", "learning_rate": 0.001, "beta_1": 0.9}
    assert drift.optimizer("Adam", config) == {"class": "Adam", "learning_rate": 0.001, "beta_1": 0.9}
    assert drift.optimizer(None, None) == {"class": None}
    schedule = {"class_name": "CosineDecay", "config": {"decay_steps": 10, "name": "CosineDecay"}}
    assert drift.optimizer("Adam", {"learning_rate": schedule}) == {
        "class": "Adam",
        "learning_rate": {"CosineDecay": {"decay_steps": 10}},
    }


def test_of_another_optimizer_only_the_class_is_named() -> None:
    saved = {"optimizer": drift.optimizer("Adam", {"learning_rate": 0.1, "beta_1": 0.9})}
    today = {"optimizer": drift.optimizer("SGD", {"learning_rate": 0.2, "momentum": 0.0})}
    assert drift.lines(drift.compare(saved, today)) == ["optimizer.class: Adam saved -> SGD configured"]


def test_long_values_are_cut_short() -> None:
    (finding,) = drift.compare({"a": "x" * 200}, {"a": "y"})
    assert finding.saved == "x" * 77 + "..."


def test_drift_is_refused_until_somebody_says_which_side_holds() -> None:
    found = drift.compare({"optimizer": {"learning_rate": 0.001}}, {"optimizer": {"learning_rate": 0.01}})
    with pytest.raises(DriftError) as raised:
        drift.demand(found, prefer=None, source="runs/a")
    assert str(raised.value) == (
        "runs/a: today's configuration differs from the one it was made with; nothing was trained.\n"
        "  optimizer.learning_rate: 0.001 saved -> 0.01 configured\n"
        "Say which one holds: checkpoint.prefer=checkpoint or checkpoint.prefer=config"
    )
    assert raised.value.exit_code == 2
    for side in drift.PREFER:
        drift.demand(found, prefer=side, source="runs/a")
    drift.demand([], prefer=None, source="runs/a")


def test_another_optimizer_needs_a_fresh_state() -> None:
    found = drift.compare({"optimizer": {"class": "Adam"}}, {"optimizer": {"class": "SGD"}})
    with pytest.raises(DriftError, match=r"for a fresh one: 'checkpoint\.accept=\[optimizer\]'$"):
        drift.demand(found, prefer=None, source="runs/a")


def test_a_name_that_counts_objects_is_no_declaration() -> None:
    """In a notebook a cell that is run again makes `focal_1`."""

    def declared(name: str, gamma: float = 2.0) -> dict[str, object]:
        loss = {"class_name": "mine>Focal", "config": {"name": name, "gamma": gamma}}
        return {"compile": {"loss": {"out": [loss]}}}

    assert drift.compare(declared("focal"), declared("focal_1")) == []
    assert drift.compare(declared("mine"), declared("mine")) == []
    (named,) = drift.compare(declared("mine"), declared("other"))
    assert named.name == "compile.loss.out"
    assert drift.compare(declared("focal"), declared("focal_1", gamma=3.0)) != []
