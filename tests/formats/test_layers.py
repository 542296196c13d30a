"""Positions in archives: which variable lies where, and what of it can be trained."""

from __future__ import annotations

from typing import Any

import pytest

from resume.formats import layers


def _config(*items: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "s", "layers": [
        {"class_name": kind, "config": config} for kind, config in items
    ]}}  # fmt: skip


DENSE = {"use_bias": True}
MIXED = _config(
    ("Dense", {"name": "a", **DENSE}),
    ("TimeDistributed", {"name": "bare", "layer": {"class_name": "Flatten", "config": {"name": "f"}}}),
    ("TimeDistributed", {"name": "b", "layer": {"class_name": "Dense", "config": {"name": "d", **DENSE}}}),
    ("Dense", {"name": "c", **DENSE}),
)


def test_members_are_counted_by_class() -> None:
    sizes = {"layers/dense": 2, "layers/time_distributed_1/layer": 2, "layers/dense_1": 2}
    found, unknown = layers.variables(MIXED, sizes)
    assert unknown == []
    assert [(v.path, v.address) for v in found][::2] == [
        ("a/kernel", "layers/dense/vars/0"),
        ("b/d/kernel", "layers/time_distributed_1/layer/vars/0"),
        ("c/kernel", "layers/dense_1/vars/0"),
    ]
    assert all(v.place == v.address for v in found)


def test_keras_2_12_counts_a_member_with_weights_twice() -> None:
    above = "_layer_checkpoint_dependencies"
    sizes = {f"{above}/dense": 2, f"{above}/time_distributed_1/layer": 2, f"{above}/dense_2": 2}
    found, unknown = layers.variables(MIXED, sizes, twice=True)
    assert unknown == []
    assert [(v.path, v.address, v.place) for v in found][::2] == [
        ("a/kernel", f"{above}/dense/vars/0", "layers/dense/vars/0"),
        ("b/d/kernel", f"{above}/time_distributed_1/layer/vars/0", "layers/time_distributed_1/layer/vars/0"),
        ("c/kernel", f"{above}/dense_2/vars/0", "layers/dense_1/vars/0"),
    ]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["dense", "dense_2", "dense_4"], ["dense", "dense_1", "dense_2"]),  # twice
        (["dense", "dense_1", "dense_2"], ["dense", "dense_1", "dense_2"]),  # once
        (["td_1", "td_2", "td_4"], ["td_1", "td_2", "td_4"]),  # once, since 1 and 2 follow on each other
        (["td_1", "td_3"], ["td_1", "td_2"]),  # one without weights, then two that have some
    ],
)
def test_the_addresses_of_later_versions(members: list[str], expected: list[str]) -> None:
    above = "enc/_layer_checkpoint_dependencies"
    found = layers.regular({f"{above}/{member}": 1 for member in members})
    assert list(found.values()) == [f"enc/layers/{name}" for name in expected]


def test_what_may_be_trained_in_a_class_that_is_not_known() -> None:
    config = _config(("Dense", {"name": "a", **DENSE}), ("pkg>Mine", {"name": "m"}))
    found, unknown = layers.variables(config, {"layers/dense": 2, "layers/mine": 2})
    assert unknown == ["m"]
    assert [v.path for v in found] == ["a/kernel", "a/bias", "m/vars/0", "m/vars/1"]
    assert list(layers.trained(found)) == [[True] * 4, [True] * 3 + [False], [True, True, False, False]]


def test_layers_that_the_config_does_not_have_leave_the_order_open() -> None:
    config = _config(("Mine", {"name": "m"}))
    found, unknown = layers.variables(config, {"layers/mine/inner": 2})
    assert unknown == ["layers/mine/inner"]
    assert [v.path for v in found] == ["layers/mine/inner/vars/0", "layers/mine/inner/vars/1"]
    assert list(layers.trained(found)) == []


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("Dense", 2, ["kernel", "bias"]),
        ("Dense", 1, ["kernel"]),
        ("BatchNormalization", 4, ["gamma", "beta", "moving_mean", "moving_variance"]),
        ("BatchNormalization", 3, []),  # without gamma or without beta
        ("Mine", 2, []),
    ],
)
def test_variables_by_their_number(kind: str, size: int, expected: list[str]) -> None:
    assert layers.variables_of_size(kind, size) == expected


def test_classes_without_package_and_version() -> None:
    assert layers.class_of({"class_name": "pkg>Mine"}) == "Mine"
    assert layers.class_of({"class_name": "BatchNormalizationV1"}) == "BatchNormalization"
    assert layers.class_of({"class_name": "MobileNetV2"}) == "MobileNetV2"


SHARED = {"class_name": "Dense", "config": {"name": "shared", **DENSE}}


def _two_models() -> dict[str, Any]:
    first, second = _config(("Dense", SHARED["config"])), _config(("Dense", SHARED["config"]))
    second["config"]["layers"].append({"class_name": "Dense", "config": {"name": "own", **DENSE}})
    return _config(
        ("Sequential", {**first["config"], "name": "one"}),
        ("Sequential", {**second["config"], "name": "two"}),
    )


@pytest.mark.parametrize("own", ["dense", "dense_1"])
def test_a_layer_met_before_is_counted_again_by_keras_3_and_not_by_keras_2(own: str) -> None:
    sizes = {"layers/sequential/layers/dense": 2, f"layers/sequential_1/layers/{own}": 2}
    found, unknown = layers.variables(_two_models(), sizes)
    assert unknown == []
    assert [(v.path, v.address) for v in found][::2] == [
        ("one/shared/kernel", "layers/sequential/layers/dense/vars/0"),
        ("two/own/kernel", f"layers/sequential_1/layers/{own}/vars/0"),
    ]


def test_a_layer_of_the_same_name_in_another_model_is_another_in_keras_3() -> None:
    sizes = {
        f"layers/{model}/layers/{dense}": 2
        for model, dense in (("sequential", "dense"), ("sequential_1", "dense"), ("sequential_1", "dense_1"))
    }
    found, unknown = layers.variables(_two_models(), sizes, every=True)
    assert unknown == []
    assert [(v.path, v.address) for v in found][::2] == [
        ("one/shared/kernel", "layers/sequential/layers/dense/vars/0"),
        ("two/shared/kernel", "layers/sequential_1/layers/dense/vars/0"),
        ("two/own/kernel", "layers/sequential_1/layers/dense_1/vars/0"),
    ]
