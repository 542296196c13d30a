"""A rehearsal: an unbroken run, the same run killed on purpose, and the verdict on whether they ended alike.

Every run stands in the same folder while it goes, so that no path differs; a finished one is moved aside. The unbroken
run is repeated only when the other one ended otherwise: then it decides whether the training repeats itself at all.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resume.engine.drill import diagnosis
from resume.engine.drill.diagnosis import Finding, finding
from resume.engine.drill.moments import Kill, Reached, moments
from resume.engine.drill.plan import Plan
from resume.engine.drill.record import Trace
from resume.engine.drill.stable import Stable
from resume.errors import EXIT_COMPLETED, ContinuityError, ResumeError, UsageError

_KILLED, _PREEMPTED = -9, 75
_ENDED = ("data.train ended after", "was expected to contain", "ran out of data")


@dataclass(frozen=True)
class Drill:
    """`arguments`: as for `resume train`. `seconds`: no kill is begun after that many."""

    arguments: tuple[str, ...]
    folder: Path
    epochs: int = 3
    steps: int = 8
    kills: int = 5
    seconds: float = 300.0


@dataclass
class Report:
    """What a drill found. `verdict`: clean, broken."""

    verdict: str = "clean"
    findings: list[Finding] = field(default_factory=list)
    attempts: int = 0
    kills: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)
    arrays: int = 0
    notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "findings": [f.json() for f in self.findings],
            "seconds": round(self.seconds, 1),
        }

    def broken(self, *found: Finding | None) -> Report:
        self.verdict = "broken"
        self.findings += [f for f in found if f is not None]
        return self


@contextlib.contextmanager
def stables(folder: Path) -> Iterator[list[Stable]]:
    """Two: a resumed attempt has another hash seed than the unbroken run."""
    with contextlib.ExitStack() as held:
        yield [held.enter_context(Stable(folder / f"stable-{i}.log")) for i in (1, 2)]


def rehearse(drill: Drill, ready: Sequence[Stable]) -> Report:
    """Raises UsageError for a configuration that does not train at all, in the words of `resume train`."""
    started, report = time.monotonic(), Report()
    try:
        return _Rehearsal(drill, report, ready, started).whole()
    finally:
        report.seconds = time.monotonic() - started


class _Rehearsal:
    def __init__(self, drill: Drill, report: Report, stables: Sequence[Stable], started: float) -> None:
        self.drill, self.report, self.stables, self.started = drill, report, stables, started
        self.folder, self.run = drill.folder, drill.folder / "run"
        self.log = drill.folder / "attempts.log"
        self._number = itertools.count(1)
        self._printed = 0  # where in the log the last attempt begins

    def whole(self) -> Report:
        plan = self._survey()
        self.report.notes += plan.notes
        if plan.ends is not None:
            return self.report.broken(_ends_early(plan, plan.ends))
        reference = self._unbroken(plan, self.stables[0])
        if self.report.findings:
            return self.report
        attempts = self._broken(plan)
        if self.report.findings:
            return self.report
        found = self._ask("compare", whole=self._aside("unbroken"), broken=self.run)
        self.report.arrays, self.report.differences = found["arrays"], found["differences"]
        parted = diagnosis.of_resumption(reference, attempts)  # though the ends may be alike again
        if not found["differences"] and parted is None:
            return self.report
        self.run.rename(self._aside("broken"))
        again = self._unbroken(plan, self.stables[1])
        return self.report.broken(
            diagnosis.of_repetition(reference, again) or parted or _by_ends(found["differences"])
        )

    # -- the runs --------------------------------------------------------------------------------------------------

    def _survey(self) -> Plan:
        found = self._ask("survey", arguments=list(self.drill.arguments) + Plan.quiet(self.run))
        return Plan.of(found, epochs=self.drill.epochs, steps=self.drill.steps)

    def _unbroken(self, plan: Plan, stable: Stable) -> Trace:
        code, trace = self._attempt(plan, stable)
        if code != EXIT_COMPLETED:
            self._failed(plan, code, [trace], what="the unbroken run")
        elif not self._aside("unbroken").exists():
            self.run.rename(self._aside("unbroken"))
        return trace

    def _broken(self, plan: Plan) -> list[Trace]:
        """The same run, killed and repeated with the same command until it ends."""
        traces, stables = [], itertools.cycle(reversed(self.stables))
        for kill in self._kills(plan):
            code, trace = self._attempt(plan, next(stables), kill)
            traces.append(trace)
            self.report.attempts += 1
            if kill is not None:
                self.report.kills.append(kill.json(code))
            if code == EXIT_COMPLETED:
                return traces
            if code not in (_KILLED, _PREEMPTED):
                self._failed(plan, code, traces, what=f"attempt {len(traces)} of the killed run")
                return traces
        raise ResumeError(f"the run did not end in {len(traces)} attempts: {self.log}")

    def _kills(self, plan: Plan) -> Iterator[Kill | None]:
        for moment in moments(
            self.drill.kills, every_steps=plan.every_steps, epochs=plan.epochs, validates=plan.validates
        ):
            if time.monotonic() - self.started > self.drill.seconds and self.report.kills:
                self.report.notes.append(f"no more kills after {self.drill.seconds:.0f} s (--seconds)")
                break
            yield Kill(moment)
        yield None

    def _attempt(self, plan: Plan, stable: Stable, kill: Kill | None = None) -> tuple[int, Trace]:
        self._mark()
        file = self.folder / f"trace-{next(self._number):02d}.jsonl"
        code = stable.run(
            task="train",
            arguments=[*self.drill.arguments, *plan.overrides(self.run)],
            log=self.log,
            trace=file,
            watch=kill.watch(Reached(file, self.run)) if kill else None,
        )
        return code, Trace.read(file)

    def _ask(self, task: str, **request: Any) -> dict[str, Any]:
        self._mark()
        answer = self.folder / f"{task}.json"
        code = self.stables[0].run(task=task, log=self.log, found=answer, **request)
        if code != EXIT_COMPLETED or not answer.exists():
            raise _as_said(self._said(), code)
        found: dict[str, Any] = json.loads(answer.read_text())
        return found

    def _mark(self) -> None:
        self._printed = self.log.stat().st_size if self.log.exists() else 0

    def _aside(self, name: str) -> Path:
        return self.folder / name

    # -- failures --------------------------------------------------------------------------------------------------

    def _failed(self, plan: Plan, code: int, traces: Sequence[Trace], *, what: str) -> None:
        """An attempt that ended with an error of its own: a finding where the cause is known, else that error."""
        said, compiled = self._said(), [event for trace in traces for event in trace.only("compile")]
        ended = [line for line in self._output().splitlines() if any(mark in line for mark in _ENDED)]
        if ended:
            self.report.broken(_ends_early(plan, ended[-1].removeprefix("resume: ")))
        elif compiled:
            self.report.broken(diagnosis.of_compile(traces[-1], compiled[-1], f"{what} then failed: {said}"))
        elif code == ContinuityError.exit_code and len(traces) > 1:
            self.report.broken(finding("restore refused", what, said))
        else:
            raise _as_said(f"{what} failed: {said}", code)

    def _output(self) -> str:
        """What the last attempt printed."""
        if not self.log.exists():
            return ""
        with self.log.open(errors="replace") as file:
            file.seek(self._printed)
            return file.read()

    def _said(self) -> str:
        """What the last attempt said last: its error, or the end of a traceback."""
        text = self._output()
        _, mark, error = f"\n{text}".rpartition("\nresume: ")
        return " ".join(error.split())[:600] if mark else " ".join(text.split())[-600:]


def _as_said(said: str, code: int) -> ResumeError:
    return UsageError(said) if code == UsageError.exit_code else ResumeError(said)


def _ends_early(plan: Plan, said: Any) -> Finding:
    part = "wrong steps_per_epoch" if plan.steps_given else "data ends early"
    where = f"fit.steps_per_epoch and {plan.source}" if plan.steps_given else plan.source
    if isinstance(said, dict):
        said = f"data.train ended after {said['batches']} of {said['steps']} batches of epoch {said['epoch'] + 1}"
    return finding(part, where, str(said).split("; what")[0])


def _by_ends(differences: Sequence[str]) -> Finding:
    """No step's trace differs, and the ends do."""
    shown = ", ".join(differences[:5])
    if all(line.startswith(("array rng/", "rng")) for line in differences):
        return finding("random generators", "Python's or NumPy's global generator", shown)
    logs = all(line.startswith(("TensorBoard", "file ")) for line in differences)
    return finding("logs" if logs else "something unseen", "callbacks" if logs else "the run's end", shown)
