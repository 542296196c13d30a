"""`resume diff A B`: where two sources of any formats differ. No TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from resume import difference, rundir
from resume.commands import table
from resume.commands.place import opened
from resume.errors import EXIT_COMPLETED, EXIT_DIFFERENT, UsageError
from resume.state import TrainState

_SHOWN = 20


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if not options.atol >= 0:
        raise UsageError(f"--atol={options.atol}: not a difference of numbers, which is 0 or more.")
    with opened(options.a, newest=True) as a, opened(options.b, newest=True) as b:
        saved, found = rundir.read(a.path), rundir.read(b.path)
        compared = difference.compare(saved, found, atol=options.atol)
        if options.json:
            findings = [finding.json() for finding in compared.findings]
            table.facts({"equal": compared.equal, "findings": findings}, as_json=True)
        else:
            for line in _lines(saved, found, compared, limit=None if options.all else _SHOWN):
                print(a.shown(b.shown(line)))
    return EXIT_COMPLETED if compared.equal else EXIT_DIFFERENT


def _lines(
    saved: TrainState, found: TrainState, compared: difference.Comparison, *, limit: int | None
) -> list[str]:
    shown = compared.findings[:limit]
    left = len(compared.findings) - len(shown)
    return [
        f"A {_described(saved)}",
        f"B {_described(found)}",
        *(f"  {finding}" for finding in shown),
        *([f"  ... and {left} more: --all shows them"] if left else []),
        _verdict(compared),
    ]


def _described(state: TrainState) -> str:
    optimizer = state.optimizer.inner.class_name if state.optimizer else "no optimizer"
    version = (
        f"Keras {state.keras_version}" if state.keras_version else "Keras of a version that it does not say"
    )
    return f"{state.path}: {state.format}, {version}, {optimizer}, iterations {table.cell(state.iterations)}"


def _verdict(compared: difference.Comparison) -> str:
    arrays = f"{compared.equal_arrays} arrays are equal bit for bit"
    if compared.close:
        arrays += f", {compared.close} within the tolerance"
    if compared.equal:
        return f"equal: {arrays}"
    return f"different: {len(compared.findings)} differences; {arrays}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume diff",
        description="Where two sources differ: settings, position, and every array by name.",
        epilog="Exit code as of diff(1): 0 equal, 1 different; 2 usage, or a source that cannot be read. Settings"
        " that only one of two versions of Keras writes are not compared.",
    )
    parser.add_argument(
        "a", metavar="A", help="a model file, a checkpoint, a run directory, or the URL of one"
    )
    parser.add_argument("b", metavar="B", help="another, of the same or another format")
    parser.add_argument("--all", action="store_true", help=f"every difference, not the first {_SHOWN}")
    parser.add_argument(
        "--atol", type=float, default=0.0, help="values this close count as equal (default 0)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with every difference")
    return parser
