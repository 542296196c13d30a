"""Names that whole-model .h5 files of Keras 3 state."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume.errors import SourceError
from resume.formats import paths
from resume.formats.groups import Entry
from resume.state import OptimizerInfo, Spec

CONFIG = {"class_name": "Sequential", "config": {"name": "s", "layers": [
    {"class_name": "Dense", "config": {"name": "dense_4"}},
]}}  # fmt: skip
KERNEL = Entry("dense_4/kernel", "a", Spec("float32", (2, 3)))


def _names(*variables: Entry, weights: tuple[Entry, ...] = (KERNEL,)) -> tuple[list[str], list[str]]:
    found, notes = paths.canonical(
        weights, variables, model_config=CONFIG, info=OptimizerInfo("Adam", {}), path=Path("run.h5")
    )
    return list(found), notes


def test_layers_are_put_before_bare_names() -> None:
    bare = Entry("kernel", "a", Spec("float32", (2,)), "dense")
    assert [entry.path for entry in paths.with_layers([bare])] == ["dense/kernel"]
    assert paths.with_layers([KERNEL]) == [KERNEL]


@pytest.mark.parametrize("path", ["adam/dense_4_kernel_momentum", "adam/s_dense_4_kernel_momentum"])
def test_slots_with_and_without_the_models_name(path: str) -> None:
    slot, count = Entry(path, "b", Spec("float32", (2, 3))), Entry("adam/iteration", "c", Spec("int64", ()))
    assert _names(count, slot) == (
        ["model/dense/kernel", "optimizer/iteration", "optimizer/momentum/dense/kernel"],
        [],
    )


def test_what_belongs_to_nothing_is_named() -> None:
    assert _names(Entry("adam/other", "b", Spec("float32", (7,))))[1] == [
        "adam/other belongs to no variable that could be told by its name"
    ]


def test_contradictions() -> None:
    slot = Entry("adam/dense_4_kernel_momentum", "b", Spec("float32", (5,)))
    with pytest.raises(
        SourceError, match=r"momentum of dense_4/kernel has another shape .*\[2, 3\] -> \[5\]"
    ):
        _names(slot)
    with pytest.raises(SourceError, match="could belong to more than one variable called dense_4/kernel"):
        _names(slot, weights=(KERNEL, KERNEL))
