"""Masks through models: where they part between Keras 2 and Keras 3 it is said, if anything looks at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resume.formats import semantics, semantics_flow
from resume.state import Arrays, TrainState

MERGED = "Keras 2 masked a step that any of its inputs masks, Keras 3 one that all of them mask"
KEPT = "Keras 2 dropped the mask there, Keras 3 hands it on"
WITHIN = "Keras 2 handed on the mask of the layer in it, Keras 3 hands on that of its input"
MSE = {"loss": "mse"}


def layer(kind: str, name: str, /, *sources: Any, **config: Any) -> dict[str, Any]:
    """A layer and its one call; a source is a name, or a name with the arguments of the call."""
    nodes = [
        [source, 0, 0, {}] if isinstance(source, str) else [source[0], 0, 0, source[1]] for source in sources
    ]
    item = {"class_name": kind, "config": {"name": name, **config}, "name": name}
    return item | {"inbound_nodes": [nodes] if nodes else []}


def model(*layers: dict[str, Any], ends: str, name: str = "m", shape: Any = (None, 4, 3)) -> dict[str, Any]:
    entry = layer("InputLayer", "x", batch_input_shape=list(shape))
    config = {
        "name": name,
        "layers": [entry, *layers],
        "input_layers": [["x", 0, 0]],
        "output_layers": [[ends, 0, 0]],
    }
    return {"class_name": "Functional", "config": config, "name": name}


def said(config: Any, compiled: Any = None) -> tuple[str, ...]:
    return semantics.differences(
        TrainState(
            format="h5",
            path=Path("a.h5"),
            arrays=Arrays.of({}),
            flavour="tf_keras",
            model_config=config,
            compile_config=compiled,
        )
    )


def tells(sentence: str, *users: str) -> str:
    return f"{sentence}: it tells in {', '.join(users)}, from the first batch on"


MASKS = (
    layer("Masking", "m1", "x", mask_value=0.0),
    layer("Masking", "m2", "x", mask_value=1.0),
    layer("Masking", "m3", "x", mask_value=0.0),
    layer("Dense", "d1", "m1"),
    layer("Conv1D", "c1", "m1"),
)


@pytest.mark.parametrize(
    "kind", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"]
)
@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (("m1", "x"), True),
        (("x", "m1"), True),
        (("m1", "c1"), True),  # a convolution drops it
        (("m1", "m2"), True),
        (("m1", "d1"), False),
        (("m1", "m3"), False),  # of the same tensor, with the same value
        (("x", "c1"), False),
    ],
)
def test_merged_masks(kind: str, sources: tuple[str, str], expected: bool) -> None:
    config = model(*MASKS, layer(kind, "j", *sources), layer("LSTM", "r", "j"), ends="r")
    assert said(config) == ((tells(f"{kind} (j): {MERGED}", "r"),) if expected else ())


def test_masks_joined_along_the_steps() -> None:
    def of(**axis: int) -> tuple[str, ...]:
        return said(
            model(*MASKS, layer("Concatenate", "j", "m1", "m2", **axis), layer("LSTM", "r", "j"), ends="r")
        )

    assert of(axis=1) == ()
    assert of(axis=-2) == ()
    assert len(of(axis=-1)) == len(of(axis=2)) == 1


@pytest.mark.parametrize("kind", ["Rescaling", "Normalization", "Identity"])
def test_masks_that_were_dropped(kind: str) -> None:
    def of(*layers: Any, ends: str, compiled: Any = None) -> tuple[str, ...]:
        return said(model(*layers, ends=ends, shape=(None, 4, 3)), compiled)

    masked, kept = layer("Masking", "k", "x"), layer(kind, "s", "k")
    user = layer("GlobalAveragePooling1D", "p", "s")
    assert of(masked, kept, user, ends="p") == (tells(f"{kind} (s): {KEPT}", "p"),)
    assert of(layer(kind, "s", "x"), user, ends="p") == ()
    assert of(masked, kept, layer("Dense", "d", "s"), ends="d") == ()
    assert of(masked, kept, layer("Dense", "d", "s"), ends="d", compiled=MSE) == (
        tells(f"{kind} (s): {KEPT}", "the loss"),
    )
    assert of(masked, kept, layer("Conv1D", "d", "s"), ends="d", compiled=MSE) == ()


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (layer("LSTM", "u", "j"), True),
        (layer("Bidirectional", "u", "j", layer=layer("LSTM", "g")), True),
        (layer("RNN", "u", "j", cell=layer("GRUCell", "g", reset_after=True)), True),
        (layer("Attention", "u", "x", "j"), True),
        (layer("MultiHeadAttention", "u", ("x", {"value": ["j", 0, 0]})), True),
        (layer("Softmax", "u", "j"), True),
        (layer("BatchNormalization", "u", "j", axis=[2]), True),
        (layer("BatchNormalization", "u", "j", axis=[2], trainable=False), False),
        (layer("mine>Block", "u", "j"), True),
        (layer("LSTM", "u", ("j", {"mask": ["m1", 0, 0]})), False),  # its own comes first
        (layer("GlobalMaxPooling1D", "u", "j"), False),
        (layer("Flatten", "u", "j"), False),
        (layer("Dense", "u", "j"), False),
    ],
)
def test_who_looks_at_masks(user: dict[str, Any], expected: bool) -> None:
    config = model(*MASKS, layer("Add", "j", "m1", "x"), user, ends="u")
    assert said(config) == ((tells(f"Add (j): {MERGED}", "u"),) if expected else ())


def test_users_behind_other_layers() -> None:
    config = model(
        layer("Masking", "k", "x"),
        layer("Add", "j", "k", "x"),
        layer("LayerNormalization", "n", "j"),
        layer("LSTM", "r1", "n", return_sequences=True),
        layer("LSTM", "r2", "r1"),
        layer("Dense", "d", "r2"),
        ends="d",
    )
    assert said(config, MSE) == (tells(f"Add (j): {MERGED}", "r1", "r2"),)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [({"mask_zero": True}, {"mask_zero": True}, False), ({"mask_zero": True}, {"mask_zero": False}, True)],
)
def test_embeddings_of_the_same_ids(first: Any, second: Any, expected: bool) -> None:
    config = model(
        layer("Embedding", "e1", "x", **first),
        layer("Embedding", "e2", "x", **second),
        layer("Add", "j", "e1", "e2"),
        layer("LSTM", "r", "j"),
        ends="r",
        shape=(None, 6),
    )
    assert said(config) == ((tells(f"Add (j): {MERGED}", "r"),) if expected else ())


def test_models_in_models() -> None:
    """The second call of a model is counted from where Keras stood; its mask comes from without."""
    inner = model(
        layer("Conv1D", "c", "x"), layer("Add", "j", "c", "x"), layer("LSTM", "r", "j"), ends="r", name="i"
    )
    inner["inbound_nodes"] = [[["x", 0, 0, {}]], [["k", 0, 0, {}]]]
    outer = model(layer("Masking", "k", "x"), inner, ends="i")
    outer["config"]["output_layers"] = [["i", 1, 0], ["i", 2, 0]]
    assert said(outer) == (tells(f"Add (j): {MERGED}", "r"),)
    inner["inbound_nodes"] = [[["x", 0, 0, {}]]]
    outer["config"]["output_layers"] = [["i", 1, 0]]
    assert said(outer) == ()


def test_sequential_models() -> None:
    members = [layer("Embedding", "e", mask_zero=True), layer("Rescaling", "s"), layer("LSTM", "r")]
    config = {"class_name": "Sequential", "config": {"name": "q", "layers": members}}
    assert said(config) == (tells(f"Rescaling (s): {KEPT}", "r"),)
    assert said({"class_name": "Sequential", "config": members}) == (tells(f"Rescaling (s): {KEPT}", "r"),)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (layer("Embedding", "e", mask_zero=True), True),
        (layer("Masking", "e"), True),
        (layer("Dense", "e"), False),
        (
            layer("Sequential", "q", layers=[layer("Embedding", "e", mask_zero=True), layer("LSTM", "l")]),
            False,
        ),
    ],
)
def test_masks_made_in_every_step(inner: dict[str, Any], expected: bool) -> None:
    config = model(layer("TimeDistributed", "t", "x", layer=inner), layer("LSTM", "r", "t"), ends="r")
    assert said(config) == ((tells(f"TimeDistributed (t): {WITHIN}", "r"),) if expected else ())


STATED = (
    "initial_state (r): a recurrent layer that is called with one does not get its input's mask in Keras 3: it runs "
    "through the masked steps, from the first batch on"
)
STATE = layer("Dense", "h", "x")


@pytest.mark.parametrize(
    ("recurrent", "expected"),
    [
        (layer("GRU", "r", "k", "h", reset_after=True), True),
        (layer("LSTM", "r", ("k", {"initial_state": [["h", 0, 0], ["h", 0, 0]]})), True),
        (layer("Bidirectional", "r", "k", "h", "h", layer=layer("LSTM", "l")), True),
        (layer("LSTM", "r", ("k", {"initial_state": None})), False),
        (layer("LSTM", "r", "k"), False),
        (layer("LSTM", "r", "x", "h", "h"), False),
        (layer("SimpleRNN", "r", ("k", {"mask": ["x", 0, 0], "initial_state": [["h", 0, 0]]})), False),
    ],
)
def test_a_mask_beside_a_state(recurrent: dict[str, Any], expected: bool) -> None:
    config = model(layer("Masking", "k", "x"), STATE, recurrent, ends="r")
    assert said(config) == ((STATED,) if expected else ())


def test_layers_in_any_order() -> None:
    layers = (layer("LSTM", "r", "j"), layer("Add", "j", "k", "x"), layer("Masking", "k", "x"))
    assert said(model(*layers, ends="r")) == (tells(f"Add (j): {MERGED}", "r"),)


@pytest.mark.parametrize(
    "config", [None, {}, [], {"class_name": "Mine", "config": None}, {"class_name": "Sequential"}]
)
def test_no_graph(config: Any) -> None:
    assert semantics_flow.trace(config).parted == {}


def test_a_graph_as_tf_keras_writes_it() -> None:
    import tf_keras as k2

    ids, other = k2.Input((6,)), k2.Input((6,))
    encoded = k2.layers.Embedding(5, 3, mask_zero=True)(ids)
    _, *state = k2.layers.LSTM(2, return_state=True, name="encoder")(encoded)
    embedded = k2.layers.Embedding(5, 3, mask_zero=True)(other)
    decoded = k2.layers.LSTM(2, return_sequences=True, name="decoder")(embedded, initial_state=state)
    joined = k2.layers.Concatenate(name="joined")([decoded, encoded])
    pooled = k2.layers.GlobalAveragePooling1D(name="pooled")(joined)
    config = k2.Model([ids, other], k2.layers.Dense(1)(pooled)).get_config()
    assert said({"class_name": "Functional", "config": config}, MSE) == (
        tells(f"Concatenate (joined): {MERGED}", "pooled"),
        STATED.replace("(r)", "(decoder)"),
    )
