"""Calls of TensorFlow's functions in graphs of Keras 2, as calls of operations of Keras 3: written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from resume.formats import operands, translate_operations
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
    assert made["registered_name"] == (None if made["module"] == "keras.layers" else made["class_name"])
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
        ("concat", call([X, [[1, 2]]], axis=1), (NUMPY, "Concatenate", {"axis": 1}), [[X, array([[1, 2]], "int32")]]),
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
        ("stack", call([X, X]), (NUMPY, "Stack", {"axis": 0}), [[X, X]]),
        ("nn.leaky_relu", call(X), (NN, "LeakyRelu", {"negative_slope": 0.2}), [X]),
        ("math.argmax", call(X), (NUMPY, "Argmax", {"axis": 0}), [X]),  # Keras 3's own default flattens
        ("math.cumsum", call(X), (NUMPY, "Cumsum", {"axis": 0}), [X]),
        ("compat.v1.gather", call(X, indices=[0, 2], axis=None, batch_dims=0), (NUMPY, "Take", {"axis": 0}),
         [X, array([0, 2], "int32")]),
        ("math.l2_normalize", call(X, axis=-1), ("keras.src.ops.nn", "Normalize",
         {"axis": -1, "order": 2, "epsilon": 1e-6}), [X]),
        ("split", call(X, num_or_size_splits=[1, 2, -1], axis=1), (NUMPY, "Split",
         {"indices_or_sections": [1, 3], "axis": 1}), [X]),
        ("compat.v1.pad", call(X, paddings=[[0, 0], [1, 2]], mode="REFLECT", constant_values=0), (NUMPY, "Pad",
         {"pad_width": [[0, 0], [1, 2]], "mode": "reflect"}), [X]),
        ("linalg.matmul", call(X, b=X, transpose_b=True), (NUMPY, "Einsum", {"subscripts": "...ij,...kj->...ik"}),
         [X, X]),
        ("linalg.matmul", call(X, b=X, adjoint_a=True), (NUMPY, "Einsum", {"subscripts": "...ji,...jk->...ik"}),
         [X, X]),
        ("where", call([True, False], x=X, y=0.0), (NUMPY, "Where", {}), [array([True, False], "bool"), X, 0.0]),
        ("stack", call(X, axis=1), (NUMPY, "Stack", {"axis": 1}), [[X]]),
        ("math.add_n", call([X, X]), ("keras.layers", "Add", {"dtype": "float32"}), [[X, X]]),
        ("reshape", call(X, shape=[None, -1]), ("keras.layers", "Reshape", {"target_shape": [-1], "dtype": "float32"}),
         [X]),
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
        ("linalg.matmul", call(X, b=X, b_is_sparse=True, a_is_sparse=True), "a_is_sparse, b_is_sparse"),
        ("compat.v1.transpose", call(X, conjugate=True), "conjugate"),
        ("math.exp", call(X, mine=False), "mine"),
        ("math.exp", call(X, mine=None), "mine"),
        ("math.cumsum", call(X, exclusive=True), "exclusive"),
        ("nn.silu", call(X, beta=1.5), "beta"),
        ("compat.v1.gather", call(X, indices=X, batch_dims=1), "batch_dims"),
        ("image.resize", call(X, size=[4, 4], preserve_aspect_ratio=True), "preserve_aspect_ratio"),
        ("nn.space_to_depth", call(X, block_size=2, data_format="NCHW"), "data_format"),
        ("math.equal", call(X, y=X, incompatible_shape_error=False), "incompatible_shape_error"),
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


def of_dtype(policy: Any, found: str | None, function: str, given: Any) -> tuple[Any, list[str]]:
    raw = {"class_name": "TFOpLambda", "config": {"name": "op", "function": function, "dtype": policy}}
    context = Context()
    _, calls = translate_operations.operation({**raw, operands.KEY: found}, [given], context)
    return calls, context.problems


MIXED = {"class_name": "Policy", "config": {"name": "mixed_float16"}}


def test_an_array_takes_the_dtype_that_it_meets() -> None:
    given = call(X, y=[0.1, 2.0])
    assert of_dtype(MIXED, "float32", "math.multiply", given)[0] == [call(X, array([0.1, 2.0]))]
    assert of_dtype(MIXED, "float16", "math.multiply", given)[0] == [call(X, array([0.1, 2.0], "float16"))]
    assert of_dtype("float32", None, "math.multiply", given)[0] == [call(X, array([0.1, 2.0]))]
    assert of_dtype("float32", "uint8", "math.multiply", call(X, y=[1, 2]))[0] == [
        call(X, array([1, 2], "uint8"))
    ]
    assert of_dtype(MIXED, None, "math.multiply", call(X, y=[1, 2]))[0] == [call(X, array([1, 2], "int32"))]
    assert of_dtype(MIXED, None, "math.multiply", call(X, y=[[2**31]]))[0] == [
        call(X, array([[2**31]], "int64"))
    ]


def test_an_array_whose_dtype_is_not_known() -> None:
    """Half precision holds some numbers exactly: those are right, whichever dtype they meet."""
    calls, problems = of_dtype(MIXED, None, "math.multiply", call(X, y=[0.5, 2.0]))
    assert (calls, problems) == ([call(X, array([0.5, 2.0], "float16"))], [])
    _, problems = of_dtype(MIXED, None, "math.multiply", call(X, y=[0.1, 2.0]))
    assert problems == [
        "TFOpLambda 'op': numbers that float16 does not hold exactly; cast what they meet before"
    ]


@pytest.mark.parametrize(
    ("function", "dtype", "kwargs"),
    [
        (
            "image.resize",
            "uint8",
            {"size": [8, 8]},
        ),  # TensorFlow gives float32, Keras 3 rounds to uint8 again
        ("math.truediv", "int32", {"y": 2}),  # float64 in TensorFlow
        ("math.reduce_mean", "int32", {}),
        ("math.reduce_sum", "uint8", {}),
        ("math.reduce_variance", "float16", {}),
    ],
)
def test_dtypes_that_keras_3_takes_otherwise(function: str, dtype: str, kwargs: dict[str, Any]) -> None:
    _, problems = of_dtype("float32", dtype, function, call(X, **kwargs))
    assert problems == [
        f"TFOpLambda 'op': tf.{function} of {dtype} is computed otherwise in Keras 3; cast before it"
    ]


def test_a_layer_that_would_cast() -> None:
    calls, problems = of_dtype(MIXED, "float16", "math.add_n", call([X, X]))
    assert (calls, problems) == ([call([X, X])], [])
    assert of_dtype(MIXED, None, "math.add_n", call([X, X]))[1] != []


def test_an_array_is_subtracted_for_it_to_be_added() -> None:
    """Keras 3.15 adds an array of shape (4, 1) to one of (4, 4), or (4,) to (2, 4, 1), along the wrong axis."""
    subtract = (NUMPY, "Subtract", {"name": "op"})
    for given in (call(X, y=[[1.0], [2.0]]), call([[1.0], [2.0]], y=X)):
        assert operation("math.add", given) == (subtract, [call(X, array([[-1.0], [-2.0]]))])
    calls, _ = of_dtype("float32", "uint8", "math.add", call(X, y=[1, 2]))
    assert calls == [call(X, array([255, 254], "uint8"))]
    assert operation("math.add", call(X, y=X)) == ((NUMPY, "Add", {"name": "op"}), [call(X, X)])


@pytest.mark.parametrize(
    ("function", "given", "why"),
    [
        ("where", call(X), "tf.where(condition) gives a shape that depends on values: Keras 3 has no operation for it"),
        ("einsum", call("ij,jk->ik"),
         "tf_keras wrote tf.einsum's formula without its tensors, and cannot load this model itself"),
        ("__operators__.eq", call(X),
         "tf_keras wrote `==` without what it compares with, and cannot load this model itself"),
        ("shape", call(X),
         "Keras 3 has no tf.shape in a graph; only in tf.reshape(x, [tf.shape(x)[0], ...]) it is translated"),
        ("compat.v1.image.resize_bilinear", call(X, size=[8, 8]),
         "tf.compat.v1.image.resize_bilinear does not centre pixels as Keras 3 does; tf.image.resize is translated"),
        ("image.resize", call(X, size=[8, 8], method="gaussian"), "tf.image.resize by gaussian has no translation"),
        ("one_hot", call(X, depth=3, on_value=2.0),
         "on_value and off_value of tf.one_hot other than 1 and 0 have no translation"),
        ("split", call(X, num_or_size_splits=[-1, 2]),
         "a size of -1 before the last part of tf.split has no translation"),
        ("math.l2_normalize", call(X, axis=1, epsilon=X),
         "a computed epsilon of tf.math.l2_normalize has no translation"),
        ("norm", call(X), "tf.norm over all axes has no translation; name one or two"),
        ("norm", call(X, ord=1, axis=[1, 2]), "tf.norm of ord=1 over 2 axes has no translation"),
        ("nn.bias_add", call(X, bias=[1.0], data_format="NCHW"),
         "tf.nn.bias_add with data_format=NCHW has no translation; add a reshaped bias"),
        ("slice", call(X, begin=X, size=[1]), "a computed argument of tf.slice has no translation"),
        ("math.add", call(X, y=[X, 1.0]),
         "a list of tensors among its tensors has no translation; tf.stack them"),
        ("math.add", call(X, y=[[1.0], [1.0, 2.0]]), "lists of different lengths are no array: damaged"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(function: str, given: Any, why: str) -> None:
    assert refused(function, given) == [f"TFOpLambda 'op': {why}"]


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (None, [None]),
        (part(1, 3), [{"class_name": "__slice__", "config": part(1, 3)}]),
        ({"class_name": "__ellipsis__"}, [{"class_name": "__ellipsis__", "config": {}}]),
        (2, 2),
    ],
)
def test_a_slice_of_one_part(spec: Any, key: Any) -> None:
    _, calls = operation("__operators__.getitem", call(X, slice_spec=spec), kind="SlicingOpLambda")
    assert calls == [call(X, key)]


def test_a_computed_slice() -> None:
    given = call(X, slice_spec=[part(), part(stop=X)])
    assert refused("__operators__.getitem", given, kind="SlicingOpLambda") == [
        "SlicingOpLambda 'op': a computed index has no translation"
    ]


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
