"""`resume verify PATH|RUN`: re-read every digest; for a run, its whole lineage too. No TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resume import formats, lineage, rundir
from resume.commands import table
from resume.commands.place import Place, opened
from resume.errors import ContinuityError, NoCheckpointError, SourceError
from resume.formats import native
from resume.state import TrainState


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    with opened(options.path) as place:
        report, is_run = _reported(place)
    if options.json:
        table.facts(report, as_json=True)
    else:
        for line in report["findings"]:
            print(f"  {line['name']}: {line['kind']}")
        print(_line(place.name, report, is_run=is_run))
    if is_run and not report["checkpoints"]:
        return NoCheckpointError.exit_code
    return ContinuityError.exit_code if report["verdict"] == "broken" else 0


def _reported(place: Place) -> tuple[dict[str, Any], bool]:
    path = place.path
    if not path.exists():
        raise SourceError(f"{path}: no such file or directory.")
    is_run = path.is_dir() and not native.holds(path) and rundir.is_run(path)
    report = _of_run(path) if is_run else _of_source(path)
    for finding in report["findings"]:
        finding |= {key: place.shown(finding[key]) for key in ("name", "kind")}
    return report, is_run


def _line(path: str, report: Mapping[str, Any], *, is_run: bool) -> str:
    if not is_run:
        whole = "whole" if report["verdict"] == "exact" else "DAMAGED"
        return f"{path}: {whole}, iterations {table.cell(report['iterations_saved'])}"
    state = {"exact": "continuous", "partial": "continuous from a partial source"}.get(
        report["verdict"], "NOT continuous"
    )
    return (
        f"{path}: {state}, {report['attempts']} attempts, {report['checkpoints']} checkpoints whole, "
        f"optimizer iterations {table.cell(report['iterations_saved'])} saved -> "
        f"{table.cell(report['iterations_restored'])} restored at the last resume, now {table.cell(report['step'])}"
    )


def _of_run(run: Path) -> dict[str, Any]:
    """The keys are a stable interface."""
    judged = [(c, c.damage()) for c in rundir.checkpoints(run)]
    found = [c for c, _ in judged if c.path.exists()]  # a training run may have retired some meanwhile
    damage = {c.path: lines for c, lines in judged if c in found}
    findings = [_finding(str(path), line) for path, lines in damage.items() for line in lines]
    findings += [_finding("lineage", line) for line in lineage.breaks(run)]
    starts = lineage.attempts(lineage.read(run))
    resumed = [s for s in starts if s.get("iterations_saved") is not None]
    partial = any(s.get("verdict") == "partial" for s in starts)
    whole = [c for c in found if not damage[c.path]]
    return {
        "verdict": "broken" if findings or not whole else "partial" if partial else "exact",
        "findings": findings or ([] if whole else [_finding(str(run), "no whole checkpoint")]),
        "iterations_saved": resumed[-1]["iterations_saved"] if resumed else None,
        "iterations_restored": resumed[-1]["iterations_restored"] if resumed else None,
        "attempts": len(starts),
        "checkpoints": len(whole),
        "step": whole[-1].step if whole else None,
    }


def _of_source(path: Path) -> dict[str, Any]:
    if native.holds(path) or path.is_dir():
        lines = list(native.damage(path))
        iterations = None if lines else formats.read(path).iterations
    else:
        state = formats.read(path)
        lines, iterations = _odd(state), state.iterations
    return {
        "verdict": "broken" if lines else "exact",
        "findings": [_finding(str(path), line) for line in lines],
        "iterations_saved": iterations,
        "iterations_restored": None,
        "attempts": None,
    }


def _odd(state: TrainState) -> list[str]:
    """What a foreign file, which has no digests, can still be seen to have wrong: every array is read."""
    out = []
    for name in state.specs:
        array = state.arrays[name]
        if array.dtype.kind in "fV" and not _finite(array):
            out.append(f"{name}: holds NaN or infinite values")
    return out


def _finite(array: np.ndarray[Any, Any]) -> bool:
    return bool(np.isfinite(array.astype(np.float64)).all())


def _finding(name: str, what: str) -> dict[str, Any]:
    return {"name": name, "kind": what, "saved": None, "found": None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume verify",
        description="Re-read every digest; for a run directory, check its whole lineage.",
    )
    parser.add_argument("path", help="a run directory, a checkpoint, a model file, or the URL of a run")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser
