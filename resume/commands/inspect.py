"""`resume inspect PATH`: what a source holds, what it lacks, what it will need. No TensorFlow."""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resume import rundir
from resume.commands import table
from resume.commands.place import Place, opened
from resume.formats import layouts, trust
from resume.formats.h5 import NO_OPTIMIZER
from resume.state import LEARNING_RATE, NUMBERED, OptimizerInfo, TrainState, is_slot

_UNKNOWN = "no slots, and no settings of the optimizer that would say whether it has any"


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    with opened(options.path, newest=True) as place:
        state = rundir.read(place.path)
        facts = described(state)
        table.facts({**facts, "path": place.shown(facts["path"])}, as_json=options.json)
        if not options.json:
            _show_more(state, place, arrays=options.arrays)
    return 0


def _show_more(state: TrainState, place: Place, *, arrays: bool) -> None:
    if arrays:
        print()
        table.show([_row(state, name) for name in state.specs], as_json=False)
    for line in remarks(state):
        print(place.shown(line))


def described(state: TrainState) -> dict[str, Any]:
    """The facts of a source; the keys are a stable interface."""
    optimizer = state.optimizer
    return {
        "path": str(state.path),
        "format": state.format,
        "keras_version": state.keras_version,
        "flavour": state.flavour,
        "optimizer": optimizer.inner.class_name if optimizer else None,
        "iterations": state.iterations,
        "learning_rate": state.learning_rate,
        "num_weights": len(state.weights),
        "num_slots": sum(is_slot(name, spec) for name, spec in state.specs.items()),
        "complete": complete(state),
        "custom_objects": custom_objects(state),
        "epoch": state.epoch,
        "batch": state.batch,
        "bytes": state.nbytes,
    }


def remarks(state: TrainState) -> Iterator[str]:
    """For people: what is not there, what a reader had to assume, what the configuration has to name."""
    missing = lacking(state)
    others = _beside(state)
    for name, (steps, slots) in others.items():
        yield f"beside the model's own optimizer: {name}, {steps} iterations, {slots} slots"
    notes = [note for note in state.notes if not (others and note == NO_OPTIMIZER)]
    for line in dict.fromkeys((*missing, *notes)):
        print_as = "not complete" if line in missing else "note"
        yield f"{print_as}: {line}"
    yield from _to_name(state)


def _to_name(state: TrainState) -> Iterator[str]:
    """The lines that the configuration needs, all at once, and what no line can allow."""
    named, lambdas = _named(state), sorted(set(_lambdas(state.model_config)))
    names = [name for name in named if name != trust.ANONYMOUS]
    if named or lambdas:
        yield "custom objects: add to the configuration where each is imported from"
        yield "  custom_objects:"
        yield from (f"    {name}: YOUR.MODULE.{name}" for name in names)
        anonymous = [trust.ANONYMOUS] if len(lambdas) == 1 or trust.ANONYMOUS in named else []
        keys = [*(lambdas if len(lambdas) > 1 else []), *anonymous]
        yield from (f"    {json.dumps(key)}: YOUR.MODULE.FUNCTION" for key in keys)
    if lambdas:
        layers = f"layer{'s' if len(lambdas) > 1 else ''} {', '.join(lambdas)}"
        yield f"  ({layers}: the code in the file is never run; name a function of yours that computes the same)"
    if not lambdas:
        yield from (f"not trusted: {doubt}" for doubt in _doubts(state) if doubt.name is None)


# ---- complete ----


def complete(state: TrainState) -> bool:
    """Whether weights, iteration count and every slot are there."""
    return not lacking(state)


def lacking(state: TrainState) -> list[str]:
    """What is missing of weights, iteration count and slots, in plain words; nothing for a complete source.

    Every role that the optimizer's class and config demand must be there, and each role must cover every variable
    that any role covers, but for those that leave gaps by design. An optimizer that has made no step needs none.
    """
    held = any(name.startswith("optimizer/") for name in state.specs if name != LEARNING_RATE)
    if not held and _beside(state):
        return [] if state.weights else ["no weights"]
    if not held:
        return [*([] if state.weights else ["no weights"]), NO_OPTIMIZER]
    out = [] if state.weights else ["no weights"]
    if state.iterations is None:
        out.append("no iteration count")
    if state.iterations == 0 and not state.slots:
        return out
    if state.optimizer is None:
        return [*out, *_slots(state, OptimizerInfo("", {}))] if state.slots else [*out, _UNKNOWN]
    return [*out, *_slots(state, state.optimizer.inner)]


def _beside(state: TrainState) -> dict[str, tuple[str, int]]:
    """(iterations, number of slots) of each optimizer that the model keeps beside its own (a GAN's, say)."""
    found: dict[str, tuple[str, int]] = {}
    for name in (name for name in state.specs if name.startswith("beside/")):
        attribute = name.split("/")[1]
        if attribute not in found:
            counter = f"beside/{attribute}/iteration"
            steps = str(int(state.arrays[counter])) if counter in state.specs else "unknown"
            mine = [n for n in state.specs if n.startswith(f"beside/{attribute}/")]
            found[attribute] = (steps, sum(is_slot(n, state.specs[n]) for n in mine))
    return found


def _slots(state: TrainState, optimizer: OptimizerInfo) -> Iterator[str]:
    demanded = layouts.roles(optimizer)
    covered: dict[str, set[str]] = defaultdict(set)
    for name in state.slots:
        _, role, variable = name.split("/", 2)
        covered[role].add(variable)
    if NUMBERED in covered:
        yield from _numbered(state, optimizer, covered[NUMBERED])
        return
    every: set[str] = set().union(*covered.values())
    for role in dict.fromkeys((*demanded, *covered)):
        absent = sorted(every - covered[role])
        if role not in covered or not covered[role]:
            yield f"no {role} slots, which {optimizer.class_name} has"
        elif absent and not layouts.leaves_gaps(optimizer, role):
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            yield f"no {role} slot for {absent[0]}{more}"


def _numbered(state: TrainState, optimizer: OptimizerInfo, numbers: set[str]) -> Iterator[str]:
    """Slots that the source only numbers are counted: of each shape there must be as many for every role."""
    shapes = Counter(state.specs[f"optimizer/{NUMBERED}/{n}"].shape for n in numbers)
    each = sum(not layouts.leaves_gaps(optimizer, role) for role in layouts.roles(optimizer)) or 1
    if any(count % each for count in shapes.values()):
        yield f"{sum(shapes.values())} numbered slots, which is not {each} for every variable"


# ---- custom objects ----


def custom_objects(state: TrainState) -> list[str]:
    """Every name that the configuration will have to say; `<lambda>` where the file holds code in a name's place."""
    return sorted({*_named(state), *([trust.ANONYMOUS] if [*_lambdas(state.model_config)] else [])})


def _named(state: TrainState) -> list[str]:
    return sorted({trust.bare(doubt.name) for doubt in _doubts(state) if doubt.name is not None})


def _doubts(state: TrainState) -> list[trust.Doubt]:
    return [doubt for config in trust.configs(state) for doubt in trust.doubtful(config, trust.Trust())]


def _lambdas(config: Any) -> Iterator[str]:
    """Names of the Lambda layers whose function is code in the file: as a list in Keras 2, an object in Keras 3."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from _lambdas(item)
    elif isinstance(config, Mapping):
        inner = config.get("config")
        if config.get("class_name") == "Lambda" and isinstance(inner, Mapping):
            if not isinstance(inner.get("function"), str) or inner.get("function_type") == "lambda":
                yield str(inner.get("name"))
        else:
            for item in config.values():
                yield from _lambdas(item)


def _row(state: TrainState, name: str) -> dict[str, Any]:
    spec = state.specs[name]
    return {"name": name, "dtype": spec.dtype, "shape": list(spec.shape), "slot": is_slot(name, spec)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume inspect", description="What a checkpoint or a model file holds."
    )
    parser.add_argument(
        "path",
        help="a model file or folder of any Keras, a TensorFlow checkpoint, one of our checkpoints, a run directory; "
        "the URL of a run or of its checkpoint",
    )
    parser.add_argument("--arrays", action="store_true", help="list every array")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser
