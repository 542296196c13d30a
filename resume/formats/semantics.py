"""Where Keras 3 computes otherwise than the Keras that a source was written by, for the model in that source.

Each line below was found in both libraries' code and measured: tf_keras 2.21 against Keras 3.15 on TensorFlow, one
optimizer and one layer at a time, from the same state on the same batches. What is not listed agreed to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resume.formats import translate_training
from resume.state import OptimizerInfo, TrainState

_SQUARING = frozenset(
    {"RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Adafactor"}
)
_OF_TOUCHED_ROWS = frozenset({"Adadelta", "Adamax", "Nadam", "Ftrl"})  # and those with momentum
_RANDOM = (
    "Dropout", "Dropout1D", "Dropout2D", "Dropout3D", "GaussianNoise", "RandomFlip", "RandomRotation", "RandomZoom",
    "RandomCrop", "RandomTranslation",
    "RandomContrast", "RandomBrightness",
)  # fmt: skip
_SHOWN = 3


@dataclass(frozen=True)
class Layer:
    """A layer of the source's config at any depth."""

    kind: str
    name: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """What is asked about: the source's layers, its optimizer, and which Keras wrote it."""

    layers: tuple[Layer, ...]
    optimizer: OptimizerInfo | None
    keras_version: str | None
    losses: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_standalone(self) -> bool:
        return translate_training.is_standalone(self.keras_version)

    @property
    def is_legacy(self) -> bool:
        """An optimizer of OptimizerV2, the kind between standalone Keras and Keras 2.11."""
        return self.optimizer is not None and self.optimizer.legacy and not self.is_standalone

    def uses(self, *kinds: str) -> bool:
        return self.optimizer is not None and self.optimizer.class_name in kinds

    def setting(self, name: str) -> Any:
        return self.optimizer.config.get(name) if self.optimizer is not None else None

    def embeddings(self) -> list[Layer]:
        return [
            item for item in self.layers if item.kind == "Embedding" and item.config.get("trainable", True)
        ]


def differences(state: TrainState) -> tuple[str, ...]:
    """Sentences on what will not continue bit for bit in Keras 3, for this source; empty for one of Keras 3."""
    if state.flavour == "keras":
        return ()
    compiled = state.compile_config or {}
    subject = Subject(
        tuple(layers(state.model_config)),
        state.optimizer.inner if state.optimizer is not None else None,
        state.keras_version,
        tuple(_objects(compiled.get("loss"))),
    )
    found = [sentence for ask in _QUESTIONS for sentence in ask(subject)]
    return (*found, *_fixed_scale(state.optimizer))


def layers(config: object) -> Iterator[Layer]:
    """Every serialised layer in a config, models and wrappers included."""
    for item in _objects(config):
        inner = item.get("config")
        if isinstance(inner, Mapping):
            kind = str(item["class_name"]).rpartition(">")[2]
            yield Layer(kind, str(inner.get("name") or item.get("name") or kind), inner)


def _objects(config: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(config, list | tuple):
        for item in config:
            yield from _objects(item)
    if isinstance(config, Mapping):
        if "class_name" in config:
            yield config
        for item in config.values():
            yield from _objects(item)


def _named(found: list[Layer]) -> str:
    names = list(dict.fromkeys(item.name for item in found))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# ---- layers ----


def _batch_normalisation(subject: Subject) -> Iterator[str]:
    """tf_keras.src.layers.normalization.batch_normalization._fused_batch_norm; all of standalone Keras's."""
    found = [
        item
        for item in subject.layers
        if item.kind.startswith("BatchNormalization") and _corrected(item, subject)
    ]
    if found:
        yield (
            f"BatchNormalization ({_named(found)}): Keras 2 kept the moving variance with Bessel's correction, "
            "n/(n-1), Keras 3 without: moving_variance drifts apart, and with it what the model predicts, slightly"
        )


def _corrected(item: Layer, subject: Subject) -> bool:
    if subject.is_standalone:
        return True
    config = item.config
    axis = config.get("axis")
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    plain = not (config.get("renorm") or config.get("virtual_batch_size") or config.get("synchronized"))
    images = axis in (3, 4) or _may_be_of_images(axis, subject)
    return plain and config.get("fused") is not False and images


def _may_be_of_images(axis: Any, subject: Subject) -> bool:
    """Axis 1 is that of vectors, too; one counted from the end was never resolved."""
    if axis == 1:
        return any(item.config.get("data_format") == "channels_first" for item in subject.layers)
    return axis in (-1, -3) and any("Conv2D" in item.kind or "Conv3D" in item.kind for item in subject.layers)


def _frozen_normalisation(subject: Subject) -> Iterator[str]:
    """tf_keras.src.layers.normalization.batch_normalization: since TensorFlow 2, `trainable=False` means inference."""
    found = [
        item
        for item in subject.layers
        if item.config.get("trainable") is False
        and (
            item.kind == "BatchNormalizationV1"
            or (item.kind == "BatchNormalization" and subject.is_standalone)
        )
    ]
    if found:
        yield (
            f"BatchNormalization ({_named(found)}), frozen: before TensorFlow 2 a frozen one still normalised by the "
            "batch while training; in Keras 3 it normalises by its moving statistics"
        )


def _hard_sigmoid(subject: Subject) -> Iterator[str]:
    """tf_keras.src.backend.hard_sigmoid: clip(0.2 x + 0.5); keras.src.activations: relu6(x + 3) / 6."""
    keys = ("activation", "recurrent_activation")
    found = [i for i in subject.layers if any(_calls(i.config.get(k), "hard_sigmoid") for k in keys)]
    if found:
        yield (
            f"hard_sigmoid ({_named(found)}): was max(0, min(1, 0.2x + 0.5)), is relu6(x + 3)/6 in Keras 3: "
            "the same weights compute other outputs, from the first batch on"
        )


def _calls(activation: Any, name: str) -> bool:
    return bool(activation == name or (isinstance(activation, Mapping) and activation.get("config") == name))


def _recurrent(subject: Subject) -> Iterator[str]:
    assumed = [i for i in subject.layers if i.kind in ("GRU", "GRUCell") and "reset_after" not in i.config]
    if assumed:
        yield (
            f"GRU ({_named(assumed)}): the file is older than the argument reset_after: taken as reset_after=False, "
            "which is what that Keras computed"
        )
    stateful = [i for i in subject.layers if i.config.get("stateful") is True]
    if stateful:
        yield (
            f"stateful layers ({_named(stateful)}): Keras 2 kept their states out of its files: they start at zero"
        )


def _random(subject: Subject) -> Iterator[str]:
    """Dropout and its like: both draw from generators of their own, Keras 3 from states of another shape."""
    dropping = ("dropout", "recurrent_dropout")
    found = [
        i
        for i in subject.layers
        if i.kind.endswith(_RANDOM)
        or any(isinstance(i.config.get(k), float) and i.config[k] > 0 for k in dropping)
    ]
    if found:
        yield f"random layers ({_named(found)}): their draws start anew; Keras 2 and 3 share no generator"


# ---- optimizers ----


def _repeated_rows(subject: Subject) -> Iterator[str]:
    """tf_keras.src.optimizers.optimizer._deduplicate_sparse_grad; keras.src.backend.tensorflow.sparse squares first."""
    found = subject.embeddings()
    if found and subject.uses(*_SQUARING) and subject.optimizer is not None:
        yield (
            f"Embedding ({_named(found)}) under {subject.optimizer.class_name}: of an id that a batch repeats, Keras 2 "
            "added the gradients up before squaring them, Keras 3 squares each: its slots grow otherwise"
        )


def _other_rows(subject: Subject) -> Iterator[str]:
    """tf_keras.src.optimizers.legacy: _resource_apply_sparse; Keras 3 applies to the whole matrix."""
    found = subject.embeddings()
    momentum = subject.uses("SGD", "RMSprop") and bool(subject.setting("momentum"))
    if found and subject.is_legacy and (momentum or subject.uses(*_OF_TOUCHED_ROWS)):
        name = subject.optimizer.class_name if subject.optimizer else ""
        yield (
            f"Embedding ({_named(found)}) under legacy {name}: Keras 2 moved the rows of a batch's ids only, Keras 3 "
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
    if subject.uses("Adagrad") or (subject.uses("RMSprop") and not subject.setting("momentum")):
        kind = subject.optimizer.class_name
        yield f"{kind}: divided by sqrt(v) + epsilon, in Keras 3 by sqrt(v + epsilon): about 1e-5 in a few steps"


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


def _loss_arguments(subject: Subject) -> Iterator[str]:
    """keras.src.losses: Huber's get_config leaves `delta` out."""
    for item in subject.losses:
        delta = (item.get("config") or {}).get("delta") if isinstance(item.get("config"), Mapping) else None
        if str(item["class_name"]) == "Huber" and delta not in (None, 1.0):
            yield f"Huber(delta={delta}): no file of Keras 3 holds delta, which comes back as 1.0: give the loss again"


def _fixed_scale(info: OptimizerInfo | None) -> Iterator[str]:
    if info is not None and info.inner is not info and info.config.get("dynamic") is False:
        yield "a fixed loss scale: in Keras 3 it still never grows, but is halved when gradients overflow"


_QUESTIONS: tuple[Callable[[Subject], Iterator[str]], ...] = (
    _batch_normalisation, _frozen_normalisation, _hard_sigmoid, _recurrent, _random,
    _repeated_rows, _other_rows, _nadam, _epsilon, _ahead, _rate, _clipping, _excluded, _loss_arguments,
)  # fmt: skip
