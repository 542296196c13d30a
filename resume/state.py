"""A training state as plain values: arrays by canonical name, position, and the configs that made it. NumPy only.

Canonical names
    model/<variable path>               weights and other variables of the model
    optimizer/iteration                 the raw counter of batches applied: *the* step
    optimizer/learning_rate, ...        the optimizer's other scalars
    optimizer/<role>/<variable path>    slot variables (role = momentum, velocity, average, gradient_accumulator, ...)
    optimizer/vars/<n>                  variables of an optimizer that the source does not name
    optimizer/loss_scale/<name>         what a LossScaleOptimizer adds around its inner optimizer
    optimizer/hyper/<name>              hyperparameters that Keras 2's legacy optimizers keep as variables
    optimizer/unused/<n>                what standalone Keras stored without ever reading it
    beside/<path>/...                   an optimizer that the model leads to beside its own, names as in optimizer/
    objects/<path>                      variables of losses, schedules and the user's own objects (resume.engine.reach)
    seeds/<layer path>/<name>           seed generators of layers
    states/<layer path>/<n>             what a stateful recurrent layer hands on from batch to batch
    metrics/<variable path>             accumulators of the epoch in progress
    callbacks/..., rng/...              arrays held by callbacks, random number generators
    <any of these>@replica<n>           device n's own copy, where devices hold different ones
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import xxhash

ITERATION = "optimizer/iteration"
LEARNING_RATE = "optimizer/learning_rate"
REPLICA = "@replica"
_NOT_ROLES = ("loss_scale", "inner", "hyper", "unused")
NUMBERED = "vars"  # in the place of a role, where a source numbers the slots

_NUMPY_DTYPES = {
    name: np.dtype(name)
    for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
} | {name: np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128")}
_NUMPY_DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)

STORABLE = frozenset(_NUMPY_DTYPES) - {"complex128"}  # the dtypes that safetensors has


def dtype_named(name: str) -> np.dtype[Any]:
    """The NumPy dtype called `name`; bfloat16 included. Raises KeyError for a dtype that no checkpoint holds."""
    found: np.dtype[Any] = _NUMPY_DTYPES[name]
    return found


@dataclass(frozen=True)
class Spec:
    """What is known of an array before it is read."""

    dtype: str
    shape: tuple[int, ...]
    digest: str | None = None  # xxh3-128 of the bytes, little-endian C order; None where the format has none

    @property
    def nbytes(self) -> int:
        return dtype_named(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def digest(array: np.ndarray[Any, Any]) -> str:
    """xxh3-128 of the array's bytes in C order, 32 hex digits (https://xxhash.com). Not a defence against forgery."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return xxhash.xxh3_128_hexdigest(flat.view(np.uint8).data if flat.size else b"")


def little_endian(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array as checkpoints hold it; the same object unless its bytes are in the other order."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def spec_of(array: np.ndarray[Any, Any]) -> Spec:
    return Spec(dtype=array.dtype.name, shape=tuple(array.shape), digest=digest(array))


class Arrays(Mapping[str, np.ndarray[Any, Any]]):
    """Arrays by canonical name, read from their source when asked for and not kept."""

    def __init__(
        self,
        specs: Mapping[str, Spec],
        *,
        read: Callable[[str], np.ndarray[Any, Any]],
        fill: Callable[[str, np.ndarray[Any, Any]], None] | None = None,
    ) -> None:
        self.specs = dict(specs)
        self._read, self._fill = read, fill

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Arrays:
        """Arrays that are already in memory."""
        held = {name: little_endian(np.asarray(array)) for name, array in arrays.items()}
        return cls({name: spec_of(array) for name, array in held.items()}, read=held.__getitem__)

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self.specs:
            raise KeyError(name)
        return self._read(name)

    @property
    def fills(self) -> bool:
        """Whether `fill` may be called: by several threads at a time, each with an array of its own."""
        return self._fill is not None

    def fill(self, name: str, memory: np.ndarray[Any, Any]) -> None:
        """Put the array's bytes, C order, into `memory`: uint8, as many as its spec says.

        Their digest is the caller's to make: of what has become of them, which tells more. Raises SourceError.
        """
        assert self._fill is not None
        self._fill(name, memory)

    def renamed(self, back: Mapping[str, str]) -> Arrays:
        """Of these arrays some, under other names. `back`: new name -> name here."""
        return Arrays(
            {new: self.specs[old] for new, old in back.items()},
            read=lambda name: self[back[name]],
            fill=(lambda name, memory: self.fill(back[name], memory)) if self.fills else None,
        )

    def take(self, name: str) -> np.ndarray[Any, Any]:
        """The array, asked for the last time: a snapshot of live variables lets go of it with this."""
        return self[name]

    def release(self, name: str) -> None:
        """The array will not be asked for."""

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Of the arrays as they are now. A snapshot knows that of what has not changed since one before."""
        return {name: digest(self[name]) for name in names}

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


@dataclass(frozen=True)
class OptimizerInfo:
    """An optimizer as its source describes it. For a LossScaleOptimizer: that one; `inner` is what it wraps."""

    class_name: str
    config: Mapping[str, Any]
    legacy: bool = False  # of Keras 2's older kind (tf.keras.optimizers.legacy), or of standalone Keras

    @property
    def inner(self) -> OptimizerInfo:
        wrapped = self.config.get("inner_optimizer")
        if self.class_name != "LossScaleOptimizer" or not isinstance(wrapped, Mapping):
            return self
        return OptimizerInfo(str(wrapped.get("class_name")), wrapped.get("config") or {}, self.legacy)


@dataclass(frozen=True)
class TrainState:
    """All that influences the next step, as one source holds it."""

    format: str  # "native", "h5", "keras", "weights_h5", "savedmodel", "tf_checkpoint", "backup"
    path: Path
    arrays: Arrays
    model_config: Mapping[str, Any] | None = None  # Keras's serialised object: class_name, config, ...
    compile_config: Mapping[str, Any] | None = None
    optimizer: OptimizerInfo | None = None
    keras_version: str | None = None
    flavour: str | None = (
        None  # "keras" (3) or "tf_keras" (1 and 2): where it was born; None where nothing tells
    )
    epoch: int | None = None  # epochs completed
    batch: int | None = None  # batches of the epoch in progress that are already applied
    progress: Mapping[str, Any] = field(default_factory=dict)  # native only, as resume.plain encodes it
    raw_names: Mapping[str, str] = field(default_factory=dict)  # canonical name -> the name in the file
    places: Mapping[str, str] = field(
        default_factory=dict
    )  # canonical name -> position, where a format keeps one
    still: frozenset[str] = (
        frozenset()
    )  # names of what no training changes (a frozen layer's), as far as is known
    unheld: tuple[str, ...] = ()  # names, or their beginnings, that this kind of source never holds
    notes: tuple[str, ...] = ()  # what a reader had to derive or assume, in plain words

    @property
    def specs(self) -> Mapping[str, Spec]:
        return self.arrays.specs

    @property
    def iterations(self) -> int | None:
        """The raw counter of batches applied (with gradient accumulation: not Keras's divided `iterations`)."""
        return int(self.arrays[ITERATION]) if ITERATION in self.specs else None

    @property
    def learning_rate(self) -> float | None:
        """The learning rate as a number; None under a schedule, or where the source holds no optimizer."""
        if self.optimizer is not None and isinstance(
            self.optimizer.inner.config.get("learning_rate"), Mapping
        ):
            return None
        return float(self.arrays[LEARNING_RATE]) if LEARNING_RATE in self.specs else None

    @property
    def slots(self) -> tuple[str, ...]:
        """Slot variables of the model's own optimizer."""
        return tuple(
            name for name, spec in self.specs.items() if is_slot(name, spec) and name.startswith("optimizer/")
        )

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(name for name in self.specs if name.startswith("model/") and REPLICA not in name)

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.specs.values())


def is_slot(name: str, spec: Spec) -> bool:
    """Whether an array is a slot variable: an optimizer variable that belongs to one trainable variable.

    Of the numbered ones (`optimizer/vars/<n>`, where a source names none) those with a shape: the others are counters.
    """
    parts = name.split("/")
    if parts[0] == "beside":
        parts = ["optimizer", *parts[2:]]
    if parts[0] != "optimizer" or len(parts) < 3 or parts[1] in _NOT_ROLES:
        return False
    return parts[1] != NUMBERED or spec.shape != ()
