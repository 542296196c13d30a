"""Any source -> a file or checkpoint of another format, its optimizer included; read back before it gets its name.

The way of every other command, and then one step more: the source is read, translated where it is of Keras 2 and
Keras 3 is asked for, made live, restored and proven; what is live is written under another name, read again with our
own readers, compared bit for bit, and only then given the name that was asked for (resume.engine.target).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from keras.src.saving.serialization_lib import ObjectSharingScope

from resume import drift, rundir
from resume.continuity import EXACT, Proof, Remedy
from resume.engine import build, capture, live, loop, restore, trusted
from resume.engine import flavour as flavours
from resume.engine import target as targets
from resume.engine.target import FORMATS, H5, KERAS, NATIVE, SAVEDMODEL
from resume.errors import UsageError
from resume.formats import keras2, layouts, native, translate, translate_training, vocabulary
from resume.formats.translate import Moved
from resume.formats.trust import Trust
from resume.state import ITERATION, LEARNING_RATE, Arrays, TrainState

_SUFFIXES = {".keras": KERAS, ".h5": H5, ".hdf5": H5}
_REMEDY = Remedy("nothing was written", "--accept {}")


@dataclass(frozen=True)
class Conversion:
    """What was written where, and all that has to be said about it."""

    source: str
    target: str
    format: str
    flavour: str
    proof: Proof  # of the restore out of the source
    arrays: int  # re-read from the target and bit-equal
    slots: int  # of them, slot variables
    differences: tuple[str, ...] = ()  # where the target's Keras computes otherwise, for this model
    dropped: Mapping[str, str] = field(default_factory=dict)  # array of the source -> why it is not taken
    made: Mapping[str, str] = field(default_factory=dict)  # array that no source held -> how it was found
    fresh: tuple[str, ...] = ()  # arrays that start anew
    unheld: tuple[str, ...] = ()  # what this format does not hold

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "proof": self.proof.json()}


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    custom_objects: Mapping[str, Any] | None = None,
    model: Any = None,
    format: str | None = None,
    flavour: str = flavours.KERAS,
    accept: Sequence[str] = (),
    overwrite: bool = False,
    trust: str = "config",
    trusted_modules: Sequence[str] = (),
) -> Conversion:
    """Write a source's model, optimizer state included, in another format; by default, of Keras 3.

    `target`: `.keras`, `.h5`, or a directory for our own format; `format` says it where the name does not.
    `flavour`: "keras" or "tf_keras". `model`: a model to restore into, where the source holds no architecture.
    `accept`: names that may start fresh. The source is only read. A failure leaves no target behind.

    Raises UsageError for what has no equivalent, ContinuityError when what was written is not what was to be.

        done = resume.convert("run42.h5", "run42.keras")
        print(done.differences)
    """
    begun, wanted = Path(source), Path(target)
    kind = _format(wanted, format, flavour)
    _check_target(begun, wanted, overwrite=overwrite)
    state = rundir.read(begun)
    _check_direction(state, flavour)
    if kind == NATIVE and state.format == NATIVE and flavour == (state.flavour or flavours.KERAS):
        return _copied(state, wanted, overwrite=overwrite)
    flavours.library(flavour)
    allowed = trusted.here(Trust(trust, tuple(trusted_modules), frozenset(custom_objects or {})))
    custom = trusted.objects(state, dict(custom_objects or {}), allowed)
    moved = translate.state(state, custom=custom) if flavour == flavours.KERAS else Moved(state)
    with flavours.custom_objects(custom):
        made = _live(moved.state, model, custom, flavour, allowed)
        if flavour == flavours.KERAS and state.flavour == flavours.TF_KERAS and state.model_config is None:
            moved = _fitted(made, moved)
        moved = _by_base_class(made, moved)
        untrained = tuple(_never_trained(made, moved.state))
        given = _other_settings(made, moved.state) if model is not None else ()
        fresh = (*moved.fresh, *untrained)
        proof = _restored(made, moved.state, [*accept, *fresh])
        written = targets.write(
            made,
            moved.state,
            wanted,
            kind,
            overwrite=overwrite,
            rebuild=functools.partial(_model, custom=custom, born=flavour, allowed=allowed)
            if model is None
            else None,
        )
    return Conversion(
        source=str(begun),
        target=str(wanted),
        format=kind,
        flavour=flavour,
        proof=proof,
        arrays=len(written.specs),
        slots=written.slots,
        differences=(*moved.differences, *_said_of(untrained), *given),
        dropped=moved.dropped,
        made=moved.made,
        fresh=tuple(f.name for f in proof.findings if f.kind == "missing"),
        unheld=written.unheld,
    )


def _copied(state: TrainState, wanted: Path, *, overwrite: bool) -> Conversion:
    written = targets.copy(state, wanted, overwrite=overwrite)
    count, slots = len(written.specs), written.slots
    proof = Proof(EXACT, (), state.iterations, state.iterations, count, slots, state.nbytes)
    born = state.flavour or flavours.KERAS
    return Conversion(str(state.path), str(wanted), NATIVE, born, proof, count, slots)


# ---- what is asked for ----


def _format(wanted: Path, given: str | None, flavour: str) -> str:
    found = given or _SUFFIXES.get(wanted.suffix.lower(), NATIVE)
    if found not in FORMATS:
        raise UsageError(f"format={found}: not one of {', '.join(FORMATS)}.")
    if flavour not in (flavours.KERAS, flavours.TF_KERAS):
        raise UsageError(f"flavour={flavour}: neither keras nor tf_keras.")
    if found == SAVEDMODEL and flavour == flavours.KERAS:
        raise UsageError("savedmodel: Keras 3 writes no optimizer into one. Choose keras, h5 or native.")
    if found == KERAS and wanted.suffix != ".keras":
        raise UsageError(f"{wanted}: Keras reads a .keras archive under that ending only.")
    return found


def _check_target(source: Path, wanted: Path, *, overwrite: bool) -> None:
    if source.is_dir() and source.resolve() in wanted.resolve().parents:
        raise UsageError(f"{wanted}: lies inside the source, which is only read.")
    if not os.path.lexists(wanted):
        return
    if wanted.exists() and source.exists() and source.resolve() == wanted.resolve():
        raise UsageError(f"{wanted}: is the source itself.")
    if not overwrite:
        raise UsageError(f"{wanted}: exists. Name another, or say --force (in Python: overwrite=True).")
    if wanted.is_dir() and not (native.holds(wanted) or (wanted / "saved_model.pb").is_file()):
        raise UsageError(f"{wanted}: a directory that is no checkpoint; it is not replaced.")


def _check_direction(state: TrainState, flavour: str) -> None:
    if flavour == flavours.TF_KERAS and state.flavour == flavours.KERAS:
        raise UsageError(f"{state.path}: of Keras 3, and there is no way back to Keras 2.")


# ---- live ----


def _live(state: TrainState, model: Any, custom: Mapping[str, Any], born: str, allowed: Trust) -> Any:
    """The model, compiled where the source says how, its optimizer built."""
    if model is None:
        model = _model(state, custom=custom, born=born, allowed=allowed)
    elif not isinstance(model, flavours.kinds("Model")):
        raise UsageError(f"model: {type(model).__name__} is no model of Keras.")
    elif flavours.of(model) != born:
        raise UsageError(f"model: a {flavours.of(model)} model, and {born} is asked for.")
    if state.optimizer is not None and not flavours.is_compiled(model):
        build.compile_model(model, {}, state, allowed=allowed)
    if not model.built:
        raise UsageError(
            f"{state.path}: its model is not built by its config alone. Name a function that returns it built: "
            "--model MODULE:FUNCTION (in Python: model=...)."
        )
    if live.optimizer_of(model) is not None:
        loop.build_optimizer(model)
    return model


def _model(state: TrainState, *, custom: Mapping[str, Any], born: str, allowed: Trust) -> Any:
    with ObjectSharingScope() if born == flavours.KERAS else contextlib.nullcontext():
        return build.model_of(state, custom, born=born, allowed=allowed)


def _fitted(model: Any, moved: Moved) -> Moved:
    """What came without an architecture, as the model that is given has it: its nesting, its learning rate."""
    config = capture.model_config(model) or {}
    state = moved.state
    if isinstance(config.get("config"), Mapping) and "layers" in config["config"]:
        state = translate.renested(state, config)
    if LEARNING_RATE not in state.specs or LEARNING_RATE in live.of(model).variables:
        return replace(moved, state=state)
    specs = {name: spec for name, spec in state.specs.items() if name != LEARNING_RATE}
    state = replace(state, arrays=Arrays(specs, read=state.arrays.__getitem__))
    why = {LEARNING_RATE: "a schedule of the model given gives the rate"}
    return replace(moved, state=state, dropped={**moved.dropped, **why})


def _by_base_class(model: Any, moved: Moved) -> Moved:
    """The slots of an optimizer of the user's own as Keras 3 calls those of the class that it is made of."""
    info, optimizer = moved.state.optimizer, live.optimizer_of(model)
    if info is None or info.inner.class_name in vocabulary.OPTIMIZERS:
        return moved
    bases = (kind for kind in type(optimizer).__mro__ if kind.__module__.startswith("keras."))
    base = next((kind.__name__ for kind in bases), "")
    roles = {name: keras2.role(base, role) for name in moved.state.specs if (role := _role(name)) is not None}
    return replace(moved, state=translate.with_roles(moved.state, roles))


def _never_trained(model: Any, state: TrainState) -> Iterator[str]:
    """Slots of variables that no gradient ever reached: Keras 2's older optimizers made none for them.

    Only where the source has no slot at all for the variable, and all of them for others: anything else is damage.
    """
    if state.optimizer is None or ITERATION not in state.specs or state.keras_version is None:
        return
    if translate_training.is_standalone(state.keras_version):
        return
    roles = layouts.roles(state.optimizer.inner)
    slots = [name for name in live.of(model).variables if _role(name) in roles]
    held = {_owner(name) for name in slots if name in state.specs}
    if held:
        yield from (name for name in slots if _owner(name) not in held)


def _said_of(untrained: Sequence[str]) -> Iterator[str]:
    owners = list(dict.fromkeys(map(_owner, untrained)))
    if owners:
        more = f" and {len(owners) - 1} more" if len(owners) > 1 else ""
        yield (
            f"{owners[0]}{more}: without slots in the source (frozen there, or no gradient reached it); Keras 3 would "
            "train it: freeze its layer if that is not meant"
        )


def _other_settings(model: Any, state: TrainState) -> Iterator[str]:
    """Where the optimizer of a model that was given is set otherwise than the source's own, if the source tells."""
    ours, theirs = state.optimizer, capture.optimizer_info(live.optimizer_of(model))
    if ours is None or theirs is None or not ours.inner.config:
        return
    saved = {"optimizer": drift.optimizer(ours.inner.class_name, ours.inner.config)}
    today = {"optimizer": drift.optimizer(theirs.inner.class_name, theirs.inner.config)}
    for finding in drift.compare(saved, today):
        yield f"{finding.name}: {finding.saved} in the source, {finding.found} in the model given, which holds"


def _role(name: str) -> str | None:
    parts = name.split("/")
    return parts[1] if parts[0] == "optimizer" and len(parts) > 2 else None


def _owner(name: str) -> str:
    return "/".join(name.split("/")[2:])


def _restored(model: Any, state: TrainState, accept: Sequence[str]) -> Proof:
    restore.demand_optimizer(state, accept=accept, remedy=_REMEDY)
    restore.demand_sound(model, state, accept=accept)
    proof = restore.restore(model, state, accept=accept, position=False)
    proof.demand(source=str(state.path), remedy=_REMEDY)
    return proof
