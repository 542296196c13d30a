"""The training state at a step boundary without a copy: references that stay as they are while the training goes on.

TensorFlow reuses a variable's buffer for its next value only while nobody else refers to it (ResourceVariable is
copy-on-write: `assign`, fused optimizer kernels, XLA and `steps_per_execution` alike). So a reference costs
microseconds now, and one allocation and copy at that variable's next update, unless it was let go of before. At most
one more copy of the state is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume.engine import capture, live
from resume.state import REPLICA, Arrays, Spec, TrainState


class References(Arrays):
    """Tensors and arrays by name, read where they lie, each let go of when it is taken."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        self._held = dict(held)
        super().__init__({name: _spec(item) for name, item in held.items()}, read=self._look)

    def _look(self, name: str) -> np.ndarray[Any, Any]:
        return _on_host(self._held[name])

    def take(self, name: str) -> np.ndarray[Any, Any]:
        array = self[name]
        del self._held[name]
        return array

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            del self._held[name], self.specs[name]


def take(
    model: keras.Model,
    *,
    epoch: int,
    batch: int,
    progress: Mapping[str, Any],
    kept: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> TrainState:
    """The training state now, to be read once. `progress`: sections of plain values; arrays in them are copied.

    `kept`: values of an earlier moment that hold in the place of today's.
    """
    found = live.of(model)
    held: dict[str, Any] = {name: live.reference(v) for name, v in found.variables.items()} | dict(kept or {})
    encoded = {section: capture.encoded(section, item, held) for section, item in progress.items()}
    return capture.training_state(model, found, References(held), epoch=epoch, batch=batch, progress=encoded)


def settled(state: TrainState) -> TrainState:
    """Without those copies on other devices that say nothing beyond the variable's own value: to compare takes time."""
    copied = {name.partition(REPLICA)[0] for name in state.specs if REPLICA in name}
    groups = {name: state.arrays[name] for name in state.specs if name.partition(REPLICA)[0] in copied}
    same = groups.keys() - live.diverged(groups).keys()
    assert isinstance(state.arrays, References)
    state.arrays.forget(same)
    return replace(state, raw_names={n: raw for n, raw in state.raw_names.items() if n not in same})


def _spec(item: Any) -> Spec:
    kind = item.dtype.as_numpy_dtype if isinstance(item, tf.Tensor) else item.dtype
    return Spec(np.dtype(kind).name, tuple(item.shape))


def _on_host(item: Any) -> np.ndarray[Any, Any]:
    """Not `numpy()`, which copies what is on the host already."""
    return np.asarray(item._numpy() if isinstance(item, tf.Tensor) else item)
