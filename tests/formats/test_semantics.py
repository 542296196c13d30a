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
        (legacy("Adagrad", initial_accumulator_value=0.0), True),
        (legacy("Adagrad", initial_accumulator_value=0.1), False),
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
        f"{kind}: divided by sqrt(v) + epsilon, in Keras 3 by sqrt(v + epsilon): its steps are smaller there where "
        "gradients are small; of ten steps of RMSprop 0.03 % was missing with gradients around 1, 5 % around 0.01, "
        "nearly all around 1e-6"
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


@pytest.mark.parametrize(
    ("kind", "config", "given", "default"),
    [
        ("CosineSimilarity", {"axis": 1, "reduction": "auto"}, "axis=1", "-1"),
        ("SparseCategoricalCrossentropy", {"axis": 1}, "axis=1", "-1"),
        ("CosineSimilarity", {"axis": -1}, "", ""),
        ("CategoricalCrossentropy", {"axis": 1, "label_smoothing": 0.1}, "", ""),
        ("BinaryFocalCrossentropy", {"gamma": 1.0, "axis": 1}, "", ""),
    ],
)
def test_losses_that_keras_3_writes_without_an_argument(
    kind: str, config: dict[str, Any], given: str, default: str
) -> None:
    sentence = (
        f"{kind}({given}): no file of Keras 3 holds axis, which comes back as {default}: give the loss again"
    )
    found = said(compile_config={"loss": {"class_name": kind, "config": config}})
    assert found == ((sentence,) if given else ())


@pytest.mark.parametrize("where", ["metrics", "weighted_metrics"])
def test_a_metric_that_keras_3_writes_without_its_argument(where: str) -> None:
    def of(**config: Any) -> tuple[str, ...]:
        return said(compile_config={where: [[{"class_name": "CosineSimilarity", "config": config}]]})

    assert of(axis=0) == (
        "metric CosineSimilarity(axis=0): no file of Keras 3 holds axis, which comes back as -1: give the metric again",
    )
    assert of(axis=-1) == ()
    assert of(name="c") == ()


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine_similarity", False),  # found among the metrics in both
        (layer("MeanMetricWrapper", "cosine_similarity", fn="cosine_similarity"), True),
        (layer("MeanMetricWrapper", "b_cosine_proximity", fn="cosine_similarity"), True),
        (layer("MeanMetricWrapper", "mine", fn="cosine_similarity"), False),
        (layer("MeanMetricWrapper", "mae", fn="mean_absolute_error"), False),
        ({"class_name": "function", "config": "cosine_similarity", "registered_name": "function"}, True),
        ({"class_name": "function", "config": "log_cosh", "registered_name": "function"}, False),
        ({"class_name": "CosineSimilarity", "config": {"name": "cosine_similarity", "axis": -1}}, False),
    ],
)  # fmt: skip
def test_a_metric_whose_sign_may_turn(metric: Any, expected: bool) -> None:
    sentence = (
        "metric cosine_similarity: Keras 2 has two functions of that name, of opposite signs, and no file tells which "
        "was meant: its sign may turn; give keras.metrics.CosineSimilarity() again"
    )
    assert said(compile_config={"metrics": [metric]}) == ((sentence,) if expected else ())


def test_what_changes_the_outputs_comes_first() -> None:
    found = said(
        layer("Dropout", "d"),
        layer("BatchNormalization", "n", axis=[3]),
        layer("RandomCrop", "c"),
        layer("Dense", "h", activation="hard_sigmoid"),
        optimizer=new("Nadam"),
        compile_config={"loss": {"class_name": "Huber", "config": {"delta": 2.0}}},
    )
    assert [sentence.split("(")[0].split(":")[0].strip() for sentence in found] == [
        "hard_sigmoid", "RandomCrop", "Huber", "BatchNormalization", "random layers", "Nadam",
    ]  # fmt: skip


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


# ---- files ----


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
