"""Layers of Keras 1 and 2 written by hand, and what Keras 3 is told in their place."""

from __future__ import annotations

from typing import Any

import pytest

from resume.formats import translate_layers
from resume.formats.translate_layers import Context


def settings(kind: str, context: Context | None = None, /, **config: Any) -> tuple[str, dict[str, Any]]:
    """The translated class and config; nothing may be refused unless a context is given to look into."""
    known = context or Context()
    found = translate_layers.settings({"class_name": kind, "config": config}, known)
    assert context is not None or known.problems == []
    return found


def refused(kind: str, /, **config: Any) -> list[str]:
    context = Context()
    settings(kind, context, **config)
    return context.problems


def value(key: str, found: Any, *custom: str) -> Any:
    context = Context(frozenset(custom))
    translated = translate_layers.value(key, found, "Dense 'd'", context)
    assert context.problems == []
    return translated


def own(module: str, kind: str, /, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def named(name: str) -> dict[str, Any]:
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


# ---- arguments that Keras 3 does not have ----


@pytest.mark.parametrize(
    ("kind", "dropped"),
    [
        ("Dense", {"batch_input_shape": [None, 3], "dynamic": False, "dtype": None}),
        ("LSTM", {"time_major": False, "input_length": None}),
        ("LSTM", {"time_major": None}),
        ("RNN", {"num_constants": 0}),
        ("BatchNormalization", {"fused": True, "virtual_batch_size": None, "adjustment": None}),
        ("Conv2DTranspose", {"groups": 1}),
        ("DepthwiseConv2D", {"groups": 1, "filters": 4, "kernel_initializer": "zeros"}),
        ("SeparableConv2D", {"groups": None, "kernel_regularizer": None}),
        ("SpatialDropout2D", {"noise_shape": None, "trainable": True}),
        ("Discretization", {"trainable": True}),
        ("Embedding", {"sparse": False, "input_length": 4}),
        ("Attention", {"causal": False}),
        ("MultiHeadAttention", {"query_shape": [None, 4, 2], "key_shape": None, "value_shape": None}),
        ("Softmax", {"robust_masking": False}),
        ("RandomFlip", {"rng_type": "stateful", "force_generator": True}),
        ("Conv2D", {"conv_op": None, "autocast": True, "experimental_autocast": False}),
    ],
)
def test_what_means_nothing_is_left_out(kind: str, dropped: dict[str, Any]) -> None:
    assert settings(kind, name="a", **dropped) == (kind, {"name": "a"})


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        ("LSTM", {"time_major": True}, "time_major=True"),
        ("RNN", {"num_constants": 2}, "num_constants=2"),
        ("BatchNormalization", {"virtual_batch_size": 8}, "virtual_batch_size=8"),
        ("Conv2DTranspose", {"groups": 2}, "groups=2"),
        ("Embedding", {"sparse": True}, "sparse=True"),
        ("Attention", {"causal": True}, "causal=True"),
        ("Dense", {"dynamic": True}, "dynamic=True"),
        ("GRU", {"reverse_state_order": True}, "reverse_state_order=True"),
        ("InputLayer", {"type_spec": "x" * 99}, f"type_spec='{'x' * 59}"),
    ],
)
def test_what_means_something_is_refused(kind: str, config: dict[str, Any], why: str) -> None:
    assert refused(kind, name="a", **config) == [f"{kind} 'a': {why} has no equivalent in Keras 3"]


def test_an_argument_of_one_class_is_kept_in_another() -> None:
    assert settings("Conv2D", groups=2)[1] == {"groups": 2}
    assert settings("InputLayer", sparse=True)[1] == {"sparse": True}
    assert settings("Dropout", noise_shape=[None, 1])[1] == {"noise_shape": [None, 1]}


# ---- classes ----


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BatchNormalizationV1", "BatchNormalization"),
        ("BatchNormalizationV2", "BatchNormalization"),
        ("LSTMV1", "LSTM"),
        ("LSTMCellV2", "LSTMCell"),
        ("GRUV2", "GRU"),
        ("GRUCellV2", "GRUCell"),
        ("Custom>Dense", "Dense"),
        ("Dense", "Dense"),
    ],
)
def test_versions_in_the_class_are_gone(old: str, new: str) -> None:
    assert settings(old, name="a") == (new, {"name": "a"})


@pytest.mark.parametrize("kind", ["CuDNNLSTM", "CuDNNGRU"])
def test_layers_of_a_gpu_library_alone(kind: str) -> None:
    why = "its two biases are one in Keras 3, and its optimizer state with them"
    assert refused(kind, name="a") == [f"{kind} 'a': {why}"]


@pytest.mark.parametrize("kind", ["LocallyConnected1D", "DenseFeatures", "RandomHeight", "Merge"])
def test_layers_that_are_gone(kind: str) -> None:
    assert refused(kind, name="a") == [f"{kind} 'a': Keras 3 has no such layer"]


def test_the_same_is_said_once() -> None:
    context = Context()
    for _ in range(2):
        settings("Merge", context, name="a")
    assert context.problems == ["Merge 'a': Keras 3 has no such layer"]


# ---- arguments that changed ----


def test_an_input() -> None:
    assert settings("InputLayer", batch_input_shape=[None, 3], dtype="float32")[1] == {
        "batch_shape": [None, 3],
        "dtype": "float32",
    }


@pytest.mark.parametrize(("axis", "found"), [([3], 3), (1, 1), ((2,), 2)])
@pytest.mark.parametrize("kind", ["BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2"])
def test_an_axis_in_a_list(kind: str, axis: Any, found: int) -> None:
    assert settings(kind, axis=axis)[1] == {"axis": found}


def test_two_axes() -> None:
    assert refused("BatchNormalization", name="n", axis=[1, 2]) == [
        "BatchNormalization 'n': axis=[1, 2]: Keras 3 normalises over one axis"
    ]


def test_normalisation_over_several_devices() -> None:
    assert settings("SyncBatchNormalization", axis=[1]) == (
        "BatchNormalization",
        {"axis": 1, "synchronized": True},
    )


def test_rectifiers() -> None:
    assert settings("LeakyReLU", name="a", alpha=0.25)[1] == {"name": "a", "negative_slope": 0.25}
    assert settings("ThresholdedReLU", name="a", theta=0.5) == ("ReLU", {"name": "a", "threshold": 0.5})
    assert settings("ThresholdedReLU", name="a")[1] == {"name": "a", "threshold": 1.0}


@pytest.mark.parametrize("kind", ["GRU", "GRUCell", "GRUV1", "GRUCellV1"])
def test_a_gru_older_than_its_argument(kind: str) -> None:
    assert settings(kind, units=2)[1] == {"reset_after": False, "units": 2}
    assert settings(kind, reset_after=True)[1] == {"reset_after": True}


def test_a_gru_of_tensorflow_2_says_so_itself() -> None:
    assert settings("GRUV2", units=2)[1] == {"units": 2}


# ---- dtypes ----


def policy(name: str, kind: str = "Policy") -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name}}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("float32", "float32"),
        (None, None),
        ("infer", None),
        (policy("infer_with_float32_vars"), None),
        (policy("float64"), "float64"),
        (policy("bfloat16", "PolicyV1"), "bfloat16"),
        ("mixed_float16", own("keras", "DTypePolicy", name="mixed_float16")),
        (policy("mixed_bfloat16"), own("keras", "DTypePolicy", name="mixed_bfloat16")),
        ({"class_name": "Mine", "config": {"name": "float32"}}, policy("float32", "Mine")),
    ],
)
def test_a_policy_by_its_name(given: Any, found: Any) -> None:
    assert translate_layers.dtype(given) == found


def test_a_dtype_to_be_inferred_is_not_said() -> None:
    assert settings("Dense", name="a", dtype=policy("infer"))[1] == {"name": "a"}


# ---- activations ----


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("relu", "relu"),
        (None, None),
        ("my_gate", named("my_gate")),
        ({"class_name": "function", "config": "relu", "registered_name": "function"}, "relu"),
        (
            {"class_name": "function", "config": "gate", "registered_name": "mine>gate"},
            named("mine>gate"),
        ),
        (
            {"class_name": "LeakyReLU", "config": {"name": "l", "alpha": 0.5}},
            own("keras.layers", "LeakyReLU", name="l", negative_slope=0.5),
        ),
    ],
)
@pytest.mark.parametrize("key", ["activation", "recurrent_activation"])
def test_activations(key: str, given: Any, found: Any) -> None:
    assert value(key, given) == found


def test_an_activation_of_ones_own_under_kerass_name() -> None:
    assert value("activation", "swish", "swish") == named("swish")
    assert value("activation", "swish", "mine>swish") == "swish"


# ---- initialisers, regularisers, constraints ----


@pytest.mark.parametrize(
    ("key", "given", "found"),
    [
        ("kernel_initializer", "zero", "zeros"),
        ("kernel_initializer", "one", "ones"),
        ("kernel_initializer", "normal", "random_normal"),
        ("kernel_initializer", "glorot_uniform", "glorot_uniform"),
        ("kernel_initializer", "GlorotUniform", "GlorotUniform"),
        ("kernel_initializer", "mine", named("mine")),
        ("kernel_regularizer", "l2", "l2"),
        ("bias_constraint", "maxnorm", "max_norm"),
        ("bias_constraint", "nonneg", "non_neg"),
        ("bias_constraint", None, None),
        ("kernel_initializer", {"class_name": "function", "config": "mine"}, named("mine")),
        (
            "bias_initializer",
            {"class_name": "Zeros", "config": {"dtype": "float32"}},
            own("keras.initializers", "Zeros"),
        ),
        (
            "kernel_initializer",
            {"class_name": "GlorotUniformV2", "config": {"seed": 3}},
            own("keras.initializers", "GlorotUniform", seed=3),
        ),
        (
            "kernel_initializer",
            {"class_name": "VarianceScaling", "config": {"scale": 2.0, "distribution": "normal"}},
            own("keras.initializers", "VarianceScaling", scale=2.0, distribution="truncated_normal"),
        ),
        (
            "kernel_regularizer",
            {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.5}},
            own("keras.regularizers", "L1L2", l1=0.0, l2=0.5),
        ),
        (
            "kernel_constraint",
            {"class_name": "Custom>MaxNorm", "config": {"max_value": 2, "axis": 0}},
            own("keras.constraints", "MaxNorm", max_value=2, axis=0),
        ),
        (
            "kernel_regularizer",
            {"class_name": "mine>Soft", "config": {"by": 1}},
            {"module": None, "class_name": "Soft", "config": {"by": 1}, "registered_name": "mine>Soft"},
        ),
        (
            "kernel_regularizer",
            {"class_name": "Soft", "config": {}},
            {"module": None, "class_name": "Soft", "config": {}, "registered_name": "Soft"},
        ),
    ],
)
def test_parts_of_a_layer(key: str, given: Any, found: Any) -> None:
    assert value(key, given) == found


def test_a_part_of_ones_own_under_kerass_name() -> None:
    found = value("kernel_initializer", {"class_name": "Zeros", "config": {}}, "Zeros")
    assert (found["module"], found["registered_name"]) == (None, "Zeros")
    assert value("kernel_initializer", "zeros", "zeros") == named("zeros")


@pytest.mark.parametrize("given", ["radial_constraint", {"class_name": "RadialConstraint", "config": {}}])
def test_a_constraint_that_is_gone(given: Any) -> None:
    name = given if isinstance(given, str) else given["class_name"]
    assert refused("Conv2D", name="c", kernel_constraint=given) == [f"Conv2D 'c': Keras 3 has no {name}"]


# ---- layers in layers ----


def test_layers_in_a_config_are_translated_at_any_depth() -> None:
    cell = {"class_name": "GRUCellV1", "config": {"units": 2, "dtype": policy("float32")}}
    _, found = settings("RNN", name="r", cell={"class_name": "StackedRNNCells", "config": {"cells": [cell]}})
    cells = [own("keras.layers", "GRUCell", units=2, dtype="float32", reset_after=False)]
    assert found == {"name": "r", "cell": own("keras.layers", "StackedRNNCells", cells=cells)}


def test_what_only_looks_like_an_object_stays() -> None:
    tensor = {"class_name": "__tensor__", "config": {"value": 1}}
    assert value("mean", tensor) == tensor
    assert value("extra", {"class_name": "Dense"}) == {"class_name": "Dense"}
    assert value("extra", {"a": [1, (2, None)]}) == {"a": [1, [2, None]]}


def test_a_policy_and_a_function_under_any_key() -> None:
    assert value("compute", policy("float16")) == "float16"
    assert value("standardize", {"class_name": "function", "config": "mine"}) == named("mine")


# ---- the user's own ----


def test_a_class_of_ones_own_keeps_its_names_and_its_config_is_translated() -> None:
    item = {"class_name": "mine>Block", "build_config": {"input_shape": [None, 3]}, "config": {
        "name": "b", "batch_input_shape": [None, 3], "dtype": None, "activation": "relu", "time_major": True,
        "kernel_initializer": "zero", "inner": {"class_name": "LeakyReLU", "config": {"alpha": 0.5}},
    }}  # fmt: skip
    context = Context()
    assert translate_layers.custom(item, context) == {
        "module": None,
        "class_name": "Block",
        "registered_name": "mine>Block",
        "build_config": {"input_shape": [None, 3]},
        "config": {
            "name": "b",
            "activation": "relu",
            "time_major": True,  # whatever it means there
            "kernel_initializer": "zeros",
            "inner": own("keras.layers", "LeakyReLU", negative_slope=0.5),
        },
    }
    assert context.problems == []


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"class_name": "Custom>Block"}, "Block"),
        ({"class_name": "Block", "registered_name": "Custom>Block"}, "Block"),
        ({"class_name": "Block", "registered_name": "mine>Block"}, "mine>Block"),
        ({"class_name": "Block", "registered_name": None}, "Block"),
    ],
)
def test_the_name_that_a_class_is_registered_under(item: dict[str, Any], name: str) -> None:
    found = translate_layers.custom({**item, "config": {}}, Context())
    assert (found["class_name"], found["registered_name"]) == ("Block", name)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"class_name": "Dense"}, True),
        ({"class_name": "Custom>Dense"}, True),
        ({"class_name": "mine>Dense"}, False),
        ({"class_name": "Dense", "module": "keras.layers", "registered_name": None}, True),
        ({"class_name": "Dense", "module": "tf_keras.src.layers"}, True),
        ({"class_name": "Dense", "module": "tensorflow.python.keras.layers"}, True),
        ({"class_name": "Dense", "module": "my.layers"}, False),
        ({"class_name": "Dense", "module": "keras_hub.layers"}, False),
        ({"class_name": "Dense", "registered_name": "mine>Dense"}, False),
        ({"class_name": "Gate"}, False),
        ({"class_name": "Custom>Gate"}, False),
    ],
)
def test_whose_class_it_is(item: dict[str, Any], expected: bool) -> None:
    """Gate is a class that the user names."""
    assert translate_layers.is_own(item, Context(frozenset({"Gate"}))) is expected


def test_custom_names_with_and_without_their_package() -> None:
    context = Context(frozenset({"Gate", "mine>Block"}))
    assert [context.is_custom(name) for name in ("Gate", "other>Gate", "mine>Block", "Block", None)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert context.is_custom(None, "Gate")


# ---- Lambda ----

CODE = ["YWJj\n", None, None]


def test_code_stays_code() -> None:
    _, found = settings(
        "Lambda", name="l", function=CODE, function_type="lambda", output_shape=None, output_shape_type="raw",
        module="__main__", arguments={"k": 2},
    )  # fmt: skip
    assert found == {
        "name": "l",
        "arguments": {"k": 2},
        "function": {
            "class_name": "__lambda__",
            "config": {"code": "YWJj\n", "defaults": None, "closure": None},
        },
        "output_shape": None,
    }


def test_a_function_called_by_its_name() -> None:
    _, found = settings("Lambda", name="l", function="scale", function_type="function", output_shape=[4])
    assert found == {"name": "l", "function": named("scale"), "output_shape": [4]}


def test_code_as_keras_2_13_writes_it() -> None:
    code = {"class_name": "__lambda__", "config": {"code": "YWJj\n"}}
    assert settings("Lambda", function=code)[1]["function"] == code


def test_shapes_and_masks_that_are_code_are_left_out() -> None:
    _, found = settings(
        "Lambda", function="f", function_type="function", output_shape=CODE, output_shape_type="lambda",
        mask=CODE, mask_type="lambda",
    )  # fmt: skip
    assert found == {"function": named("f")}
