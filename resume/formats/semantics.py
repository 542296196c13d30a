"""Where Keras 3 computes otherwise than the Keras that a source was written by, for the model in that source.

Each line below was found in both libraries' code and measured: tf_keras 2.21 against Keras 3.15 on TensorFlow, one
optimizer and one layer at a time, from the same state on the same batches. What is not listed agreed to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from resume.formats import semantics_layers as of_layers
from resume.formats import translate_training
from resume.formats.semantics_subject import Layer, Subject, layers, named
from resume.state import OptimizerInfo, TrainState

__all__ = ["differences", "layers"]

_SQUARING = frozenset(
    {"RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Adafactor"}
)
_OF_TOUCHED_ROWS = frozenset({"Adadelta", "Adamax", "Nadam", "Ftrl"})  # and those with momentum
# What Keras 3's get_config leaves out, and what it comes back as.
_LOST_OF_LOSSES = {
    "Huber": ("delta", 1.0),
    "CosineSimilarity": ("axis", -1),
    "SparseCategoricalCrossentropy": ("axis", -1),
}
_LOST_OF_METRICS = {"CosineSimilarity": ("axis", -1)}
_LARGE = 0.01  # beside an epsilon
_COSINES = ("cosine_similarity", "cosine_proximity")


def differences(state: TrainState) -> tuple[str, ...]:
    """Sentences on what will not continue bit for bit in Keras 3, for this source; empty for one of Keras 3.

    What changes the outputs themselves comes first.
    """
    if state.flavour == "keras":
        return ()
    subject = Subject.of(state)
    found = [sentence for ask in _QUESTIONS for sentence in ask(subject)]
    return (*found, *_fixed_scale(state.optimizer))


def _names(found: list[Layer]) -> str:
    return named([item.name for item in found])


# ---- optimizers ----


def _repeated_rows(subject: Subject) -> Iterator[str]:
    """tf_keras.src.optimizers.optimizer._deduplicate_sparse_grad; keras.src.backend.tensorflow.sparse squares first."""
    found = subject.embeddings()
    if found and subject.uses(*_SQUARING) and subject.optimizer is not None:
        yield (
            f"Embedding ({_names(found)}) under {subject.optimizer.class_name}: of an id that a batch repeats, Keras 2 "
            "added the gradients up before squaring them, Keras 3 squares each: its slots grow otherwise"
        )


def _other_rows(subject: Subject) -> Iterator[str]:
    """tf_keras.src.optimizers.legacy: _resource_apply_sparse; Keras 3 applies to the whole matrix."""
    found = subject.embeddings()
    momentum = subject.uses("SGD", "RMSprop") and bool(subject.setting("momentum"))
    if found and subject.is_legacy and (momentum or subject.uses(*_OF_TOUCHED_ROWS)):
        name = subject.optimizer.class_name if subject.optimizer else ""
        yield (
            f"Embedding ({_names(found)}) under legacy {name}: Keras 2 moved the rows of a batch's ids only, Keras 3 "
            "moves every row, by what is left of its momentum"
            + ("; rows that were never met become 0" if name == "Ftrl" else "")
        )


def _nadam(subject: Subject) -> Iterator[str]:
    """tf_keras.src.optimizers.legacy.nadam, .nadam; keras.src.optimizers.nadam."""
    if subject.uses("Nadam") and subject.optimizer is not None and subject.optimizer.legacy:
        yield (
            "legacy Nadam: its momentum schedule was 0.96**(0.004 t), is 0.96**t in Keras 3: Keras 3 has no equivalent"
        )
    elif subject.uses("Nadam"):
        yield (
            "Nadam: compiled, Keras 2 multiplied its u_product once for every variable in a step, Keras 3 does so once "
            "a step: what is left of it differs, less and less as it vanishes"
        )


def _epsilon(subject: Subject) -> Iterator[str]:
    """tf_keras.src.optimizers.legacy.rmsprop without momentum, .adagrad (ResourceApplyAdagradV2); standalone Keras."""
    if subject.optimizer is None or not subject.optimizer.legacy:
        return
    small = (subject.setting("initial_accumulator_value") or 0) < _LARGE  # v of Adagrad never sinks
    if (subject.uses("Adagrad") and small) or (subject.uses("RMSprop") and not subject.setting("momentum")):
        yield (
            f"{subject.optimizer.class_name}: divided by sqrt(v) + epsilon, in Keras 3 by sqrt(v + epsilon): its steps "
            "are smaller there where gradients are small; of ten steps of RMSprop 0.03 % was missing with gradients "
            "around 1, 5 % around 0.01, nearly all around 1e-6"
        )


def _ahead(subject: Subject) -> Iterator[str]:
    if subject.is_standalone and subject.uses("Adam"):
        yield (
            "Adam of standalone Keras: in graph mode its bias correction ran one step ahead of its iteration count; "
            "in Keras 3 they agree, so one step's correction is made twice"
        )


def _rate(subject: Subject) -> Iterator[str]:
    decay = subject.setting("decay")
    if decay and not subject.uses("Nadam") and not isinstance(subject.setting("learning_rate"), Mapping):
        yield (
            f"decay={decay:.6g} has become the schedule InverseTimeDecay(rate, 1, {decay:.6g}), which gives the same "
            "rates; callbacks that set the learning rate cannot set a schedule"
        )


def _clipping(subject: Subject) -> Iterator[str]:
    if subject.setting("clipnorm") is not None and translate_training.clips_globally(subject.keras_version):
        yield "clipnorm of standalone Keras was by the norm of all gradients together: it is global_clipnorm now"


def _excluded(subject: Subject) -> Iterator[str]:
    if subject.setting("weight_decay"):
        yield (
            "weight_decay: variables kept out of it by exclude_from_weight_decay() are in no config; call that again"
        )


# ---- losses and metrics ----


def _losses(subject: Subject) -> Iterator[str]:
    """keras.src.losses.losses: what get_config() does not give."""
    for item in subject.losses:
        for kind, argument, lost, default in _lost(item, _LOST_OF_LOSSES):
            yield (
                f"{kind}({argument}={lost}): no file of Keras 3 holds {argument}, which comes back as {default}: give "
                "the loss again"
            )


def _metrics(subject: Subject) -> Iterator[str]:
    """keras.src.metrics: the same; of tf_keras's two functions of one name only the loss, the negative, is left."""
    for item in subject.metrics:
        for kind, argument, lost, default in _lost(item, _LOST_OF_METRICS):
            yield (
                f"metric {kind}({argument}={lost}): no file of Keras 3 holds {argument}, which comes back as "
                f"{default}: give the metric again"
            )
        if _turns_its_sign(item):
            yield (
                "metric cosine_similarity: Keras 2 has two functions of that name, of opposite signs, and no file "
                "tells which was meant: its sign may turn; give keras.metrics.CosineSimilarity() again"
            )


def _lost(item: Any, known: Mapping[str, tuple[str, Any]]) -> Iterator[tuple[str, str, Any, Any]]:
    """(class, argument, its value, what it becomes)."""
    config = item.get("config") if isinstance(item, Mapping) else None
    kind = str(item["class_name"]) if isinstance(config, Mapping) else ""
    if kind in known and isinstance(config, Mapping):
        argument, default = known[kind]
        if config.get(argument) not in (None, default):
            yield kind, argument, config[argument], default


def _turns_its_sign(item: Any) -> bool:
    """A plain name finds the positive one in both."""
    config = item.get("config") if isinstance(item, Mapping) else None
    if not isinstance(config, Mapping):
        return config in _COSINES
    function = config.get("fn")
    function = function.get("config") if isinstance(function, Mapping) else function
    return function in _COSINES and str(config.get("name")).endswith(_COSINES)


# ---- all of them ----


def _fixed_scale(info: OptimizerInfo | None) -> Iterator[str]:
    if info is not None and info.inner is not info and info.config.get("dynamic") is False:
        yield "a fixed loss scale: in Keras 3 it still never grows, but is halved when gradients overflow"


_QUESTIONS: tuple[Callable[[Subject], Iterator[str]], ...] = (
    of_layers.hard_sigmoid, of_layers.masks, of_layers.masks_beside_a_state, of_layers.random_crop,
    of_layers.training_argument, of_layers.distributed_normalisation, of_layers.distributed_regularisation, _losses,
    of_layers.batch_normalisation, of_layers.frozen_normalisation, of_layers.recurrent, of_layers.random,
    _repeated_rows, _other_rows, _nadam, _epsilon, _ahead, _rate, _clipping, _excluded, _metrics,
)  # fmt: skip
