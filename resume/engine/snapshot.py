"""The training state at a step boundary without a copy: references that stay as they are while the training goes on.

TensorFlow reuses a variable's buffer for its next value only while nobody else refers to it (ResourceVariable is
copy-on-write: `assign`, fused optimizer kernels, XLA and `steps_per_execution` alike). So a reference costs
microseconds now, and one allocation and copy at that variable's next update, unless it was let go of before: which is
what happens first when a checkpoint is written, the last layer before the others (resume.formats.native). At most one
more copy of the state is in memory, but for what an update finds before that.
"""

from __future__ import annotations

import ctypes
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume.engine import capture, drain, flavour, live, reach, reading, rng
from resume.engine.structure import Structure
from resume.state import REPLICA, Arrays, Spec, TrainState, digest

_LOAD = 256 << 20  # bytes that come to the host at a time
_SMALL = 1 << 16  # bytes; less comes by itself

Later = Callable[[], Any]  # the plain values of a section

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class References(Arrays):
    """Tensors and arrays by name, each let go of when it is taken. Tensors of a GPU come to the host some at a time."""

    def __init__(
        self,
        held: Mapping[str, Any],
        *,
        specs: Mapping[str, Spec] | None = None,
        unchanged: Unchanged | None = None,
        lasting: frozenset[str] = frozenset(),
        later: Mapping[str, Later] | None = None,
    ) -> None:
        """`specs`: those that are known already. `unchanged`: what earlier snapshots of the same variables know.

        `lasting`: of variables whose references are their own buffers; one that is spread over devices is gathered.
        `later`: sections for `settled`.
        """
        self._held, known = dict(held), specs or {}
        self._unchanged, self._lasting, self._later = unchanged or Unchanged(), lasting, later or {}
        every = {name: known[name] if name in known else live.spec(item) for name, item in held.items()}
        # Not a method of its own, which would tie a knot that only the garbage collector undoes, much later.
        super().__init__(every, read=self._held.__getitem__)

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
        self._lasting = frozenset()  # copies, from here on
        for name in list(self._held):
            self[name]

    def take(self, name: str) -> np.ndarray[Any, Any]:
        array = self[name]
        del self._held[name]
        return array

    def release(self, name: str) -> None:
        del self._held[name]

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        held = {name: self._held[name] for name in names}
        return self._unchanged.digests(held, lambda name: digest(self[name]), lasting=self._lasting)

    def sections(self) -> dict[str, Any]:
        """Those that were left for now; their arrays are among these from here on."""
        found: dict[str, Any] = {}
        made = _encoded({section: make() for section, make in self._later.items()}, found)
        self._held |= found
        self.specs |= {name: live.spec(item) for name, item in found.items()}
        return made

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            del self._held[name], self.specs[name]


class Unchanged:
    """Digests of what does not change, each with the reference that it was made of.

    While that is held, an update is written elsewhere: a variable whose buffer this still is has not been updated. Then
    it is read no more, and brought from a GPU no more. What turns out to be updated is not held on to.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tf.Tensor, str]] = {}

    def digests(
        self, held: Mapping[str, Any], make: Callable[[str], str], *, lasting: frozenset[str]
    ) -> dict[str, str]:
        """Of those references; of all others, nothing is known any more. `lasting`: those that may be held on to."""
        before = {name: self._known[name] for name in held if name in self._known}
        # All, before any of them comes to the host: that is another buffer.
        self._known = {name: known for name, known in before.items() if _same_buffer(known[0], held[name])}
        made = {name: make(name) for name in held if name not in self._known}
        found = made | {name: known[1] for name, known in self._known.items()}
        self._known |= {n: (held[n], made[n]) for n in made if n in lasting and n not in before}
        return found


class Snapshots:
    """Takes snapshots of a model. What has to be found out about it for that holds until it is made of other things."""

    def __init__(self, model: keras.Model, *, constant: Mapping[str, Any] | None = None) -> None:
        """`constant`: sections of plain values that are the same in each, without arrays."""
        self._model = model
        self._known: _Known | None = None
        self._unchanged = Unchanged()
        self._constant = _encoded(constant or {}, {})

    def take(
        self, *, epoch: int, batch: int, progress: Mapping[str, Any], later: Mapping[str, Later] | None = None
    ) -> TrainState:
        """The training state now, to be read once. `progress`: sections of plain values; arrays in them are copied.

        `later`: those that can be made at any time, of what nobody else has; they are there once it is `settled`.
        """
        if self._known is None or not self._known.holds():
            self._known = _Known(self._model, before=self._known)
        known = self._known
        held: dict[str, Any] = known.reader.read()
        configs = known.configs(held)
        encoded = {**self._constant, **_encoded(progress, held)}
        return capture.training_state(
            self._model,
            References(held, specs=known.specs, unchanged=self._unchanged, lasting=known.lasting, later=later),
            configs=configs, raw_names=known.raw_names, still=known.still, epoch=epoch, batch=batch, progress=encoded,
        )  # fmt: skip


def _encoded(sections: Mapping[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    return {section: capture.encoded(section, item, arrays) for section, item in sections.items()}


class _Known:
    """What was found out about a model, and what of: its layers and what is compiled into it, looked at apart.

    `before`: what was known until now, of which the configs are taken over where nothing has changed.
    """

    def __init__(self, model: keras.Model, *, before: _Known | None) -> None:
        self._model, self._generators, self._born = model, _generators(), flavour.of(model)
        self._last: tuple[list[bytes], capture.Configs] | None = None
        self._layers: Structure
        self._compiled: Structure
        if before is not None and before._is_made_of_the_same():
            self._layers, self._compiled, self._last = before._layers, before._compiled, before._last
        else:
            kinds = (
                *reach.optimizer_kinds(),
                *flavour.kinds("metrics.Metric"),
                *flavour.kinds("losses.Loss"),
            )
            self._layers = Structure([model], apart=kinds)
            self._compiled = Structure(self._layers.met)
        found = live.of(model)
        self.reader = reading.Reader(found.variables)
        self.specs = {n: live.spec(v) for n, v in found.variables.items() if _is_fixed(v)}
        self.lasting = frozenset(n for n, v in found.variables.items() if not live.is_distributed(v))
        self.raw_names, self.still = found.raw_names, live.untrained(model, found)
        self._rates = [name for name in found.variables if name.endswith("/learning_rate")]

    def holds(self) -> bool:
        """Whether the variables are still these. Which ones a user's own objects lead to, only a new look tells."""
        now = _generators()
        same = len(now) == len(self._generators) and all(map(operator.is_, now, self._generators))
        return same and not (self._layers.foreign or self._compiled.foreign) and self._is_made_of_the_same()

    def _is_made_of_the_same(self) -> bool:
        return self._layers.holds() and self._compiled.holds()

    def configs(self, held: Mapping[str, Any]) -> capture.Configs:
        """Those of the last time, unless a learning rate differs, or what only the user's own code can tell."""
        rates = [live.on_host(held[name]).tobytes() for name in self._rates]
        if self._last is not None and not self._layers.foreign:
            before, configs = self._last
            # Hyperparameters of Keras 2's optimizers may be variables, or be what was set last.
            if before == rates and not self._compiled.foreign and self._born == flavour.KERAS:
                return configs
            configs = capture.compiled_anew(self._model, configs.model)
        else:
            configs = capture.configs(self._model)
        self._last = rates, configs
        return configs


def _is_fixed(variable: live.Variable) -> bool:
    """Whether its shape is the same for every value."""
    return bool(tf.TensorShape(variable.shape).is_fully_defined())


def _generators() -> list[Any]:
    """Of the whole process, beside the model's own."""
    return list(rng.variables().values())


def settled(state: TrainState) -> TrainState:
    """What is left to be done beside the training.

    Sections that were left for later are made, and those copies on other devices left out that say nothing beyond the
    variable's own value.
    """
    assert isinstance(state.arrays, References)
    progress = {**state.progress, **state.arrays.sections()}
    copied = {name.partition(REPLICA)[0] for name in state.specs if REPLICA in name}
    groups = {name: state.arrays[name] for name in state.specs if name.partition(REPLICA)[0] in copied}
    same = groups.keys() - live.diverged(groups).keys()
    state.arrays.forget(same)
    raw_names = {n: raw for n, raw in state.raw_names.items() if n not in same}
    return replace(state, progress=progress, raw_names=raw_names)


def _same_buffer(one: tf.Tensor, other: tf.Tensor) -> bool:
    alike = (one.device, one.dtype, one.shape) == (other.device, other.dtype, other.shape)
    return alike and (address := _address(one)) is not None and address == _address(other)


def _address(tensor: tf.Tensor) -> int | None:
    """Of its bytes, on whichever device; None for a dtype that DLPack lacks. (dlpack.h: DLTensor begins with it.)"""
    # For a string TensorFlow aborts the process.
    if not tensor.dtype.is_numpy_compatible or tensor.dtype == tf.string:
        return None
    try:
        capsule = tf.experimental.dlpack.to_dlpack(tensor)
    except (tf.errors.OpError, ValueError):
        return None
    return ctypes.c_void_p.from_address(_pointer(capsule, b"dltensor")).value


def _away(item: Any) -> bool:
    return isinstance(item, tf.Tensor) and "GPU" in item.device


def _on_host(item: Any) -> np.ndarray[Any, Any]:
    return live.on_host(item) if isinstance(item, tf.Tensor) else np.asarray(item)
