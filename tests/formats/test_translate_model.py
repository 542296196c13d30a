"""Graphs of Keras 1 and 2 written by hand; then models of tf_keras, rebuilt by Keras 3 and computing the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import formats
from resume.formats import translate_model
from resume.formats.translate_layers import Context


def translated(item: dict[str, Any], *custom: str) -> dict[str, Any]:
    context = Context(frozenset(custom))
    found = translate_model.layer(item, context)
    assert context.problems == []
    return found


def layer(kind: str, name: str, *nodes: Any, **config: Any) -> dict[str, Any]:
    """A layer of a functional model, with its calls."""
    item = {"class_name": kind, "config": {"name": name, **config}, "name": name}
    return {**item, "inbound_nodes": list(nodes)}


def functional(
    layers: list[dict[str, Any]], inputs: Any, outputs: Any, *, kind: str = "Functional", name: str = "m"
) -> dict[str, Any]:
    ends = {"input_layers": inputs, "output_layers": outputs}
    return {"class_name": kind, "config": {"name": name, "layers": layers, **ends}}


def graph(*layers: dict[str, Any], output: Any = ("x", 0, 0), **more: Any) -> dict[str, Any]:
    """A model with the input `x`."""
    entry = layer("InputLayer", "x", batch_input_shape=[None, 3])
    return functional([entry, *layers], [["x", 0, 0]], [list(output)], **more)


def ref(name: str, call: int = 0, tensor: int = 0, /, **kwargs: Any) -> list[Any]:
    return [name, call, tensor, kwargs]


def tensor(name: str, call: int = 0, number: int = 0) -> dict[str, Any]:
    history = [name, call, number]
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [], "dtype": "float32", "keras_history": history},
    }


def calls(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    (member,) = [item for item in found["config"]["layers"] if item["name"] == name]
    nodes: list[dict[str, Any]] = member["inbound_nodes"]
    return nodes


# ---- Sequential ----

DENSE = {"class_name": "Dense", "config": {"name": "d", "units": 2, "batch_input_shape": [None, 3]}}
NEW_DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "d", "units": 2},
    "registered_name": None,
}


def entry(name: str, dtype: str = "float32") -> dict[str, Any]:
    config = {"batch_shape": [None, 3], "dtype": dtype, "name": name}
    return {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": config,
        "registered_name": None,
    }


def test_the_first_layers_shape_becomes_an_input() -> None:
    config = {"name": "s", "layers": [DENSE], "build_input_shape": [None, 3]}
    assert translated({"class_name": "Sequential", "config": config}) == {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "s", "build_input_shape": [None, 3], "layers": [entry("d_input"), NEW_DENSE]},
        "registered_name": None,
    }


def test_a_bare_list_of_layers() -> None:
    found = translated({"class_name": "Sequential", "config": [DENSE]})
    assert found["config"] == {"name": "sequential", "layers": [entry("d_input"), NEW_DENSE]}
    assert translated({"class_name": "Sequential", "name": "s", "config": [DENSE]})["config"]["name"] == "s"


def test_an_input_that_is_there_is_not_made_twice() -> None:
    item = {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3]}}
    found = translated({"class_name": "Sequential", "config": {"name": "s", "layers": [item, DENSE]}})
    assert [member["config"]["name"] for member in found["config"]["layers"]] == ["x", "d"]


def test_no_shape_no_input() -> None:
    item = {"class_name": "Dense", "config": {"name": "d", "units": 2}}
    found = translated({"class_name": "Sequential", "config": {"name": "s", "layers": [item]}})
    assert found["config"]["layers"] == [NEW_DENSE]
    assert translated({"class_name": "Sequential", "config": {"name": "s", "layers": []}})["config"] == {
        "name": "s",
        "layers": [],
    }


@pytest.mark.parametrize(
    ("given", "found"),
    [("int32", "int32"), ("mixed_float16", "float32"), ({"class_name": "Policy", "config": {}}, "float32")],
)
def test_the_inputs_dtype(given: Any, found: str) -> None:
    first = {**DENSE, "config": {**DENSE["config"], "dtype": given}}  # type: ignore[dict-item]
    made = translated({"class_name": "Sequential", "config": [first]})["config"]["layers"][0]
    assert made == entry("d_input", found)


@pytest.mark.parametrize(
    "inner",
    [
        {"class_name": "Sequential", "config": {"name": "d", "layers": [DENSE]}},
        {"class_name": "Sequential", "config": [DENSE]},
        {
            "class_name": "Functional",
            "config": {**graph()["config"], "name": "d"},
        },
    ],
)
def test_a_model_in_the_first_place_tells_the_shape(inner: dict[str, Any]) -> None:
    found = translated({"class_name": "Sequential", "config": {"name": "s", "layers": [inner]}})
    assert found["config"]["layers"][0]["class_name"] == "InputLayer"
    assert found["config"]["layers"][0]["config"]["batch_shape"] == [None, 3]


def test_a_models_policy() -> None:
    found = translated(
        {"class_name": "Sequential", "config": {"name": "s", "dtype": "float64", "layers": []}}
    )
    assert found["config"] == {"name": "s", "dtype": "float64", "layers": []}


# ---- calls ----


def test_a_call() -> None:
    found = translated(graph(layer("Dense", "d", [ref("x")], units=2), output=("d", 0, 0)))
    assert (found["module"], found["class_name"]) == ("keras.src.models.functional", "Functional")
    assert calls(found, "d") == [{"args": [tensor("x")], "kwargs": {}}]
    assert calls(found, "x") == []
    assert found["config"]["input_layers"] == ["x", 0, 0]
    assert found["config"]["output_layers"] == ["d", 0, 0]


@pytest.mark.parametrize("kind", ["Functional", "Model", "Network", "Container", "Custom>Functional"])
def test_what_functional_models_were_called(kind: str) -> None:
    assert translated(graph(kind=kind))["class_name"] == "Functional"


def test_arguments_of_a_call() -> None:
    given = ref("x", training=False, mask=None, n=2, value=["x", 0, 0], both=[["x", 0, 0], ["y", 0, 0]])
    found = translated(graph(layer("Attention", "a", [given]), output=("a", 0, 0)))
    assert calls(found, "a") == [{"args": [tensor("x")], "kwargs": {
        "training": False, "n": 2, "value": tensor("x"), "both": [tensor("x"), ["y", 0, 0]],
    }}]  # fmt: skip


def test_nothing_is_left_out_but_what_keras_3_asks_itself() -> None:
    given = ref("x", training=None, mask=None, initial_state=None, constants=None, mine=None)
    found = translated(graph(layer("Dense", "d", [given]), output=("d", 0, 0)))
    assert calls(found, "d")[0]["kwargs"] == {"mine": None}


def test_inputs_in_a_list_and_by_name() -> None:
    listed = [ref("x"), ref("x", 0, 1)]
    named = {"a": ref("x"), "b": [ref("x")]}
    found = translated(
        graph(layer("Add", "a", listed), layer("Add", "b", named), layer("Add", "c", ["_CONSTANT_VALUE", -1, 2, {}]))
    )  # fmt: skip
    assert calls(found, "a")[0]["args"] == [[tensor("x"), tensor("x", 0, 1)]]
    assert calls(found, "b")[0]["args"] == [{"a": tensor("x"), "b": tensor("x")}]
    assert calls(found, "c")[0]["args"] == [2]


def test_a_call_in_keras_3s_own_form_stays() -> None:
    node = {"args": [tensor("x")], "kwargs": {"training": None}}
    assert calls(translated(graph(layer("Dense", "d", node))), "d") == [node]


def test_calls_are_counted_from_the_first_that_leads_anywhere() -> None:
    """Keras 2 counts calls that are in no model; Keras 3 sees those of this model alone."""
    found = translated(
        graph(
            layer("Dense", "d", [ref("x")], [ref("e", 2)]),
            layer("Dense", "e", [ref("d", 1)]),
            output=("d", 2, 0),
        )
    )
    assert calls(found, "e")[0]["args"] == [tensor("d", 0)]
    assert calls(found, "d")[1]["args"] == [tensor("e", 0)]
    assert found["config"]["output_layers"] == ["d", 1, 0]


def inner(kind: str = "Functional") -> dict[str, Any]:
    """A model inside a model, called twice: Keras 2 counts its calls from 1."""
    return {**graph(kind=kind, name="i"), "name": "i", "inbound_nodes": [[ref("x")], [ref("i", 1)]]}


def test_a_model_in_a_model() -> None:
    """Its calls start with 0 in the graph, and among the outputs with 1."""
    model = functional(
        [layer("InputLayer", "x"), inner(), layer("Add", "a", [ref("i", 1), ref("i", 2)])],
        [["x", 0, 0]],
        [["i", 1, 0], ["i", 2, 0], ["a", 0, 0]],
    )
    found = translated(model)
    assert calls(found, "a")[0]["args"] == [[tensor("i", 0), tensor("i", 1)]]
    assert calls(found, "i") == [{"args": [tensor(*at)], "kwargs": {}} for at in (("x",), ("i", 0))]
    assert found["config"]["output_layers"] == [["i", 1, 0], ["i", 2, 0], ["a", 0, 0]]


def test_a_sequential_in_a_model_counts_from_0_everywhere() -> None:
    model = {"class_name": "Sequential", "config": {"name": "i", "layers": [DENSE]}, "name": "i"}
    nested = {**model, "inbound_nodes": [[ref("x")], [ref("i", 1)]]}
    found = translated(
        functional([layer("InputLayer", "x"), nested], [["x", 0, 0]], [["i", 1, 0], ["i", 2, 0]])
    )
    assert found["config"]["output_layers"] == [["i", 0, 0], ["i", 1, 0]]
    assert calls(found, "i")[1]["args"] == [tensor("i", 0)]


def test_inputs_and_outputs_by_name() -> None:
    model = functional([layer("InputLayer", "x")], {"a": ["x", 0, 0]}, {"b": [["x", 0, 0]], "c": ["x", 0, 0]})
    config = translated(model)["config"]
    assert config["input_layers"] == {"a": ["x", 0, 0]}
    assert config["output_layers"] == {"b": ["x", 0, 0], "c": ["x", 0, 0]}


# ---- recurrent layers ----


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "Bidirectional", "ConvLSTM2D"])
def test_an_initial_state_was_an_input(kind: str) -> None:
    node = [ref("x"), ref("x", 0, 1), ref("x", 0, 2)]
    found = translated(graph(layer(kind, "r", node), output=("r", 0, 0)))
    state = [tensor("x", 0, 1), tensor("x", 0, 2)]
    assert calls(found, "r") == [{"args": [tensor("x")], "kwargs": {"initial_state": state}}]


def test_a_recurrent_layer_of_ones_own_is_called_as_before() -> None:
    found = translated(graph(layer("mine>LSTM", "r", [ref("x"), ref("x")]), output=("r", 0, 0)))
    assert calls(found, "r") == [{"args": [[tensor("x"), tensor("x")]], "kwargs": {}}]


def test_constants_are_refused() -> None:
    context = Context()
    node = [ref("x", constants=[["x", 0, 0]]), ref("x")]
    translate_model.layer(graph(layer("RNN", "r", node), output=("r", 0, 0)), context)
    assert context.problems == ["RNN 'r': constants have no equivalent in Keras 3"]


# ---- what is whose ----


def test_a_layer_that_several_models_share_carries_its_number() -> None:
    found = translated(graph({**layer("Dense", "d", [ref("x")]), "shared_object_id": 7}))
    assert [item.get("shared_object_id") for item in found["config"]["layers"]] == [None, 7]


def test_a_model_of_ones_own_class_counts_among_outputs_as_any_functional_one() -> None:
    """Keras 3 takes one off for every functional model, whatever its class."""
    found = translated(graph(inner("Two"), output=("i", 2, 0)), "Two")
    assert found["config"]["output_layers"] == ["i", 2, 0]


def test_a_functional_model_of_ones_own_class() -> None:
    found = translated(graph(kind="mine>Net"))
    assert (found["module"], found["class_name"], found["registered_name"]) == (None, "Net", "mine>Net")
    assert [item["class_name"] for item in found["config"]["layers"]] == ["InputLayer"]
    assert found["config"]["output_layers"] == ["x", 0, 0]


def test_a_class_of_ones_own_that_is_called_sequential() -> None:
    item = {"class_name": "Sequential", "config": {"layers": [DENSE]}}
    found = translated(item, "Sequential")
    assert (found["module"], found["config"]) == (None, {"layers": [NEW_DENSE]})


# ---- live: built by tf_keras, saved, translated, rebuilt by Keras 3 ----


def _plain(lib: Any) -> Any:
    new = lib.layers
    return lib.Sequential(
        [new.Dense(4, "relu", input_shape=(3,)), new.BatchNormalization(), new.LeakyReLU(alpha=0.2), new.PReLU()]
    )  # fmt: skip


def _dense_model(lib: Any, name: str) -> Any:
    inputs = lib.layers.Input((3,))
    return lib.Model(inputs, lib.layers.Dense(3)(inputs), name=name)


def _nested(lib: Any) -> Any:
    """Models inside a model, each called more than once, also by outputs."""
    inputs, shared = lib.layers.Input((3,)), lib.layers.Dense(3)
    encoder = lib.Sequential([lib.layers.Dense(3, input_shape=(3,)), lib.layers.BatchNormalization()])
    lazy, inside = lib.Sequential([lib.layers.Dense(3)]), _dense_model(lib, "inside")
    one = shared(encoder(inputs, training=False))
    two = shared(inside(lazy(one)))
    return lib.Model(inputs, [lib.layers.Add()([one, two]), inside(two), encoder(two), lazy(two)])


def _ends(lib: Any) -> Any:
    """Dictionaries of inputs and outputs, one of them a model's inside; an input that is an output."""
    one, two = lib.layers.Input((3,), name="one"), lib.layers.Input((2,), name="two")
    inside = lib.Model(
        {"one": one, "two": two}, {"a": lib.layers.Dense(2)(one), "b": lib.layers.Dense(2)(two)}
    )
    three, four = lib.layers.Input((3,), name="three"), lib.layers.Input((2,), name="four")
    found = inside({"one": three, "two": four})
    outputs = {"sum": lib.layers.Add()([found["a"], found["b"]]), "as it is": three}
    return lib.Model({"three": three, "four": four}, outputs)


def _recurrent(lib: Any) -> Any:
    new = lib.layers
    inputs, states = new.Input((5, 3)), [new.Input((4,)) for _ in range(4)]
    hidden, last, _ = new.LSTM(4, return_sequences=True, return_state=True)(inputs, initial_state=states[:2])
    both = new.Bidirectional(new.LSTM(4, return_sequences=True))(hidden, initial_state=states)
    own = new.Bidirectional(new.GRU(2, return_sequences=True), backward_layer=new.GRU(
        2, return_sequences=True, go_backwards=True, reset_after=False))(both)  # fmt: skip
    wrapped = new.TimeDistributed(new.Dense(2))(own)
    return lib.Model([inputs, *states], [new.RNN([new.LSTMCell(3), new.SimpleRNNCell(2)])(wrapped), last])


def _attention(lib: Any) -> Any:
    inputs = lib.layers.Input((5, 4))
    hidden, scores = lib.layers.MultiHeadAttention(2, 3, dropout=0.1)(
        inputs, inputs, return_attention_scores=True
    )
    hidden = lib.layers.LayerNormalization()(lib.layers.Add()([hidden, inputs]))
    return lib.Model(inputs, [lib.layers.Attention()([hidden, inputs]), scores])


def _images(lib: Any) -> Any:
    new = lib.layers
    inputs = new.Input((8, 8, 3))
    constraint = lib.constraints.MaxNorm(2.0)
    hidden = new.Conv2D(4, 3, kernel_regularizer="l2", kernel_constraint=constraint)(
        new.Rescaling(0.5)(inputs)
    )
    hidden = new.DepthwiseConv2D(2)(new.Activation("swish")(new.BatchNormalization()(hidden)))
    hidden = new.Conv2DTranspose(2, 3, kernel_initializer="he_normal")(new.SeparableConv2D(4, 2)(hidden))
    hidden = new.ThresholdedReLU(0.1)(new.SpatialDropout2D(0.2)(hidden))
    return lib.Model(inputs, new.Dense(2, activation=new.Softmax())(new.GlobalMaxPooling2D()(hidden)))


MODELS: dict[str, Callable[[Any], Any]] = {
    "sequential": _plain, "nested": _nested, "ends": _ends, "recurrent": _recurrent,
    "attention": _attention, "images": _images,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """Models of tf_keras with random weights, none of them negative (variances), and their files."""
    import tf_keras

    folder = tmp_path_factory.mktemp("saved")
    out: dict[str, tuple[Any, Path]] = {}
    for number, (name, build) in enumerate(MODELS.items()):
        model, random = build(tf_keras), np.random.default_rng(number)
        model.set_weights([random.uniform(0.1, 1, a.shape) for a in model.get_weights()])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the .h5 format
            for suffix in (".h5", ".keras"):
                model.save(folder / f"{name}{suffix}")
        out[name] = (model, folder / name)
    return out


def _leaves(found: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(found, dict):
        return [leaf for key in sorted(found) for leaf in _leaves(found[key])]
    if isinstance(found, list | tuple):
        return [leaf for item in found for leaf in _leaves(item)]
    return [np.asarray(found)]


def _inputs(model: Any) -> Any:
    random = np.random.default_rng(1)

    def one(tensor: Any) -> np.ndarray[Any, Any]:
        return random.uniform(-1, 1, (2, *tensor.shape[1:])).astype("f4")

    if isinstance(model.input, dict):
        return {key: one(item) for key, item in model.input.items()}
    return [one(item) for item in model.input] if isinstance(model.input, list) else one(model.input)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", MODELS)
def test_keras_3_builds_it_and_it_computes_the_same(
    saved: dict[str, tuple[Any, Path]], name: str, suffix: str
) -> None:
    import keras

    model, path = saved[name]
    config = formats.read(path.with_suffix(suffix)).model_config
    assert config is not None
    rebuilt = keras.saving.deserialize_keras_object(translated(dict(config)))
    assert [w.shape for w in rebuilt.get_weights()] == [w.shape for w in model.get_weights()]
    rebuilt.set_weights(model.get_weights())
    inputs = _inputs(model)
    expected, found = _leaves(model(inputs)), _leaves(rebuilt(inputs))
    assert [array.dtype for array in found] == [array.dtype for array in expected]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(array).all() and np.ptp(array) > 0 for array in expected)
