"""Which layers of a source Keras 3 computes otherwise, a sentence each: outputs first, then what training changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from resume.formats.semantics_subject import Layer, Subject, layers, named

_RANDOM = (
    "Dropout", "Dropout1D", "Dropout2D", "Dropout3D", "GaussianNoise", "RandomFlip", "RandomRotation", "RandomZoom",
    "RandomCrop", "RandomTranslation",
    "RandomContrast", "RandomBrightness",
)  # fmt: skip
_PARTED = {
    "TimeDistributed": "Keras 2 handed on the mask of the layer in it, Keras 3 hands on that of its input",
    **dict.fromkeys(
        ("Identity", "Normalization", "Rescaling"), "Keras 2 dropped the mask there, Keras 3 hands it on"
    ),
}
_MERGED = "Keras 2 masked a step that any of its inputs masks, Keras 3 one that all of them mask"


def _names(found: list[Layer]) -> str:
    return named([item.name for item in found])


# ---- what it computes ----


def hard_sigmoid(subject: Subject) -> Iterator[str]:
    """tf_keras.src.backend.hard_sigmoid: clip(0.2 x + 0.5); keras.src.activations: relu6(x + 3) / 6."""
    keys = ("activation", "recurrent_activation")
    found = [i for i in subject.layers if any(_calls(i.config.get(k), "hard_sigmoid") for k in keys)]
    if found:
        yield (
            f"hard_sigmoid ({_names(found)}): was max(0, min(1, 0.2x + 0.5)), is relu6(x + 3)/6 in Keras 3: "
            "the same weights compute other outputs, from the first batch on"
        )


def _calls(activation: Any, name: str) -> bool:
    return bool(activation == name or (isinstance(activation, Mapping) and activation.get("config") == name))


def masks(subject: Subject) -> Iterator[str]:
    """compute_mask and supports_masking of both; merging.base_merge, .concatenate: all and any, of None as well."""
    for (kind, name), users in subject.flow.parted.items():
        yield (
            f"{kind} ({name}): {_PARTED.get(kind, _MERGED)}: it tells in {named(list(users))}, from the first batch on"
        )


def masks_beside_a_state(subject: Subject) -> Iterator[str]:
    """keras.src.layers.layer.Layer.__call__: with two arguments of tensors it looks for `sequence_mask`."""
    if subject.flow.unmasked:
        yield (
            f"initial_state ({named(subject.flow.unmasked)}): a recurrent layer that is called with one does not get "
            "its input's mask in Keras 3: it runs through the masked steps, from the first batch on"
        )


def random_crop(subject: Subject) -> Iterator[str]:
    """tf_keras.src.layers.preprocessing.image_preprocessing.RandomCrop: smart_resize; keras.src: as they are."""
    found = [item for item in subject.layers if item.kind == "RandomCrop" and item.own]
    if found:
        yield (
            f"RandomCrop ({_names(found)}): outside of training Keras 2 scaled and cut images to its size, Keras 3 "
            "leaves them as they are: other outputs, of another shape, unless they have that size"
        )


def training_argument(subject: Subject) -> Iterator[str]:
    """keras.src.models.functional.operation_fn: the training flag of fit() and predict() replaces a call's own."""
    for value, where, what in ((True, "evaluate() and predict()", "inference"), (False, "fit()", "training")):
        found = [call for call in subject.calls if call.training is value and any(map(_depends, call.within))]
        kinds = [item.kind for call in found for item in call.within if _depends(item)]
        if found:
            yield (
                f"called with training={value} ({named([call.name for call in found])}): in Keras 3 that gives way to "
                f"{where}, where {named(kinds)} compute as in {what}"
            )


def _depends(item: Layer) -> bool:
    """Whether a layer computes otherwise while it trains; of one's own classes nobody knows."""
    if not item.own:
        return "name" in item.config  # which initialisers and the like have none
    return _normalises(item) or _draws(item) or item.kind == "SpectralNormalization"


def _normalises(item: Layer) -> bool:
    return "BatchNormalization" in item.kind and item.config.get("trainable") is not False


# ---- what it learns ----


def batch_normalisation(subject: Subject) -> Iterator[str]:
    """tf_keras.src.layers.normalization.batch_normalization._fused_batch_norm; all of standalone Keras's."""
    found = [
        item
        for item in subject.layers
        if item.kind.startswith("BatchNormalization")
        and (item.config.get("trainable") is not False or _heeds_no_frost(item, subject))
        and _corrected(item, subject)
    ]
    if found:
        yield (
            f"BatchNormalization ({_names(found)}): Keras 2 kept the moving variance with Bessel's correction, "
            "n/(n-1), Keras 3 without: moving_variance drifts apart, and with it what the model predicts, slightly"
        )


def _corrected(item: Layer, subject: Subject) -> bool:
    if subject.is_standalone:
        return True
    config = item.config
    plain = not (config.get("renorm") or config.get("virtual_batch_size") or config.get("synchronized"))
    return plain and config.get("fused") is not False and _is_of_images(item, subject)


def _is_of_images(item: Layer, subject: Subject) -> bool:
    """Over the channels, first or last, of four or five axes. An axis counted from the end was never resolved."""
    axis = item.config.get("axis")
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    ranks = {rank for rank in subject.flow.ranks.get(item.name, {None}) if rank is None or rank in (4, 5)}
    if None not in ranks:
        return any(axis in (1, -1, rank - 1, 1 - rank) for rank in ranks if rank is not None)
    return axis in (3, 4) or (axis in (1, -1, -3) and _may_hold_images(subject))


def _may_hold_images(subject: Subject) -> bool:
    kinds = any("2D" in item.kind or "3D" in item.kind for item in subject.layers)
    first = any(item.config.get("data_format") == "channels_first" for item in subject.layers)
    return kinds or first or subject.flow.holds_images


def distributed_normalisation(subject: Subject) -> Iterator[str]:
    """tf_keras.src.layers.rnn.time_distributed reshapes; keras.src calls the layer once a step."""
    found = [item for item in _distributed(subject) if any(map(_normalises, _within(item)))]
    if found:
        yield (
            f"BatchNormalization in TimeDistributed ({_names(found)}): Keras 2 normalised all steps of a batch "
            "together, Keras 3 normalises each by itself and moves its statistics once a step"
        )


def distributed_regularisation(subject: Subject) -> Iterator[str]:
    """The same: `layer.call` goes round activity_regularizer, and models in it count each step as a batch."""
    found = [item for item in _distributed(subject) if any(map(_regularises, _within(item)))]
    if found:
        yield (
            f"activity regularisation in TimeDistributed ({_names(found)}): Keras 2 added its mean over all steps to "
            "the loss, Keras 3 nothing at all or, of a model in it, the sum over the steps"
        )


def _distributed(subject: Subject) -> list[Layer]:
    return [item for item in subject.layers if item.kind == "TimeDistributed" and item.own]


def _within(item: Layer) -> Iterator[Layer]:
    return layers(item.config.get("layer"))


def _regularises(item: Layer) -> bool:
    weights = item.kind == "ActivityRegularization" and (item.config.get("l1") or item.config.get("l2"))
    return bool(item.config.get("activity_regularizer") or weights)


def frozen_normalisation(subject: Subject) -> Iterator[str]:
    """tf_keras.src.layers.normalization.batch_normalization: since TensorFlow 2, `trainable=False` means inference."""
    found = [i for i in subject.layers if i.config.get("trainable") is False and _heeds_no_frost(i, subject)]
    if found:
        yield (
            f"BatchNormalization ({_names(found)}), frozen: before TensorFlow 2 a frozen one still normalised by the "
            "batch while training; in Keras 3 it normalises by its moving statistics"
        )


def _heeds_no_frost(item: Layer, subject: Subject) -> bool:
    return item.kind == "BatchNormalizationV1" or (
        item.kind == "BatchNormalization" and subject.is_standalone
    )


# ---- what it keeps ----


def recurrent(subject: Subject) -> Iterator[str]:
    assumed = [i for i in subject.layers if i.kind in ("GRU", "GRUCell") and "reset_after" not in i.config]
    if assumed:
        yield (
            f"GRU ({_names(assumed)}): the file is older than the argument reset_after: taken as reset_after=False, "
            "which is what that Keras computed"
        )
    stateful = [i for i in subject.layers if i.config.get("stateful") is True]
    if stateful:
        yield (
            f"stateful layers ({_names(stateful)}): Keras 2 kept their states out of its files: they start at zero"
        )


def random(subject: Subject) -> Iterator[str]:
    """Dropout and its like: both draw from generators of their own, Keras 3 from states of another shape."""
    found = [item for item in subject.layers if _draws(item)]
    if found:
        yield f"random layers ({_names(found)}): their draws start anew; Keras 2 and 3 share no generator"


def _draws(item: Layer) -> bool:
    dropping = any(
        isinstance(rate, float) and rate > 0
        for rate in (item.config.get("dropout"), item.config.get("recurrent_dropout"))
    )
    idle = item.config.get("rate") == 0 or item.config.get("stddev") == 0
    return dropping or (item.kind.endswith(_RANDOM) and not idle)
