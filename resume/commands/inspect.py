"""`resume inspect PATH`: what a source holds. No TensorFlow."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resume import rundir
from resume.commands import table
from resume.formats import layouts
from resume.state import NUMBERED, TrainState, is_slot


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    state = rundir.read(options.path)
    table.facts(described(state), as_json=options.json)
    if options.arrays and not options.json:
        print()
        table.show([_row(state, name) for name in state.specs], as_json=False)
    if not options.json:
        for note in state.notes:
            print(f"note: {note}")
    return 0


def described(state: TrainState) -> dict[str, Any]:
    """The facts of a source; the keys are a stable interface."""
    optimizer = state.optimizer
    return {
        "path": str(state.path),
        "format": state.format,
        "keras_version": state.keras_version,
        "optimizer": optimizer.inner.class_name if optimizer else None,
        "iterations": state.iterations,
        "learning_rate": state.learning_rate,
        "num_weights": len(state.weights),
        "num_slots": len(state.slots),
        "complete": complete(state),
        "custom_objects": sorted(set(custom_objects(state))),
        "epoch": state.epoch,
        "batch": state.batch,
        "bytes": state.nbytes,
    }


def complete(state: TrainState) -> bool:
    """Whether weights, iteration count and every slot are there.

    Every role that the optimizer's class and config demand must be there, and each role must cover every variable
    that any role covers, but for those that leave gaps by design. Slots that the source only numbers are counted: of
    each shape there must be as many for every role.
    """
    if state.optimizer is None or state.iterations is None or not state.weights:
        return False
    optimizer = state.optimizer.inner
    demanded = layouts.roles(optimizer)
    covered: dict[str, set[str]] = defaultdict(set)
    for name in state.slots:
        _, role, variable = name.split("/", 2)
        covered[role].add(variable)
    if NUMBERED in covered:
        shapes = Counter(state.specs[f"optimizer/{NUMBERED}/{n}"].shape for n in covered[NUMBERED])
        each = sum(not layouts.leaves_gaps(optimizer, role) for role in demanded) or 1
        return all(count % each == 0 for count in shapes.values())
    every = set().union(*covered.values())
    return covered.keys() >= set(demanded) and all(
        found == every or layouts.leaves_gaps(optimizer, role) for role, found in covered.items()
    )


def custom_objects(state: TrainState) -> Iterator[str]:
    """Names that the file uses and that are not Keras's own, as far as the file itself tells."""
    for config in (state.model_config, state.compile_config, state.optimizer and _serialised(state)):
        yield from _custom(config)


def _serialised(state: TrainState) -> dict[str, Any] | None:
    return dict(state.optimizer.config) if state.optimizer else None


def _custom(config: Any) -> Iterator[str]:
    if isinstance(config, list | tuple):
        for item in config:
            yield from _custom(item)
    elif isinstance(config, Mapping):
        module = config.get("module")
        name = config.get("config") if config.get("class_name") == "function" else config.get("class_name")
        foreign = "module" in config and str(module or "").split(".")[0] not in ("keras", "builtins")
        if isinstance(name, str) and (foreign or str(config.get("registered_name") or "").count(">")):
            yield name
        for item in config.values():
            yield from _custom(item)


def _row(state: TrainState, name: str) -> dict[str, Any]:
    spec = state.specs[name]
    return {"name": name, "dtype": spec.dtype, "shape": list(spec.shape), "slot": is_slot(name, spec)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume inspect", description="What a checkpoint or a model file holds."
    )
    parser.add_argument("path", help="an .h5 or .keras file, one of our checkpoints, or a run directory")
    parser.add_argument("--arrays", action="store_true", help="list every array")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser
