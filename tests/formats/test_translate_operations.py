"""TensorFlow's functions in graphs of Keras 2, as operations of Keras 3: written by hand, then built and computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from resume.formats import translate_model, translate_operations
from resume.formats.translate_layers import Context

X = {
    "class_name": "__keras_tensor__",
    "config": {"shape": [], "dtype": "float32", "keras_history": ["x", 0, 0]},
}
NUMPY, NN, CORE = "keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.core"
NO_TRANSLATION = "in the graph has no translation; wrap it in a layer of your own"


def call(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": kwargs}


def array(value: list[Any], dtype: str = "float32") -> dict[str, Any]:
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def item(function: str, kind: str = "TFOpLambda") -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": "op", "function": function}}


def operation(function: str, *calls: dict[str, Any], kind: str = "TFOpLambda") -> tuple[Any, Any]:
    context = Context()
    made, found = translate_operations.operation(item(function, kind), calls, context)
    assert context.problems == []
    assert made["registered_name"] == made["class_name"]
    return (made["module"], made["class_name"], made["config"]), found


def refused(function: str, *calls: dict[str, Any], kind: str = "TFOpLambda") -> list[str]:
    context = Context()
    made, found = translate_operations.operation(item(function, kind), calls, context)
    assert made["class_name"]  # something stands there, so that the rest can be looked through
    assert len(found) == len(calls)
    return context.problems


@pytest.mark.parametrize(
    ("function", "given", "expected", "args"),
    [
        ("__operators__.add", call(X, y=2.0, name=None), (NUMPY, "Add", {}), [X, 2.0]),
        ("math.subtract", call(3.0, y=X), (NUMPY, "Subtract", {}), [3.0, X]),
        ("math.truediv", call(X, y=X), (NUMPY, "TrueDivide", {}), [X, X]),
        ("math.floormod", call(X, y=2), (NUMPY, "Mod", {}), [X, 2]),
        ("math.exp", call(X, name="grow"), (NUMPY, "Exp", {}), [X]),
        ("nn.sigmoid", call(X), (NN, "Sigmoid", {}), [X]),
        ("nn.softmax", call(X, axis=1), (NN, "Softmax", {"axis": 1}), [X]),
        ("nn.gelu", call(X, approximate=True), (NN, "Gelu", {"approximate": True}), [X]),
        ("nn.gelu", call(X), (NN, "Gelu", {"approximate": False}), [X]),  # TensorFlow's default, not Keras 3's
        ("math.subtract", call(X, y=[0.5, 0.25]), (NUMPY, "Subtract", {}), [X, array([0.5, 0.25])]),
        ("concat", call([X, [[1, 2]]], axis=1), (NUMPY, "Concatenate", {"axis": 1}), [[X, array([[1, 2]])]]),
        ("compat.v1.floor_div", call(X, y=2), (NUMPY, "FloorDivide", {}), [X, 2]),
        ("compat.v1.squeeze", call(X, axis=[1]), (NUMPY, "Squeeze", {"axis": [1]}), [X]),
        ("math.reduce_mean", call(X, axis=[1], keepdims=True), (NUMPY, "Mean", {"axis": [1], "keepdims": True}), [X]),
        ("math.reduce_max", call(X, axis=None, keepdims=False), (NUMPY, "Max", {"keepdims": False}), [X]),
        ("linalg.matmul", call(X, b=X, transpose_b=False), (NUMPY, "Matmul", {}), [X, X]),
        ("reshape", call(X, shape=[-1, 4]), (NUMPY, "Reshape", {"newshape": [-1, 4]}), [X]),
        ("transpose", call(X, perm=[0, 2, 1]), (NUMPY, "Transpose", {"axes": [0, 2, 1]}), [X]),
        ("compat.v1.transpose", call(X, perm=None, conjugate=False), (NUMPY, "Transpose", {}), [X]),
        ("expand_dims", call(X, axis=-1), (NUMPY, "ExpandDims", {"axis": -1}), [X]),
        ("squeeze", call(X, axis=[1]), (NUMPY, "Squeeze", {"axis": [1]}), [X]),
        ("concat", call([X, X], axis=1), (NUMPY, "Concatenate", {"axis": 1}), [[X, X]]),
        ("stack", call([X, X], axis=0), (NUMPY, "Stack", {"axis": 0}), [[X, X]]),
        ("cast", call(X, dtype="float16"), (CORE, "Cast", {"dtype": "float16"}), [X]),
        ("clip_by_value", call(X, clip_value_min=0, clip_value_max=6), (NUMPY, "Clip", {"x_min": 0, "x_max": 6}), [X]),
    ],
)  # fmt: skip
def test_a_function(function: str, given: Any, expected: tuple[str, str, dict[str, Any]], args: Any) -> None:
    module, name, config = expected
    assert operation(function, given) == ((module, name, {"name": "op", **config}), [call(*args)])


def test_one_operation_of_several_calls() -> None:
    made, calls = operation("math.reduce_sum", call(X, axis=1), call(2.0, axis=1))
    assert made[2] == {"name": "op", "axis": 1}
    assert calls == [call(X), call(2.0)]


def test_an_operation_that_nothing_calls() -> None:
    assert operation("math.exp") == ((NUMPY, "Exp", {"name": "op"}), [])


def test_calls_with_different_settings() -> None:
    assert refused("math.reduce_sum", call(X, axis=1), call(X, axis=2)) == [
        "TFOpLambda 'op': is called with different settings"
    ]


def test_an_unknown_function() -> None:
    assert refused("math.bessel_i0", call(X), call(X)) == [
        f"TFOpLambda 'op': tf.math.bessel_i0 {NO_TRANSLATION}"
    ]


def test_an_operation_of_the_first_kind() -> None:
    context = Context()
    raw = {"class_name": "TensorFlowOpLayer", "config": {"name": "op", "node_def": "abc"}}
    translate_operations.operation(raw, [call(X)], context)
    assert context.problems == [f"TensorFlowOpLayer 'op': tf.TensorFlowOpLayer {NO_TRANSLATION}"]


@pytest.mark.parametrize(
    ("function", "given", "what"),
    [
        ("linalg.matmul", call(X, b=X, transpose_b=True), "transpose_b"),
        ("linalg.matmul", call(X, b=X, adjoint_a=True, a_is_sparse=True), "a_is_sparse, adjoint_a"),
        ("compat.v1.transpose", call(X, conjugate=True), "conjugate"),
        ("math.exp", call(X, mine=False), "mine"),
        ("reshape", call(X, shape=X), "a computed argument"),
        ("reshape", call(X, shape=[-1, X]), "a computed argument"),
        ("clip_by_value", call(X, clip_value_min={"a": X}), "a computed argument"),
    ],
)
def test_arguments_that_have_no_translation(function: str, given: Any, what: str) -> None:
    assert refused(function, given) == [f"TFOpLambda 'op': {what} of its call has no translation"]


def part(start: Any = None, stop: Any = None, step: Any = None) -> dict[str, Any]:
    return {"start": start, "stop": stop, "step": step}


def test_slices() -> None:
    spec = [part(), part(1, 3), "Ellipsis", None, -1]
    made, calls = operation("__operators__.getitem", call(X, slice_spec=spec), kind="SlicingOpLambda")
    assert made == (NUMPY, "GetItem", {"name": "op"})
    assert calls == [call(X, [
        {"class_name": "__slice__", "config": part()}, {"class_name": "__slice__", "config": part(1, 3)},
        {"class_name": "__ellipsis__", "config": {}}, None, -1,
    ])]  # fmt: skip


def test_an_array_takes_the_dtype_that_is_computed_in() -> None:
    made = {**item("math.multiply"), "config": {"name": "op", "function": "math.multiply"}}
    made["config"]["dtype"] = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    _, calls = translate_operations.operation(made, [call(X, y=[1.0, 2.0])], Context())
    assert calls == [call(X, array([1.0, 2.0], "float16"))]


def test_an_ellipsis_as_newer_versions_write_it() -> None:
    spec = {"class_name": "__ellipsis__"}
    _, calls = operation("__operators__.getitem", call(X, slice_spec=[spec, 0]), kind="SlicingOpLambda")
    assert calls == [call(X, [{"class_name": "__ellipsis__", "config": {}}, 0])]


def test_slices_that_differ_from_call_to_call() -> None:
    one, two = call(X, slice_spec=[0]), call(X, slice_spec=[part(stop=2)])
    made, calls = operation("__operators__.getitem", one, two, kind="SlicingOpLambda")
    assert calls == [call(X, [0]), call(X, [{"class_name": "__slice__", "config": part(stop=2)}])]
    assert made[2] == {"name": "op"}


def test_the_layers_that_are_meant() -> None:
    assert translate_operations.KINDS == ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")


# ---- live: built by tf_keras, translated, rebuilt by Keras 3 ----

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda tf, x: 1.0 / (2.0 - (x * 2.0 + 1.0) ** 2.0) - 2.0**x,
    "remainder": lambda tf, x: x % 2.0 + 5.0 % x,
    "signs": lambda tf, x: -abs(x) + tf.sign(x) + tf.negative(x),
    "elementwise": lambda tf, x: tf.exp(tf.sin(x)) + tf.math.log1p(tf.square(x)) + tf.sqrt(tf.math.log(x + 4.0)),
    "trigonometry": lambda tf, x: tf.cos(x) + tf.tanh(x) + tf.sigmoid(x),
    "extremes": lambda tf, x: tf.maximum(0.5, tf.minimum(x, 2.0)),
    "activations": lambda tf, x: tf.nn.relu(x) + tf.nn.elu(x) + tf.nn.selu(x) + tf.nn.softplus(x) + tf.nn.relu6(x),
    "softmax": lambda tf, x: tf.nn.softmax(x) + tf.nn.softmax(x, axis=1),
    "gelu": lambda tf, x: tf.nn.gelu(x) + tf.nn.gelu(x, approximate=True),
    "constants": lambda tf, x: (x - np.linspace(0, 1, x.shape[-1], dtype="float32")) * tf.ones((x.shape[-1],)),
    "whole quotients": lambda tf, x: x // 2.0,
    "ellipsis": lambda tf, x: x[..., :1],
    "squeezed": lambda tf, x: tf.squeeze(x[..., :1], axis=-1),
    "matmul": lambda tf, x: x @ tf.transpose(x, [0, 2, 1]),
    "reductions": lambda tf, x: tf.reduce_mean(x, axis=-1) + tf.reduce_sum(x, -1) * tf.reduce_min(x, -1),
    "kept": lambda tf, x: x - tf.reduce_max(x, axis=[1, 2], keepdims=True),
    "everything": lambda tf, x: tf.reduce_mean(x),
    "shapes": lambda tf, x: tf.expand_dims(tf.reshape(x, (-1, 2, 8)), 1),
    "joined": lambda tf, x: tf.concat([x, tf.stack([x, x], axis=1)[:, 0]], axis=-1),
    "cast": lambda tf, x: tf.cast(tf.clip_by_value(x, 0.0, 1.0), tf.float64),
    "slices": lambda tf, x: x[:, 1:3] + x[:, ::2, -1:],
    "new axis": lambda tf, x: x[:, None, 0],
}  # fmt: skip


def _as_keras_writes_it(item: Any) -> Any:
    return {"class_name": "__ellipsis__"} if item is ... else item.name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_keras_3_computes_the_same(name: str) -> None:
    import keras
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.layers.Input((4, 4))
    model = tf_keras.Model(inputs, FUNCTIONS[name](tf, inputs))
    config = {"class_name": "Functional", "config": model.get_config()}
    context = Context()
    moved = translate_model.layer(json.loads(json.dumps(config, default=_as_keras_writes_it)), context)
    assert context.problems == []
    assert not any("Lambda" in layer["class_name"] for layer in moved["config"]["layers"])
    rebuilt = keras.saving.deserialize_keras_object(moved)
    x = np.random.default_rng(0).uniform(-1.9, 4, (2, 4, 4)).astype("f4")
    expected, found = np.asarray(model(x)), np.asarray(rebuilt(x))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.isfinite(expected).all()


def test_every_operation_is_one_of_keras_3() -> None:
    """A name in the table that Keras 3 does not have would be met by a user only."""
    import importlib
    import inspect

    for known in translate_operations._OPERATIONS.values():
        operation = getattr(importlib.import_module(known.module), known.name)
        taken = inspect.signature(operation.__init__).parameters
        assert set((known.settings or {}).values()) <= taken.keys(), known.name
        arguments = [p for p in inspect.signature(operation.call).parameters if p != "self"]
        assert len(arguments) == 1 + len(known.tensors), known.name
