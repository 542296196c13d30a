"""Each sentence on what Keras 3 computes otherwise: where it applies it is said, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resume import formats
from resume.formats import semantics
from resume.state import Arrays, OptimizerInfo, TrainState

FIXTURES = Path(__file__).parents[1] / "fixtures"
ADAM = OptimizerInfo("Adam", {"learning_rate": 0.5})
LEGACY, STANDALONE, NEW = "2.10.0", "2.3.1", "2.15.0"


def layer(kind: str, name: str = "a", /, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def said(
    *layers: Any, optimizer: OptimizerInfo | None = None, version: str | None = NEW, **facts: Any
) -> tuple[str, ...]:
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}
    known = {"model_config": config, "flavour": "tf_keras", **facts}
    return semantics.differences(
        TrainState(
            format="h5",
            path=Path("a.h5"),
            arrays=Arrays.of({}),
            optimizer=optimizer,
            keras_version=version,
            **known,
        )
    )


def legacy(kind: str, /, **config: Any) -> OptimizerInfo:
    return OptimizerInfo(kind, config, legacy=True)


def new(kind: str, /, **config: Any) -> OptimizerInfo:
    return OptimizerInfo(kind, config)


def test_nothing_to_say() -> None:
    assert said(layer("Dense", activation="sigmoid"), layer("LSTM", dropout=0.0), optimizer=ADAM) == ()
    assert said(model_config=None) == ()


def test_a_state_of_keras_3_continues_as_it_was() -> None:
    embedding = layer("Embedding")
    assert said(embedding, layer("Dropout"), optimizer=ADAM, flavour="keras") == ()
    assert len(said(embedding, layer("Dropout"), optimizer=ADAM)) == 2


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
        ({"axis": 1}, (layer("Conv2D", data_format="channels_last"),), False),
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


# ---- embeddings ----

EMBEDDING = layer("Embedding", "e")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        *((new(kind), True) for kind in ("RMSprop", "Adam", "AdamW", "Adadelta", "Adamax", "Ftrl", "Adafactor")),
        *((new(kind), False) for kind in ("SGD", "Lion")),
        (legacy("Adam"), True),
        (None, False),
    ],
)  # fmt: skip
def test_rows_that_a_batch_repeats(optimizer: OptimizerInfo | None, expected: bool) -> None:
    kind = optimizer.class_name if optimizer else None
    sentence = (
        f"Embedding (e) under {kind}: of an id that a batch repeats, Keras 2 added the gradients up before squaring "
        "them, Keras 3 squares each: its slots grow otherwise"
    )
    assert said(EMBEDDING, optimizer=optimizer) == ((sentence,) if expected else ())
    assert sentence not in said(layer("Embedding", "e", trainable=False), optimizer=optimizer)
    assert sentence not in said(layer("Dense", "e"), optimizer=optimizer)


@pytest.mark.parametrize(
    ("optimizer", "version", "more"),
    [
        (legacy("SGD", momentum=0.9), LEGACY, ""),
        (legacy("RMSprop", momentum=0.9), LEGACY, ""),
        (legacy("Adamax"), LEGACY, ""),
        (legacy("Ftrl"), LEGACY, "; rows that were never met become 0"),
        (legacy("SGD", momentum=0.0), LEGACY, None),
        (legacy("SGD", momentum=0.9), STANDALONE, None),
        (new("SGD", momentum=0.9), NEW, None),
        (legacy("Adam"), LEGACY, None),
    ],
)
def test_rows_that_no_batch_has(optimizer: OptimizerInfo, version: str, more: str | None) -> None:
    sentence = (
        f"Embedding (e) under legacy {optimizer.class_name}: Keras 2 moved the rows of a batch's ids only, Keras 3 "
        f"moves every row, by what is left of its momentum{more or ''}"
    )
    assert (sentence in said(EMBEDDING, optimizer=optimizer, version=version)) is (more is not None)
    assert said(optimizer=optimizer, version=version).count(sentence) == 0


# ---- optimizers ----


def test_nadam() -> None:
    (old,) = said(optimizer=legacy("Nadam"), version=LEGACY)
    assert old == (
        "legacy Nadam: its momentum schedule was 0.96**(0.004 t), is 0.96**t in Keras 3: Keras 3 has no equivalent"
    )
    (later,) = said(optimizer=new("Nadam"))
    assert later == (
        "Nadam: compiled, Keras 2 multiplied its u_product once for every variable in a step, Keras 3 does so once a "
        "step: what is left of it differs, less and less as it vanishes"
    )


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (legacy("Adagrad"), True),
        (legacy("RMSprop"), True),
        (legacy("RMSprop", momentum=0.9), False),
        (legacy("Adadelta"), False),
        (new("Adagrad"), False),
        (new("RMSprop"), False),
    ],
)
def test_where_epsilon_stands(optimizer: OptimizerInfo, expected: bool) -> None:
    kind = optimizer.class_name
    sentence = (
        f"{kind}: divided by sqrt(v) + epsilon, in Keras 3 by sqrt(v + epsilon): about 1e-5 in a few steps"
    )
    assert said(optimizer=optimizer, version=LEGACY) == ((sentence,) if expected else ())


def test_a_bias_correction_that_ran_ahead() -> None:
    sentence = (
        "Adam of standalone Keras: in graph mode its bias correction ran one step ahead of its iteration count; in "
        "Keras 3 they agree, so one step's correction is made twice"
    )
    assert said(optimizer=legacy("Adam"), version=STANDALONE) == (sentence,)
    assert said(optimizer=legacy("Adam"), version=LEGACY) == ()
    assert said(optimizer=legacy("Adamax"), version=STANDALONE) == ()


def test_decay() -> None:
    sentence = (
        "decay=0.01 has become the schedule InverseTimeDecay(rate, 1, 0.01), which gives the same rates; callbacks "
        "that set the learning rate cannot set a schedule"
    )
    assert said(optimizer=legacy("SGD", decay=0.01), version=LEGACY) == (sentence,)
    assert said(optimizer=legacy("SGD", decay=0.0), version=LEGACY) == ()
    assert sentence not in said(optimizer=legacy("Nadam", decay=0.01), version=LEGACY)


@pytest.mark.parametrize(("version", "expected"), [(STANDALONE, True), ("2.2.4-tf", False), (NEW, False)])
def test_clipping(version: str, expected: bool) -> None:
    sentence = (
        "clipnorm of standalone Keras was by the norm of all gradients together: it is global_clipnorm now"
    )
    assert said(optimizer=legacy("SGD", clipnorm=1.0), version=version) == ((sentence,) if expected else ())
    assert said(optimizer=legacy("SGD", clipnorm=None), version=version) == ()


def test_variables_that_were_kept_out_of_the_decay() -> None:
    sentence = "weight_decay: variables kept out of it by exclude_from_weight_decay() are in no config; call that again"
    assert said(optimizer=new("AdamW", weight_decay=0.004)) == (sentence,)
    assert said(optimizer=new("Adam", weight_decay=None)) == ()


def test_a_loss_that_keras_3_writes_without_its_argument() -> None:
    def of(loss: Any) -> tuple[str, ...]:
        return said(compile_config={"loss": loss})

    sentence = (
        "Huber(delta=2.0): no file of Keras 3 holds delta, which comes back as 1.0: give the loss again"
    )
    huber = {"class_name": "Huber", "config": {"delta": 2.0}}
    assert of(huber) == (sentence,)
    assert of({"out": [huber]}) == (sentence,)
    assert of({"class_name": "Huber", "config": {"delta": 1.0}}) == ()
    assert of({"class_name": "Huber", "config": {}}) == ()
    assert of("huber_loss") == ()


def test_a_fixed_loss_scale() -> None:
    def of(**config: Any) -> tuple[str, ...]:
        inner = {"class_name": "SGD", "config": {}}
        return said(optimizer=new("LossScaleOptimizer", inner_optimizer=inner, **config))

    sentence = "a fixed loss scale: in Keras 3 it still never grows, but is halved when gradients overflow"
    assert of(dynamic=False) == (sentence,)
    assert of(dynamic=True) == ()
    assert of() == ()


def test_the_inner_optimizer_is_asked_about() -> None:
    inner = {"class_name": "AdamW", "config": {"weight_decay": 0.5}}
    (found,) = said(optimizer=new("LossScaleOptimizer", inner_optimizer=inner))
    assert found.startswith("weight_decay: ")


# ---- where layers are ----


def test_layers_at_any_depth() -> None:
    wrapped = layer("TimeDistributed", "t", layer=layer("Sequential", "s", layers=[layer("mine>Block", "b")]))
    nameless = {"class_name": "Model", "config": {"layers": [layer("Dense", "d")]}, "name": "m"}
    found = [(item.kind, item.name) for item in semantics.layers([wrapped, nameless, {"class_name": "X"}, 3])]
    assert found == [
        ("TimeDistributed", "t"),
        ("Sequential", "s"),
        ("Block", "b"),
        ("Model", "m"),
        ("Dense", "d"),
    ]


@pytest.mark.parametrize(
    ("name", "beginnings"),
    [
        ("o01_e115s_mlp_adam/model.h5", ["Adam of standalone Keras:"]),
        ("o02_e115_mlp_named_sgd/model.h5", []),
        ("o04_e24_cnn_bn_skip_adam/model.h5", ["BatchNormalization ("]),
        ("o06_e28_nested_adam_decay/model.h5", ["decay="]),
        ("o09_e210_frozen_nadam/model.h5", ["legacy Nadam:"]),
        ("o18_e215_mlp_adam/model.keras", []),
        ("o22_e215_embed_lstm_rmsprop_mom_centered/model.keras", ["Embedding ("]),
        ("o26_e215_mlp_named_adam_clip_wd/model.keras", ["weight_decay:"]),
        ("o33_e215_dropout_mlp_adam_dropout/model.h5", ["random layers ("]),
        ("o45_k315_mlp_adam_control/model.keras", []),
    ],
)
def test_real_files(name: str, beginnings: list[str]) -> None:
    found = semantics.differences(formats.read(FIXTURES / name))
    assert [sentence[: len(start)] for sentence, start in zip(found, beginnings, strict=True)] == beginnings
