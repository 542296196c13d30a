"""`resume drill [OVERRIDES]`: rehearse a run: kill it on purpose, and say what does not come back."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from resume.commands import table
from resume.engine.drill.rehearsal import Drill, Report, rehearse, stables
from resume.errors import EXIT_COMPLETED, ContinuityError, UsageError

_SWEEPS = ("-m", "--multirun", "hydra.mode=MULTIRUN")
_WIDTH = 100


def run(arguments: Sequence[str]) -> int:
    options, overrides = _parser().parse_known_args(arguments)
    if not set(_SWEEPS).isdisjoint(overrides):
        raise UsageError("a drill rehearses one configuration, no sweep: leave out -m.")
    for name in ("epochs", "steps", "kills"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: {getattr(options, name)} is less than 1.")
    with _folder(options.dir) as folder, stables(folder) as ready:
        drill = Drill(
            _given(overrides), folder, options.epochs, options.steps, options.kills, options.seconds
        )
        report = rehearse(drill, ready)
    if options.json:
        table.facts(report.json(), as_json=True)
    else:
        print("\n".join(_lines(report)))
    return EXIT_COMPLETED if report.verdict == "clean" else ContinuityError.exit_code


def _given(overrides: Sequence[str]) -> tuple[str, ...]:
    """The user's overrides but for the real run's directory, which a drill does not touch."""
    return tuple(a for a in overrides if a.lstrip("+").partition("=")[0] != "run_dir")


@contextlib.contextmanager
def _folder(given: str | None) -> Iterator[Path]:
    """The scratch folder: a temporary one, or one that is given and stays, whose earlier drill is removed."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="resume-drill-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    folder = Path(given).expanduser().absolute()
    mark = folder / "attempts.log"
    if folder.is_dir() and any(folder.iterdir()):
        if not mark.exists():
            raise UsageError(f"--dir {folder}: not empty, and no drill's folder. Name another.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    yield folder


def _lines(report: Report) -> Iterator[str]:
    yield _filled(_verdict(report))
    for found in report.findings:
        yield ""
        yield f"{found.part}"
        for name in ("where", "evidence", "cure"):
            yield _filled(getattr(found, name), first=f"  {name:<10}", rest=" " * 12)
    yield ""
    for kill in report.kills:
        yield f"  {kill['signal']:<8} {kill['moment']}: {kill['at'] or 'not reached, the attempt ended first'}"
    for note in report.notes:
        yield _filled(note, first="  note: ", rest="  ")


def _verdict(report: Report) -> str:
    hit = [kill for kill in report.kills if kill["at"]]
    told = f"{len(hit)} kills, {report.attempts} attempts, {report.seconds:.0f} s"
    if report.verdict == "clean":
        return (
            f"continuity: exact. The killed run ended as the unbroken one, bit for bit: {report.arrays} arrays, "
            f"history, callbacks, logs ({told})."
        )
    what = f": {len(report.differences)} parts differ" if report.differences else ""
    return f"continuity: BROKEN. The killed run did not end as the unbroken one{what} ({told})."


def _filled(text: str, *, first: str = "", rest: str = "") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resume drill",
        usage="resume drill [-h] [--json] [--kills N] [--epochs N] [--steps N] [--seconds S] [--dir DIR] [OVERRIDES]",
        description="Rehearse a configuration of `resume train`: a short unbroken run, then the same run killed with "
        "SIGKILL and SIGTERM (inside an epoch, in a save, in a validation, before the first step) and repeated until "
        "it ends. Says whether both ended alike, bit for bit, or which part broke continuity and what to do about it. "
        "The real run directory is not touched; callbacks that write elsewhere do so here too.",
        epilog="OVERRIDES: as for `resume train`: +experiment=NAME, --config-dir DIR, model.width=64, ... "
        "Exit codes: 0 continuity holds, 2 usage or configuration, 3 continuity broken.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--kills", type=int, default=5, metavar="N", help="how often to kill (5)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="epochs of the rehearsal (3)")
    parser.add_argument(
        "--steps", type=int, default=8, metavar="N", help="batches an epoch, where it can be cut (8)"
    )
    parser.add_argument(
        "--seconds", type=float, default=300.0, metavar="S", help="begin no kill after these (300)"
    )
    parser.add_argument("--dir", metavar="DIR", help="keep everything here; a temporary folder otherwise")
    return parser
