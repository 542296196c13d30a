"""Names of weights as versions of Keras 2 wrote them, and what they become."""

from __future__ import annotations

from typing import Any

from resume.formats import keras2
from resume.formats.keras2 import Weight

CONFIG = {"class_name": "Sequential", "config": [
    {"class_name": "Dense", "config": {"name": "dense_3"}},
    {"class_name": "Bidirectional", "config": {"name": "bidirectional_1", "layer": {
        "class_name": "LSTM", "config": {"name": "lstm_7"}}}},
    {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": {"name": "dense_1", "trainable": False}}],
     "name": "sequential_2"},
]}  # fmt: skip


def _names(*weights: tuple[str, str], config: dict[str, Any] | None = CONFIG) -> list[str]:
    return keras2.weight_names([Weight(name, (), layer) for layer, name in weights], model_config=config)


def test_a_bare_list_of_layers_and_names_made_unique() -> None:
    assert _names(
        ("dense_3", "dense_3/kernel_1:0"),
        ("dense_3", "dense_3_1/bias:0"),
        ("bidirectional_1", "bidirectional_1/forward_lstm_7/kernel:0"),
        ("bidirectional_1", "bidirectional_1/backward_lstm_7/lstm_cell_9/bias:0"),
        ("sequential_2", "dense_1/kernel:0"),
    ) == [
        "dense_1/kernel",
        "dense_1/bias",
        "bidirectional/forward_lstm/lstm_cell/kernel",
        "bidirectional/backward_lstm/lstm_cell/bias",
        "sequential/dense/kernel",
    ]


def test_without_a_config_automatic_names_tell_the_class() -> None:
    assert _names(
        ("lstm_4", "lstm_4/kernel:0"),
        ("lstm_4", "lstm_4/lstm_cell_6/bias:0"),
        ("gru_2", "gru_2/gru_cell/kernel:0"),
        ("mine", "mine/kernel_1:0"),
        ("mine", "mine/kernel_2:0"),
        config=None,
    ) == [
        "lstm/lstm_cell/kernel",
        "lstm/lstm_cell/bias",
        "gru/gru_cell/kernel",
        "mine/kernel_1",
        "mine/kernel_2",
    ]


def test_trained_as_far_as_the_config_tells() -> None:
    weights = [Weight("dense_3/kernel:0", (), "dense_3"), Weight("dense_1/kernel:0", (), "sequential_2")]
    assert keras2.trained(weights, model_config=CONFIG) == [True, False]


def test_functional_models_that_nobody_named() -> None:
    inner = {"class_name": "Model", "config": {"name": "model_4", "layers": [
        {"class_name": "BatchNormalizationV1", "config": {"name": "batch_normalization_v1_2"}},
        {"class_name": "DepthwiseConv2D", "config": {"name": "depthwise_conv2d_3"}},
    ]}}  # fmt: skip
    config = {"class_name": "Model", "config": {"name": "model_5", "layers": [inner]}}
    assert _names(
        ("model_4", "batch_normalization_v1_2/gamma:0"),
        ("model_4", "depthwise_conv2d_3/depthwise_kernel:0"),
        config=config,
    ) == ["functional/batch_normalization/gamma", "functional/depthwise_conv2d/kernel"]


def test_a_subclassed_model_without_its_own_name() -> None:
    config = {"class_name": "MyNet", "config": {}}
    weights = [Weight("my_net/dense_4/kernel:0", ()), Weight("my_net/block/dense_5/bias:0", ())]
    assert keras2.weight_names(weights, model_config=config) == ["dense/kernel", "block/dense_5/bias"]


def test_bidirectional_as_keras_3_lists_it() -> None:
    inner = {"class_name": "LSTM", "config": {"name": "lstm_2", "units": 4}}
    config = {"class_name": "Bidirectional", "config": {"name": "b", "layer": inner}}
    assert keras2.as_keras3({"layers": [config]}) == {"layers": [{"class_name": "Bidirectional", "config": {
        "name": "b",
        "layer": {"class_name": "LSTM", "config": {"name": "forward_lstm_2", "units": 4}},
        "backward_layer": {"class_name": "LSTM", "config": {"name": "backward_lstm_2", "units": 4}},
    }}]}  # fmt: skip
