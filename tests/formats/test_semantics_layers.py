"""Each sentence on a layer that Keras 3 computes otherwise: where it applies it is said, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resume.formats import semantics
from resume.state import Arrays, TrainState

LEGACY, STANDALONE, NEW = "2.10.0", "2.3.1", "2.15.0"


def layer(kind: str, name: str = "a", /, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def said(*layers: Any, version: str = NEW, **facts: Any) -> tuple[str, ...]:
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}
    known = {"model_config": config, "flavour": "tf_keras", "keras_version": version, **facts}
    return semantics.differences(TrainState(format="h5", path=Path("a.h5"), arrays=Arrays.of({}), **known))


def graph(*layers: Any, ends: str, kind: str = "Functional", name: str = "m") -> dict[str, Any]:
    """A functional model of one input `x`, as Keras 2 writes it."""
    entry = call(layer("InputLayer", "x", batch_input_shape=[None, 8, 8, 3]))
    config = {
        "name": name,
        "layers": [entry, *layers],
        "input_layers": [["x", 0, 0]],
        "output_layers": [[ends, 0, 0]],
    }
    return {"class_name": kind, "config": config, "name": name}


def call(item: dict[str, Any], *sources: str, **kwargs: Any) -> dict[str, Any]:
    node = [[[source, 0, 0, kwargs] for source in sources]] if sources else []
    return {**item, "name": item["config"]["name"], "inbound_nodes": node}


# ---- layers ----

BESSEL = (
    "Keras 2 kept the moving variance with Bessel's correction, n/(n-1), Keras 3 without: moving_variance drifts "
    "apart, and with it what the model predicts, slightly"
)


@pytest.mark.parametrize(
    ("config", "others", "expected"),
    [
        ({"axis": [3]}, (), True),
        ({"axis": 3, "fused": True}, (), True),
        ({"axis": [4]}, (), True),
        ({"axis": [1]}, (), False),
        ({"axis": [2]}, (), False),
        ({"axis": -1}, (), False),
        ({"axis": -1}, (layer("Conv2D"),), True),
        ({"axis": -1}, (layer("Conv1D"),), False),
        ({"axis": 1}, (layer("Conv2D", data_format="channels_first"),), True),
        ({"axis": 1}, (layer("Conv2D", data_format="channels_last"),), True),
        ({"axis": [3], "fused": False}, (), False),
        ({"axis": [3], "renorm": True}, (), False),
        ({"axis": [3], "virtual_batch_size": 4}, (), False),
        ({"axis": [3], "synchronized": True}, (), False),
        ({"axis": [1, 3]}, (), False),
    ],
)
@pytest.mark.parametrize("kind", ["BatchNormalization", "BatchNormalizationV1"])
def test_the_moving_variance(kind: str, config: dict[str, Any], others: Any, expected: bool) -> None:
    assert said(layer(kind, "n", **config), *others) == (
        (f"BatchNormalization (n): {BESSEL}",) if expected else ()
    )


def test_a_moving_variance_that_does_not_move() -> None:
    assert said(layer("BatchNormalization", "n", axis=[3], trainable=False)) == ()
    assert len(said(layer("BatchNormalizationV1", "n", axis=[3], trainable=False))) == 2


def test_the_moving_variance_of_standalone_keras() -> None:
    found = said(layer("BatchNormalization", "n", axis=-1), version=STANDALONE)
    assert found == (f"BatchNormalization (n): {BESSEL}",)


def test_only_the_first_names_are_listed() -> None:
    several = [layer("BatchNormalization", f"n{number}", axis=3) for number in (0, 1, 2, 3, 4, 0)]
    assert said(*several) == (f"BatchNormalization (n0, n1, n2 and 2 more): {BESSEL}",)


@pytest.mark.parametrize(
    ("kind", "version", "trainable", "expected"),
    [
        ("BatchNormalizationV1", NEW, False, True),
        ("BatchNormalizationV1", NEW, True, False),
        ("BatchNormalization", STANDALONE, False, True),
        ("BatchNormalization", STANDALONE, True, False),
        ("BatchNormalization", LEGACY, False, False),
        ("BatchNormalizationV2", STANDALONE, False, False),
    ],
)
def test_frozen_normalisation(kind: str, version: str, trainable: bool, expected: bool) -> None:
    sentence = (
        "BatchNormalization (n), frozen: before TensorFlow 2 a frozen one still normalised by the batch while "
        "training; in Keras 3 it normalises by its moving statistics"
    )
    found = said(layer(kind, "n", axis=[1], trainable=trainable), version=version)
    assert (sentence in found) is expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"activation": "hard_sigmoid"}, True),
        ({"recurrent_activation": "hard_sigmoid"}, True),
        ({"activation": {"class_name": "function", "config": "hard_sigmoid"}}, True),
        ({"activation": "sigmoid", "recurrent_activation": {"class_name": "ReLU", "config": {}}}, False),
        ({}, False),
    ],
)
def test_hard_sigmoid(config: dict[str, Any], expected: bool) -> None:
    sentence = (
        "hard_sigmoid (a): was max(0, min(1, 0.2x + 0.5)), is relu6(x + 3)/6 in Keras 3: the same weights compute "
        "other outputs, from the first batch on"
    )
    assert said(layer("LSTM", **config)) == ((sentence,) if expected else ())


def test_a_gru_older_than_its_argument() -> None:
    sentence = (
        "GRU (a): the file is older than the argument reset_after: taken as reset_after=False, which is what that "
        "Keras computed"
    )
    assert said(layer("GRU")) == (sentence,)
    assert said(layer("RNN", "r", cell=layer("GRUCell"))) == (sentence,)
    assert said(layer("GRU", reset_after=False), layer("LSTM")) == ()


def test_stateful_layers() -> None:
    sentence = "stateful layers (a): Keras 2 kept their states out of its files: they start at zero"
    assert said(layer("LSTM", stateful=True)) == (sentence,)
    assert said(layer("LSTM", stateful=False)) == ()


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (layer("Dropout", rate=0.5), True),
        (layer("GaussianDropout"), True),
        (layer("SpatialDropout2D"), True),
        (layer("AlphaDropout"), True),
        (layer("GaussianNoise"), True),
        (layer("RandomFlip"), True),
        (layer("mine>RandomZoom"), True),
        (layer("LSTM", dropout=0.5), True),
        (layer("LSTM", recurrent_dropout=0.5), True),
        (layer("MultiHeadAttention", dropout=0.1), True),
        (layer("LSTM", dropout=0.0, recurrent_dropout=0.0), False),
        (layer("Dense"), False),
    ],
)
def test_random_layers(item: dict[str, Any], expected: bool) -> None:
    sentence = "random layers (a): their draws start anew; Keras 2 and 3 share no generator"
    assert said(item) == ((sentence,) if expected else ())


# ---- images of a known number of axes ----


def shaped(*shape: int | None) -> dict[str, Any]:
    return layer("InputLayer", "x", batch_input_shape=[None, *shape])


@pytest.mark.parametrize(
    ("before", "axis", "expected"),
    [
        ([shaped(8, 8, 3)], [1], True),
        ([shaped(8, 8, 3)], [2], False),
        ([shaped(8, 8, 3)], [3], True),
        ([shaped(8, 8, 4, 3)], [1], True),
        ([shaped(8, 8, 4, 3)], [3], False),
        ([shaped(8, 8, 4, 3)], [4], True),
        ([shaped(8, 3)], [1], False),
        ([shaped(8, 8, 3), layer("Conv2D", "c"), layer("Flatten", "f"), layer("Dense", "d")], [1], False),
        ([shaped(8, 8, 3), layer("GlobalAveragePooling2D", "g")], [1], False),
        ([shaped(8, 8, 3), layer("GlobalAveragePooling2D", "g", keepdims=True)], [1], True),
        ([shaped(48), layer("Reshape", "r", target_shape=[4, 4, 3])], [1], True),
        ([shaped(None), layer("Embedding", "e")], [1], False),
        ([shaped(8, 8, 3), layer("Lambda", "l")], [1], True),  # of what, nobody knows
        ([shaped(8), layer("Lambda", "l")], [1], False),
    ],
)
def test_the_moving_variance_by_the_axes_of_the_input(before: Any, axis: list[int], expected: bool) -> None:
    found = said(*before, layer("BatchNormalization", "n", axis=axis))
    assert found == ((f"BatchNormalization (n): {BESSEL}",) if expected else ())


# ---- layers that Keras 3 calls otherwise ----


def test_a_crop_outside_of_training() -> None:
    sentence = (
        "RandomCrop (a): outside of training Keras 2 scaled and cut images to its size, Keras 3 leaves them as they "
        "are: other outputs, of another shape, unless they have that size"
    )
    assert said(layer("RandomCrop"))[0] == sentence
    assert sentence not in said(layer("CenterCrop"), layer("RandomZoom"))
    assert sentence not in said(layer("mine>RandomCrop"))


@pytest.mark.parametrize(
    ("item", "kinds"),
    [
        (layer("BatchNormalization"), "BatchNormalization"),
        (layer("BatchNormalization", trainable=False), None),
        (layer("Dropout", rate=0.5), "Dropout"),
        (layer("Dropout", rate=0.0), None),
        (layer("LSTM", recurrent_dropout=0.5), "LSTM"),
        (layer("LSTM"), None),
        (layer("Dense", kernel_initializer={"class_name": "mine>Init", "config": {}}), None),
        (layer("mine>Block"), "Block"),
        (layer("Sequential", layers=[layer("Dense"), layer("BatchNormalization"), layer("Dropout")]),
         "BatchNormalization, Dropout"),
        (layer("Sequential", layers=[layer("Dense"), layer("LayerNormalization")]), None),
        (layer("Sequential", layers=[layer("BatchNormalization", trainable=False)]), None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_training_in_the_graph(item: dict[str, Any], kinds: str | None, training: bool) -> None:
    where, how = ("evaluate() and predict()", "inference") if training else ("fit()", "training")
    sentence = (
        f"called with training={training} (a): in Keras 3 that gives way to {where}, "
        f"where {kinds} compute as in {how}"
    )
    found = said(model_config=graph(call(item, "x", training=training), ends="a"))
    assert [line for line in found if line.startswith("called")] == ([sentence] if kinds else [])
    within = graph(call(graph(call(item, "x", training=training), ends="a", name="i"), "x"), ends="i")
    assert [line for line in said(model_config=within) if line.startswith("called")] == (
        [sentence] if kinds else []
    )
    silent = said(model_config=graph(call(item, "x", training=None), ends="a"))
    assert [line for line in silent if line.startswith("called")] == []


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (layer("BatchNormalization", "n"), True),
        (layer("BatchNormalization", "n", trainable=False), False),
        (layer("Sequential", "q", layers=[layer("Dense", "d"), layer("BatchNormalization", "n")]), True),
        (layer("LayerNormalization", "n"), False),
    ],
)
def test_normalisation_in_every_step(inner: dict[str, Any], expected: bool) -> None:
    sentence = (
        "BatchNormalization in TimeDistributed (t): Keras 2 normalised all steps of a batch together, Keras 3 "
        "normalises each by itself and moves its statistics once a step"
    )
    assert said(layer("TimeDistributed", "t", layer=inner)) == ((sentence,) if expected else ())
    assert said(inner) == ()


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (layer("Dense", "d", activity_regularizer={"class_name": "L2", "config": {"l2": 0.5}}), True),
        (layer("ActivityRegularization", "d", l1=0.0, l2=0.5), True),
        (layer("ActivityRegularization", "d", l1=0.0, l2=0.0), False),
        (layer("Sequential", "q", layers=[layer("Dense", "d", activity_regularizer="l2")]), True),
        (layer("Dense", "d", activity_regularizer=None, kernel_regularizer="l2"), False),
    ],
)
def test_regularisation_in_every_step(inner: dict[str, Any], expected: bool) -> None:
    sentence = (
        "activity regularisation in TimeDistributed (t): Keras 2 added its mean over all steps to the loss, Keras 3 "
        "nothing at all or, of a model in it, the sum over the steps"
    )
    assert said(layer("TimeDistributed", "t", layer=inner)) == ((sentence,) if expected else ())
    assert said(inner) == ()


def test_graphs_as_tf_keras_writes_them(tmp_path: Path) -> None:
    import tf_keras as k2

    entry = k2.Input((4, 3))
    base = k2.Sequential([k2.layers.Dense(3), k2.layers.BatchNormalization()], name="base")
    hidden = k2.layers.Dropout(0.5, name="mc")(base(entry, training=False), training=True)
    steps = k2.layers.TimeDistributed(k2.layers.BatchNormalization(), name="steps")(hidden)
    model = k2.Model(entry, steps)
    config = {"class_name": "Functional", "config": model.get_config()}
    assert [line.partition(":")[0] for line in said(model_config=config)] == [
        "called with training=True (mc)",
        "called with training=False (base)",
        "BatchNormalization in TimeDistributed (steps)",
        "random layers (mc)",
    ]
