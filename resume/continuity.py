"""The proof: what the source held against what is live, array by array; findings; a verdict.

exact    every array of the live training state is bit for bit the saved one
partial  so is every array that the source held; what it never held is named, and was accepted
broken   anything else; nothing trains on it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from resume.errors import ContinuityError
from resume.state import Spec, is_slot

EXACT, PARTIAL, BROKEN = "exact", "partial", "broken"

# What no foreign format holds. Accepted without asking, and said: there is nothing that a user could do about it.
# Of `states`, SavedModels and checkpoints of TensorFlow hold those of Keras 2.
NEVER_HELD = ("seeds", "metrics", "callbacks", "position", "rng", "states", "objects")

_MEANING = {
    "missing": "not in the source, started fresh",
    "unused": "in the source, nothing live takes it",
    "shape": "shape differs",
    "dtype": "dtype differs",
    "value": "restored, but reads back different",
    "iterations": "iteration count differs",
}


@dataclass(frozen=True)
class Finding:
    """One difference between saved and live. `kind` is a key of the table above."""

    name: str
    kind: str
    saved: str | None
    found: str | None
    accepted: bool = False

    def __str__(self) -> str:
        change = "" if self.saved is None and self.found is None else f": {self.saved} -> {self.found}"
        return f"{self.name}: {_MEANING.get(self.kind, self.kind)}{change}"


@dataclass(frozen=True)
class Remedy:
    """How a command says what it left undone, and how a user accepts a loss; {} takes names, comma-separated."""

    undone: str = "nothing was trained"
    option: str = "'checkpoint.accept=[{}]'"

    def accepting(self, names: Sequence[str]) -> str:
        python = ", ".join(f"'{name}'" for name in names)
        return f"{self.option.format(','.join(names))} (in Python: accept=[{python}])"


TRAINING = Remedy()


@dataclass(frozen=True)
class Proof:
    """What a restore has shown. `arrays`: how many were re-read from the live objects and found bit-equal."""

    verdict: str
    findings: tuple[Finding, ...]
    iterations_saved: int | None
    iterations_restored: int | None
    arrays: int = 0
    slots: int = 0
    nbytes: int = 0

    def json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The verdict in a few plain lines."""
        counts = f"{self.arrays} arrays re-read and bit-equal, {self.slots} of them slot variables"
        out = [
            f"continuity: {self.verdict} ({counts})",
            f"optimizer iterations: {_count(self.iterations_saved)} saved -> "
            f"{_count(self.iterations_restored)} restored",
        ]
        return out + [f"  {line}" for line in summary(self.findings)]

    def demand(self, *, source: str, remedy: Remedy = TRAINING) -> None:
        """Raises ContinuityError unless the verdict allows to go on."""
        if self.verdict != BROKEN:
            return
        open_findings = [f for f in self.findings if not f.accepted]
        names = sorted({accept_name(f) for f in open_findings if f.kind in ("missing", "unused")})
        curable = names and len(names) == len({accept_name(f) for f in open_findings})
        cure = f"\nTo go on all the same and lose that: {remedy.accepting(names)}" if curable else ""
        raise ContinuityError(
            f"{source}: continuity broken, {remedy.undone}.\n"
            + "\n".join(f"  {line}" for line in summary(open_findings))
            + cure
        )


def _count(value: int | None) -> str:
    return "none" if value is None else str(value)


def accept_name(finding: Finding) -> str:
    """The shortest sensible name under which a user may accept a finding."""
    top = finding.name.split("/", 1)[0]
    return top if top in ("optimizer", *NEVER_HELD) else finding.name


def accepts(name: str, accepted: Iterable[str]) -> bool:
    return any(name == item or name.startswith(item.rstrip("/") + "/") for item in accepted)


def prove(
    saved: Mapping[str, Spec],
    live: Mapping[str, Spec],
    *,
    accept: Sequence[str] = (),
    absent: Sequence[str] = (),
    iterations: tuple[int | None, int | None] = (None, None),
) -> Proof:
    """Compare digests by canonical name.

    `accept`: names or prefixes whose absence on one side is allowed. `absent`: whole kinds that the source never
    held (position, callbacks, rng). `iterations`: raw counts, as the source has it and as it reads back.
    """
    findings = [Finding(kind, "missing", None, None) for kind in absent]
    findings += [f for name in live for f in _compare(name, saved.get(name), live[name])]
    findings += [Finding(n, "unused", str(saved[n]), None) for n in saved if n not in live]
    fresh = accepts("optimizer", accept)
    if iterations[0] != iterations[1] and not fresh:
        saved_count, found_count = map(_count, iterations)
        findings.append(Finding("optimizer/iteration", "iterations", saved_count, found_count))
    judged = tuple(_judged(f, accept) for f in findings)
    equal = [n for n in live if n in saved and saved[n] == live[n]]
    return Proof(
        verdict=EXACT if not judged else PARTIAL if all(f.accepted for f in judged) else BROKEN,
        findings=judged,
        iterations_saved=iterations[0],
        iterations_restored=iterations[1],
        arrays=len(equal),
        slots=sum(is_slot(n, live[n]) for n in equal),
        nbytes=sum(live[n].nbytes for n in equal),
    )


def _compare(name: str, saved: Spec | None, live: Spec) -> list[Finding]:
    if saved is None:
        return [Finding(name, "missing", None, str(live))]
    if saved.shape != live.shape:
        return [Finding(name, "shape", str(list(saved.shape)), str(list(live.shape)))]
    if saved.dtype != live.dtype:
        return [Finding(name, "dtype", saved.dtype, live.dtype)]
    if saved.digest != live.digest:
        return [Finding(name, "value", saved.digest, live.digest)]
    return []


def _judged(finding: Finding, accept: Sequence[str]) -> Finding:
    allowed = finding.kind in ("missing", "unused") and accepts(finding.name, accept)
    return Finding(finding.name, finding.kind, finding.saved, finding.found, accepted=allowed)


def summary(findings: Iterable[Finding], *, limit: int = 8) -> list[str]:
    """Findings in plain lines; many of one kind and one top-level name become one line with a count."""
    findings = list(findings)
    groups = Counter((f.kind, accept_name(f)) for f in findings)
    if len(findings) <= limit:
        return [str(f) for f in findings]
    firsts = {(f.kind, accept_name(f)): f for f in reversed(findings)}
    shown = [(firsts[key], count) for key, count in groups.most_common(limit)]
    lines = [str(first) + (f" (and {count - 1} more like it)" if count > 1 else "") for first, count in shown]
    left = len(findings) - sum(count for _, count in shown)
    return lines + ([f"... and {left} more"] if left else [])
