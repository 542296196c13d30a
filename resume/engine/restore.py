"""TrainState -> live objects: by name and role, never by position; then read back and compared."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume import continuity, names
from resume.continuity import NEVER_HELD, TRAINING, Proof, Remedy
from resume.engine import capture, flavour, live, places, reach, reading
from resume.errors import ContinuityError
from resume.formats import soundness
from resume.formats.h5 import NO_OPTIMIZER
from resume.state import ITERATION, REPLICA, Arrays, Spec, TrainState, spec_of

_HYPER = "optimizer/hyper/"
_SMALL = 1 << 16  # bytes; less is not worth another thread
_UNUSED = "optimizer/unused/"  # what standalone Keras stored without ever reading it


def restore(
    model: keras.Model,
    state: TrainState,
    *,
    accept: Sequence[str] = (),
    absent: Sequence[str] = (),
    position: bool = True,
) -> Proof:
    """Assign every array of the source to its live variable, re-read all of them, and say what was found.

    The model must be built and compiled, its optimizer and metrics built. Raises SourceError for a source that is
    damaged. Nothing is raised for any other mismatch: the proof's verdict is `broken` then. In both cases what could be
    assigned has been. `position=False`: the model alone is wanted, not the place in its run. `absent`: further things
    that the source is known not to hold.
    """
    batch = state.batch if position else None
    found = live.of(model)
    state = aligned(model, state, accept=accept, found=found)
    wanted = _that_count(found.variables, batch)
    # Formats that hold no hyperparameters as variables hold them in the config, which made the optimizer.
    wanted = {
        n: v for n, v in wanted.items() if n in state.specs or not (REPLICA in n or n.startswith(_HYPER))
    }
    saved = assign_all(wanted, state.arrays, _that_count(state.specs, batch))
    _derive_constants(model)
    reread = _reread(wanted)
    for name in [n for n, spec in reread.items() if n in saved and spec.digest != saved[n].digest]:
        state.arrays[name]  # raises SourceError where the source is what is damaged
    return continuity.prove(
        saved,
        reread,
        accept=(*accept, *state.unheld, "loss", *(NEVER_HELD if state.format != "native" else ())),
        absent=(*absent, *(("position", "callbacks") if position and state.format != "native" else ())),
        iterations=(state.iterations, _iterations(wanted)),
    )


def assign_all(wanted: Mapping[str, Any], arrays: Arrays, names: Iterable[str]) -> dict[str, Spec]:
    """Assign what fits to the live variables; the specs of all `names`, digests included.

    What is assigned without a look at its digest on the way is to be read back and compared with that. Raises
    SourceError for what cannot be read.
    """
    saved = {name: arrays.specs[name] for name in names}
    # The references are gone again: of what is held, the value before would stay beside the new one.
    now = {name: live.spec(value) for name, value in reading.Reader(wanted).read().items()}
    fitting = {n for n, spec in saved.items() if n in now and _alike(spec, now[n])}
    brought = [n for n in saved if n in fitting and arrays.fills and _is_plain(saved[n], wanted[n])]
    # First what is spread over devices: that sets every device's own copy, which then gets its own value.
    for name in [n for n in saved if n not in set(brought)]:
        array = arrays[name]
        if not saved[name].digest:  # one that is known was checked in reading
            saved[name] = spec_of(array)
        if name in fitting:
            wanted[name].assign(array)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        large = [name for name in brought if saved[name].nbytes >= _SMALL]
        flights = [pool.submit(_bring, arrays, name, wanted[name]) for name in large]
        for name in brought:
            if saved[name].nbytes < _SMALL:
                _bring(arrays, name, wanted[name])
        for flight in flights:
            flight.result()
    return saved


def _is_plain(saved: Spec, variable: Any) -> bool:
    """Whether to assign is nothing but to give TensorFlow's own variable another value."""
    assign = getattr(type(variable), "assign", None)
    known = isinstance(variable, tf.Variable) or assign is keras.Variable.assign
    return saved.nbytes > 0 and known and live.resource(variable) is not None


def _bring(arrays: Arrays, name: str, variable: Any) -> None:
    """By whichever thread; its memory and that of the value before are let go of at once, for the next to use."""
    spec = arrays.specs[name]
    # Of a scalar, no memory is handed out.
    value = live.filled(spec, partial(arrays.fill, name)) if spec.shape else tf.constant(arrays[name])
    inner = live.resource(variable)
    assert inner is not None
    tf.raw_ops.AssignVariableOp(resource=inner.handle, value=value)


def _reread(variables: Mapping[str, Any]) -> dict[str, Spec]:
    """Of the live variables, digests included. Nothing stays referred to: the next step would have to copy it."""
    held = reading.Reader(variables).read()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        large = {
            n: pool.submit(_spec_of, value) for n, value in held.items() if live.spec(value).nbytes >= _SMALL
        }
        small = {name: _spec_of(value) for name, value in held.items() if name not in large}
        return {name: small[name] if name in small else large[name].result() for name in held}


def _spec_of(value: tf.Tensor) -> Spec:
    return spec_of(live.on_host(value))


def _derive_constants(model: keras.Model) -> None:
    """Normalization computes with constants made of its variables, not with the variables: they are made again."""
    for layer in model._flatten_layers():
        if (
            isinstance(layer, flavour.kinds("layers.Normalization"))
            and getattr(layer, "adapt_mean", None) is not None
        ):
            layer.finalize_state()


def demand_optimizer(state: TrainState, *, accept: Sequence[str], remedy: Remedy = TRAINING) -> None:
    """Raises ContinuityError for a source without its optimizer, unless a fresh one was accepted by name."""
    if NO_OPTIMIZER in state.notes and "optimizer" not in accept:
        raise ContinuityError(
            f"{state.path}: {NO_OPTIMIZER}; its weights are whole. {remedy.undone.capitalize()}.\n"
            f"To go on with a fresh optimizer, which counts its steps from 0: {remedy.accepting(['optimizer'])}"
        )


def demand_sound(model: keras.Model, state: TrainState, *, accept: Sequence[str] = ()) -> None:
    """Raise SourceError for values that no training leaves behind (formats.soundness); nothing is assigned.

    Under the live model's names, since not every format says which variable a slot belongs to.
    """
    if state.format == "native":
        return
    known = aligned(model, state, accept=accept)
    info = state.optimizer or capture.optimizer_info(live.optimizer_of(model))
    config = capture.model_config(model) or state.model_config
    soundness.demand(replace(known, optimizer=info, model_config=config), accept=accept)


def build_beside(model: keras.Model, state: TrainState) -> None:
    """Build the optimizers that a model keeps beside its own for the variables that they had slots for.

    They are built in their first step otherwise, and would then start fresh.
    """
    beside = reach.of(model).optimizers
    found = live.of(model).variables if beside else {}
    for path, optimizer in beside.items():
        prefix = f"{live.BESIDE}{path}/"
        slots = [n.removeprefix(prefix).split("/", 1) for n in state.specs if n.startswith(prefix)]
        owners = dict.fromkeys(f"model/{part[1]}" for part in slots if len(part) == 2)
        # Others are its numbers, or will be missed.
        known = [found[owner] for owner in owners if owner in found]
        if known and not optimizer.built:
            optimizer.build(known)


def reassert(model: keras.Model, state: TrainState, *, accept: Sequence[str] = ()) -> None:
    """Put back what has been changed since the restore (by a callback's on_train_begin, say); generators too."""
    variables = live.of(model).variables
    state = aligned(model, state, accept=accept)
    for name in {
        **_that_count(state.specs, state.batch),
        **{n: None for n in state.specs if n.startswith("rng/")},
    }:
        if name in variables and _fits(state.specs[name], variables[name]):
            _assign(name, variables[name], state.arrays[name])


def epoch_in_progress(model: keras.Model, state: TrainState) -> None:
    """Put back the accumulators of the epoch in progress, which `fit` has just reset."""
    same = same_replicas(model, state)
    for name, variable in live.epoch_metrics(live.of(model)).items():
        if name in state.specs and (same or REPLICA not in name):
            _assign(name, variable, state.arrays[name])


def _assign(name: str, variable: Any, array: np.ndarray[Any, Any]) -> None:
    if spec_of(live.view(variable)) != spec_of(array):
        variable.assign(array)
        if spec_of(live.view(variable)) != spec_of(array):
            raise ContinuityError(f"{name}: restored, but reads back different. Nothing was trained.")


def aligned(
    model: keras.Model, state: TrainState, *, accept: Sequence[str] = (), found: live.Live | None = None
) -> TrainState:
    """The state under the live model's names; without the optimizer's arrays where a fresh optimizer was accepted."""
    state = _rekeyed(model, state, found or live.of(model))
    if not same_replicas(model, state):
        state = _without_replicas(state)
    if fresh_optimizer(model, state, accept=accept):
        rest = {name: name for name in state.specs if not name.startswith("optimizer/")}
        return replace(state, arrays=state.arrays.renamed(rest), optimizer=None)
    return state


def same_replicas(model: keras.Model, state: TrainState) -> bool:
    """Whether each device can go on from its own copy: none was needed, or there are as many devices as then."""
    saved = _replicas(state.specs)
    return not saved or saved == _replicas(live.of(model).variables)


def _replicas(named: Iterable[str]) -> set[str]:
    return {name.partition(REPLICA)[2] for name in named if REPLICA in name}


def _without_replicas(state: TrainState) -> TrainState:
    rest = {name: name for name in state.specs if REPLICA not in name}
    return replace(state, arrays=state.arrays.renamed(rest))


def fresh_optimizer(model: keras.Model, state: TrainState | None, *, accept: Sequence[str]) -> bool:
    """Whether the state's optimizer is left behind: today's is of another class, and that was accepted."""
    info = capture.optimizer_info(live.optimizer_of(model))
    if state is None or state.optimizer is None or info is None or "optimizer" not in accept:
        return False
    return state.optimizer.inner.class_name != info.inner.class_name


def _that_count(named: Mapping[str, Any], batch: int | None) -> dict[str, Any]:
    """Without callbacks and generators (restored later), and without the accumulators of an epoch that is over."""
    ignored = ["callbacks/", "rng/", _UNUSED] if batch else ["callbacks/", "rng/", "metrics/", _UNUSED]
    return {name: item for name, item in named.items() if not name.startswith(tuple(ignored))}


def _fits(saved: Spec, variable: Any) -> bool:
    return _alike(saved, live.spec(live.reference(variable)))


def _alike(one: Spec, other: Spec) -> bool:
    return (one.shape, one.dtype) == (other.shape, other.dtype)


def _iterations(variables: Mapping[str, Any]) -> int | None:
    return int(live.view(variables[ITERATION])) if ITERATION in variables else None


def _rekeyed(model: keras.Model, state: TrainState, found: live.Live) -> TrainState:
    """The state under the live model's names: through positions for `.keras`, through renumbered names otherwise."""
    if state.places:
        return _renamed(state, _by_place(model, state, found))
    if state.specs.keys() >= {n for n in found.variables if n.startswith("model/")}:
        _demand_same_order(state, found)
        return state
    return _renamed(state, _by_shift(state, found))


def _demand_same_order(state: TrainState, found: live.Live) -> None:
    """Raises ContinuityError where a name means another layer in this process.

    A user's `dense_1` looks like one of Keras's, which count on from what a process has made before: with another count
    it changes places with them, in the order of the layers, which a checkpoint of ours keeps.
    """
    if state.format != "native":
        return
    saved = [name for name in state.weights if name in found.variables]
    now = [name for name in found.variables if name in set(saved)]
    other = next((a for a, b in zip(saved, now, strict=True) if a != b), None)
    raw = [(state.raw_names.get(name, ""), found.raw_names[name]) for name in saved]
    counted_on = any(a != b for a, b in raw) and all(_uncounted(a) == _uncounted(b) for a, b in raw)
    if other is not None and counted_on:
        raise ContinuityError(
            f"{state.path}: {other} is {state.raw_names.get(other)} there and {found.raw_names[other]} here, another "
            "layer: names given to layers look like Keras's own, which count on. Build the model in a fresh "
            "process, or after keras.utils.clear_session()."
        )


def _uncounted(path: str) -> list[str]:
    return [names.split_number(part)[0] for part in path.split("/")]


def _by_place(model: keras.Model, state: TrainState, found: live.Live) -> dict[str, str]:
    """Saved name -> live name, through the position that each live variable has in the source's format.

    Where a position leads to a variable of another shape, the names decide. Slots follow their owners.
    """
    live_names = {id(v): name for name, variable in found.variables.items() for v in _itself(variable)}
    at = places.of(model, state)
    matched = {
        name: live_names[id(at[place])]
        for name, place in state.places.items()
        if place in at and id(at[place]) in live_names and _shaped(state.specs[name], at[place])
    }
    bare = {
        a.removeprefix("model/"): b.removeprefix("model/") for a, b in matched.items() if a[:6] == "model/"
    }
    return {**_slots_renamed(state, bare), **matched}


def _itself(variable: Any) -> tuple[Any, ...]:
    """A variable of Keras 3, and the one of TensorFlow inside it."""
    return (variable, variable._value) if hasattr(variable, "_value") else (variable,)


def _shaped(spec: Spec, variable: Any) -> bool:
    return live.spec(live.reference(variable)).shape == spec.shape  # what it declares may leave a size open


def _by_shift(state: TrainState, found: live.Live) -> dict[str, str]:
    """Saved name -> live name where Keras's counters differ by one constant a kind of layer, and by nothing else."""
    saved, lives = _recounted(state.specs), _recounted(found.variables)
    matched = {old: lives[name] for name, old in saved.items() if name in lives}
    if not len(matched) == len(saved) == len(lives) or not _constant_shift(matched):
        return {}
    bare = {s.removeprefix("model/"): n.removeprefix("model/") for s, n in matched.items()}
    return matched | _slots_renamed(state, bare)


def _recounted(named: Iterable[str]) -> dict[str, str]:
    """Names of the model's variables with every number counted from 0 -> the names as they are."""
    held = [n for n in named if n.startswith("model/") and REPLICA not in n]
    every = frozenset(part for name in held for part in name.split("/"))
    return dict(zip(names.canonical(held, root=None, auto=every), held, strict=True))


def _constant_shift(matched: Mapping[str, str]) -> bool:
    """Names that a user gave do not shift: a pair of them that would be swapped breaks the constant."""
    shifts: dict[str, set[int]] = {}
    for saved, found in matched.items():
        for a, b in zip(saved.split("/"), found.split("/"), strict=True):
            base, number = names.split_number(a)
            shifts.setdefault(base, set()).add(names.split_number(b)[1] - number)
    return all(len(found) == 1 for found in shifts.values())


def _slots_renamed(state: TrainState, bare: Mapping[str, str]) -> dict[str, str]:
    """Slots by their owners' new names: optimizer/<role>/<owner>, beside/<attribute>/<role>/<owner>."""
    out = {}
    for name in state.specs:
        parts = name.split("/")
        depth = {"optimizer": 2, "beside": 3}.get(parts[0], len(parts))
        owner = "/".join(parts[depth:])
        if owner in bare:
            out[name] = "/".join([*parts[:depth], bare[owner]])
    return out


def _renamed(state: TrainState, to: Mapping[str, str]) -> TrainState:
    if not to:
        return state
    back = {to.get(name, name): name for name in state.specs}
    return replace(state, arrays=state.arrays.renamed(back))
