"""Optimizer variables of Keras 2 told by name, and what a config says of their optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from resume.formats import keras2
from resume.formats.keras2 import Owner, Weight
from resume.state import OptimizerInfo

OWNERS = [Owner("a/kernel", "a/kernel:0", (2, 3), True), Owner("a/bias", "a/bias:0", (3,), True)]


def test_a_slot_of_another_shape_is_damage() -> None:
    info = OptimizerInfo("Adam", {}, legacy=True)
    with pytest.raises(ValueError, match=r"another shape than a/bias:0, .* \[3\] -> \[4\]"):
        keras2.optimizer_names(info, [Weight("Adam/a/bias/m:0", (4,))], OWNERS)


def test_names_that_carry_their_owner() -> None:
    info = OptimizerInfo("Adam", {}, legacy=True)
    raw = [
        "training/Adam/iter:0",
        "training_2/Adam/a/kernel/m_1:0",
        "Adam/v/a/bias:0",
        "m/a/bias:0",
        "Adam/mine:0",
    ]
    shapes: list[tuple[int, ...]] = [(), (2, 3), (3,), (3,), ()]
    assert keras2.optimizer_names(info, [Weight(*w) for w in zip(raw, shapes, strict=True)], OWNERS) == (
        ["optimizer/iteration", "optimizer/momentum/a/kernel", "optimizer/velocity/a/bias", "optimizer/momentum/a/bias",
         "optimizer/mine"],
        [],
    )  # fmt: skip


INFOS: dict[str, tuple[Any, str | None, str, bool]] = {
    "registered": ({"class_name": "Custom>Adam", "config": {"jit_compile": False}}, "2.11.0", "Adam", False),
    "by flag": ({"class_name": "SGD", "config": {"is_legacy_optimizer": True}}, "2.12.0", "SGD", True),
    "by module": (
        {"class_name": "SGD", "module": "keras.optimizers.legacy", "config": {}},
        "2.15.0",
        "SGD",
        True,
    ),
    "by age": ({"class_name": "Adam", "config": {"lr": 0.1}}, "2.0.8", "Adam", True),
    "by decay": ({"class_name": "Adam", "config": {"decay": 0.0}}, "2.15.0", "Adam", True),
    "keras 3": ({"class_name": "Adam", "config": {}}, "3.1.0", "Adam", False),
    "short name": ("rmsprop", "2.4.0", "RMSprop", True),
}


@pytest.mark.parametrize("name", INFOS)
def test_what_a_config_says_of_its_optimizer(name: str) -> None:
    serialised, version, kind, legacy = INFOS[name]
    info = keras2.optimizer_info(serialised, keras_version=version)
    assert info is not None
    assert (info.class_name, info.legacy) == (kind, legacy)


@pytest.mark.parametrize("key", ["inner_optimizer", "optimizer"])
@pytest.mark.parametrize(
    "name", ["LossScaleOptimizer", "Custom>LossScaleOptimizerV3", "LossScaleOptimizerV1"]
)
def test_old_names_of_the_wrapper(name: str, key: str) -> None:
    inner = {"class_name": "Custom>Adam", "config": {"learning_rate": 0.5, "jit_compile": True}}
    info = keras2.optimizer_info({"class_name": name, "config": {key: inner}}, keras_version="2.11.0")
    assert info is not None
    assert (info.class_name, info.inner.class_name, info.legacy) == ("LossScaleOptimizer", "Adam", False)
    assert keras2.configured_rate(info) == np.float32(0.5)


def test_nothing_is_no_optimizer() -> None:
    assert keras2.optimizer_info(None, keras_version="2.4.0") is None
    assert keras2.configured_rate(None) is None
