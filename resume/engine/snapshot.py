"""The training state at a step boundary without a copy: references that stay as they are while the training goes on.

TensorFlow reuses a variable's buffer for its next value only while nobody else refers to it (ResourceVariable is
copy-on-write: `assign`, fused optimizer kernels, XLA and `steps_per_execution` alike). So a reference costs
microseconds now, and one allocation and copy at that variable's next update, unless it was let go of before: which is
what happens first when a checkpoint is written, the last layer before the others (resume.formats.native). At most one
more copy of the state is in memory, but for what an update finds before that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume.engine import capture, drain, live
from resume.state import REPLICA, Arrays, TrainState

_LOAD = 256 << 20  # bytes that come to the host at a time
_SMALL = 1 << 16  # bytes; less comes by itself


class References(Arrays):
    """Tensors and arrays by name, each let go of when it is taken. Tensors of a GPU come to the host some at a time."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        self._held = dict(held)
        # Not a method of its own, which would tie a knot that only the garbage collector undoes, much later.
        super().__init__({name: live.spec(item) for name, item in held.items()}, read=self._held.__getitem__)

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        if _away(self._held[name]) and self.specs[name].nbytes >= _SMALL:
            self._bring(itertools.dropwhile(lambda other: other != name, list(self._held)))
        return _on_host(self._held[name])

    def _bring(self, names: Iterable[str]) -> None:
        """The first of these, and as many after it as make a load; on the device they are let go of."""
        load: dict[str, tf.Tensor] = {}
        room = _LOAD
        for name in names:
            if _away(self._held[name]):
                load[name] = self._held[name]
                room -= self.specs[name].nbytes
            if room < 0:
                break
        self._held |= zip(load, drain.to_host(list(load.values())), strict=True)

    def bring_all(self) -> None:
        for name in list(self._held):
            self[name]

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
) -> TrainState:
    """The training state now, to be read once. `progress`: sections of plain values; arrays in them are copied."""
    found = live.of(model)
    held: dict[str, Any] = {name: live.reference(v) for name, v in found.variables.items()}
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


def _away(item: Any) -> bool:
    return isinstance(item, tf.Tensor) and "GPU" in item.device


def _on_host(item: Any) -> np.ndarray[Any, Any]:
    return live.on_host(item) if isinstance(item, tf.Tensor) else np.asarray(item)
