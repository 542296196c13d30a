"""Canonical names: the same for the same architecture, whatever was built before it."""

from __future__ import annotations

from typing import Any

import pytest

from resume import names
from resume.names import Scheme, Slot


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


@pytest.mark.parametrize(
    ("class_name", "base"),
    [
        ("Dense", "dense"),
        ("LayerNorm2D", "layer_norm2d"),
        ("LSTM", "lstm"),
        ("BatchNormalization", "batch_normalization"),
        ("Conv2DTranspose", "conv2d_transpose"),
        ("GRUCell", "gru_cell"),
    ],
)
def test_snake_case(class_name: str, base: str) -> None:
    assert names.snake_case(class_name) == base


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("dense_12", ("dense", 12)),
        ("dense", ("dense", 0)),
        ("conv2d", ("conv2d", 0)),
        ("a_1_2", ("a_1", 2)),
        ("_3", ("", 3)),
    ],
)
def test_split_number(name: str, parts: tuple[str, int]) -> None:
    assert names.split_number(name) == parts


def test_automatic_names_of_keras_2_are_those_of_keras_3() -> None:
    pairs = [
        ("Functional", "model_4"),
        ("Functional", "functional_2"),
        ("BatchNormalization", "batch_normalization_v1"),
    ]
    auto = names.automatic([*pairs, ("MobileNetV2", "mobile_net_v2_1"), ("Dense", "model")])
    assert auto == {"model_4", "functional_2", "batch_normalization_v1", "mobile_net_v2_1"}
    paths = ["model_4/w", "functional_2/w", "batch_normalization_v1/gamma", "mobile_net_v2_1/w"]
    assert names.canonical(paths, root=None, auto=auto) == [
        "functional_1/w", "functional/w", "batch_normalization/gamma", "mobile_net_v2/w"
    ]  # fmt: skip


def test_automatic_names_are_told_from_given_ones() -> None:
    pairs = [
        ("Dense", "dense_3"),
        ("Dense", "head_1"),
        ("LSTM", "forward_lstm_2"),
        ("LSTM", "dense"),
        ("Conv2D", "conv2d"),
    ]
    assert names.automatic(pairs) == {"dense_3", "forward_lstm_2", "conv2d"}


def model(first: int, root: str = "sequential") -> dict[str, Any]:
    """A model whose layers are numbered from `first`, as in a process that has built others before."""
    number = [f"dense_{first + i}" if first + i else "dense" for i in range(3)]
    layers = [layer("Dense", number[0]), layer("Dense", "head_7"), layer("Dense", number[1])]
    nested = layer("Sequential", "enc", layers=[layer("Dense", number[2])])
    return layer("Sequential", root, layers=[*layers, nested])


def test_counters_of_the_process_do_not_show() -> None:
    wanted = ["dense/kernel", "head_7/kernel", "dense_1/kernel", "enc/dense_2/kernel"]
    for first, root in ((0, "sequential"), (9, "sequential_4")):
        a, b, c = (f"dense_{first + i}" if first + i else "dense" for i in range(3))
        paths = [f"{a}/kernel", "head_7/kernel", f"{root}/{b}/kernel", f"{root}/enc/{c}/kernel"]
        assert Scheme.of(model(first, root)).canonical(paths) == wanted


def test_numbers_keep_their_order_past_ten() -> None:
    config = layer("Sequential", "s", layers=[layer("Dense", f"dense_{n}") for n in (9, 10, 11)])
    assert Scheme.of(config).canonical(["dense_10/kernel", "dense_9/kernel", "dense_11/kernel"]) == [
        "dense_1/kernel",
        "dense/kernel",
        "dense_2/kernel",
    ]


def test_a_subset_gets_the_names_of_the_whole() -> None:
    scheme = Scheme.of(model(4))
    assert scheme.canonical(["dense_5/bias"]) == ["dense_1/bias"]


def test_nesting_is_completed_and_shortened() -> None:
    scheme = Scheme.of(model(0))
    whole = "enc/dense_2/kernel"
    assert scheme.canonical(["dense_2/kernel"]) == [whole]  # as the model rebuilt from its config has it
    assert scheme.canonical(["sequential/enc/dense_2/kernel"]) == [whole]


def test_a_shared_layer_stands_without_nesting() -> None:
    shared = layer("Dense", "shared")
    twice = [layer("Sequential", name, layers=[shared]) for name in ("left", "right")]
    scheme = Scheme.of(layer("Functional", "f", layers=twice))
    assert scheme.canonical(["left/shared/kernel"]) == ["shared/kernel"]


def test_wrapped_layers_are_found() -> None:
    inner = layer("LSTM", "lstm_5")
    config = layer("Sequential", "s", layers=[layer("Bidirectional", "bidirectional_2", layer=inner)])
    found = list(names.layers(config))
    assert found == [
        ("Sequential", "s", ()),
        ("Bidirectional", "bidirectional_2", ()),
        ("LSTM", "lstm_5", ("bidirectional_2",)),
    ]


def test_without_a_config() -> None:
    paths = ["net/dense_3/kernel", "net/dense_8/kernel", "net/w"]
    found = names.canonical(paths, root="net", auto=frozenset({"dense_3", "dense_8"}))
    assert found == ["dense/kernel", "dense_1/kernel", "w"]


def test_duplicates_are_marked_in_order() -> None:
    assert names.unique(["a", "b", "a", "a"]) == ["a", "b", "a~2", "a~3"]


def test_slots_by_path() -> None:
    variables = ["dense/kernel", "dense/bias", "dense_1/kernel"]
    paths = [
        "adam/iteration",
        "adam/learning_rate",
        "adam/dense_kernel_momentum",
        "adam/dense_1_kernel_velocity_hat",
        "adam/dense_bias_velocity",
    ]
    assert names.slots(paths, variables) == [
        None,
        None,
        Slot("momentum", 0),
        Slot("velocity_hat", 2),
        Slot("velocity", 1),
    ]


def test_the_longest_owner_wins() -> None:
    assert names.slots(["sgd/dense_kernel_momentum"], ["dense", "dense/kernel"]) == [Slot("momentum", 1)]
    # unless that leaves no role of Keras's: a variable that is itself called `w_velocity`
    assert names.slots(["adam/w_velocity_hat"], ["w", "w/velocity"]) == [Slot("velocity_hat", 0)]


def test_equal_flat_paths_take_their_slots_in_order() -> None:
    variables = ["a/b/kernel", "a_b/kernel"]
    paths = ["sgd/a_b_kernel_momentum", "sgd/a_b_kernel_momentum", "sgd/a_b_kernel_momentum"]
    assert names.slots(paths, variables) == [Slot("momentum", 0), Slot("momentum", 1), None]
