"""The tables of scripts/bench/costs: medians, quartiles, and ratios within one round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LABELS = {
    "none": "nothing is saved",
    "ours": "`resume.fit`", "backup": "`BackupAndRestore`", "keras": "`model.save(.keras)`",
    "tf": "`tf.train.CheckpointManager`", "tf_async": "the same, async, of raw variables",
    "orbax_keras": "Keras's `OrbaxCheckpoint`", "orbax": "Orbax `CheckpointManager`, async",
}  # fmt: skip
READERS = {
    "ours": "`resume.load(CHECKPOINT, model=)`: digests, proof",
    "ours_run": "`resume.load(RUN, model=)`: finds it first",
    "assigned": "`resume.read`, every array assigned: no digest, no proof",
    "digested": "`resume.read`, every array: digests only",
    "bytes": "the bytes, read once",
    "weights": "`model.load_weights(.weights.h5)`",
    "tf": "`tf.train.Checkpoint.read`",
    "keras": "`keras.saving.load_model(.keras)`",
}

Result = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """What one way gave, round by round. `most`: share of the machine that others may have had in a window."""

    rounds: Sequence[Result]
    most: float

    @property
    def error(self) -> str | None:
        return next((r["error"] for r in self.rounds if "error" in r), None)

    def kept(self, result: Result) -> list[dict[str, Any]]:
        return [w for w in result.get("windows", []) if w["foreign"] <= self.most]

    def all(self, field: str) -> list[float]:
        return [w[field] for r in self.rounds for w in self.kept(r) if w[field] is not None]

    def medians(self, field: str) -> list[float | None]:
        """One a round; None for a round that others disturbed."""
        found = [[w[field] for w in self.kept(r) if w[field] is not None] for r in self.rounds]
        return [statistics.median(values) if values else None for values in found]

    def under(self, other: Series, field: str) -> list[float]:
        """This way's figure as a share of the other's, round by round."""
        pairs = zip(self.medians(field), other.medians(field), strict=False)
        return [
            mine / theirs for mine, theirs in pairs if mine is not None and theirs is not None and theirs > 0
        ]

    def thrown(self) -> str:
        total = sum(len(r.get("windows", [])) for r in self.rounds)
        return f"{total - sum(len(self.kept(r)) for r in self.rounds)} of {total}"

    def fact(self, name: str) -> Any:
        return self.rounds[0][name]


Found = dict[str, Series]  # by way
_ADAM = 12  # bytes of state a parameter: itself and two slots, float32


def spread(values: Iterable[float], scale: float = 1.0) -> str:
    """The median, and the quartiles where there is more than one value."""
    known = sorted(v * scale for v in values)
    if len(known) < 2:
        return number(known[0]) if known else "-"
    low, middle, high = statistics.quantiles(known, n=4, method="inclusive")
    return f"{number(middle)} ({number(low)} to {number(high)})"


def ratio(found: Found, series: Series, field: str) -> str:
    """Ours as a share of this way's."""
    return (
        spread(found["ours"].under(series, field))
        if "ours" in found and series is not found.get("none")
        else "-"
    )


def number(value: float) -> str:
    """Three significant digits, and no exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}" if abs(value) >= 0.01 or not value else f"{value:.5f}"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rules = ["---", *["--:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rules, *lines])


def lines(
    found: Found, labels: dict[str, str], width: int, cells: Callable[[Series], list[str]]
) -> list[list[str]]:
    """A line a way; one that could not be measured says so."""
    out = []
    for way, series in found.items():
        failed = [f"not measured: {series.error}"] + [""] * (width - 2)
        out.append([labels[way], *(failed if series.error else cells(series))])
    return out


# -- one function a table ----------------------------------------------------------------------------------------------


def stalls(sizes: Iterable[Found]) -> str:
    """The main thread's stop, by the size of the model."""
    heads = (
        "a. way",
        "parameters",
        "variables",
        "blocked, ms",
        "ms a variable",
        "ours / this",
        "thrown away",
    )
    out: list[list[str]] = []
    for found in sizes:

        def cells(series: Series, found: Found = found) -> list[str]:
            count, blocked = series.fact("variables"), series.all("blocked")
            parameters = f"{number(series.fact('state') / _ADAM / 1e6)} M"
            times = [spread(blocked, 1e3), spread(blocked, 1e3 / count)]
            return [parameters, str(count), *times, ratio(found, series, "blocked"), series.thrown()]

        out += lines(found, LABELS, len(heads), cells)
    return table(heads, out)


def throughput(found: Found, window: int) -> str:
    heads = ("b. way", f"lost, s a checkpoint of {window} steps", "%", "ours / this", "CPU, s", "ours / this",
             "published after, s", "ours / this", f"after {window} steps", "MB", "thrown away")  # fmt: skip

    def cells(series: Series) -> list[str]:
        pairs = zip(series.all("lost"), series.all("plain"), strict=True)
        columns = [spread(series.all("lost")), spread((lost / plain for lost, plain in pairs), 100)]
        columns.append(ratio(found, series, "lost"))
        for field in ("cpu", "published"):
            columns += [spread(series.all(field)), ratio(found, series, field)]
        late = series.all("late")
        return [
            *columns,
            f"{sum(map(int, late))} of {len(late)}" if late else "-",
            spread(series.all("bytes")[-1:], 1e-6),
            series.thrown(),
        ]

    return table(heads, lines(found, LABELS, len(heads), cells))


def own_accounts(series: Series) -> str:
    """What our lineage says, for comparison with what was seen from outside."""
    accounts = [a for r in series.rounds for a in r.get("own_account", [])]
    figures = [(key, [a[key] for a in accounts if key in a]) for key in ("blocked", "seconds")]
    return "; ".join(f"`{key}` {spread(values)} s" for key, values in figures if values)


def restores(found: Found) -> str:
    heads = ("c. way", "once, s", "ours / this", "again, s", "ours / this", "thrown away")

    def cells(series: Series) -> list[str]:
        pairs = [(spread(series.all(f)), ratio(found, series, f)) for f in ("once", "seconds")]
        return [*pairs[0], *pairs[1], series.thrown()]

    return table(heads, lines(found, READERS, len(heads), cells)) + proof_cost(found)


def proof_cost(found: Found) -> str:
    if not {"ours", "assigned"} <= found.keys():
        return ""
    pairs = zip(found["ours"].medians("seconds"), found["assigned"].medians("seconds"), strict=True)
    costs = [whole - bare for whole, bare in pairs if whole is not None and bare is not None]
    return f"\n\nThe proof (first line less third): {spread(costs)} s."


def retention(found: Found) -> str:
    """Everything kept."""
    heads = (
        "d. way",
        "kept",
        "one alone, MB",
        "all on disk, MB",
        "all / one",
        "`resume verify`: in place, copied",
    )

    def cells(series: Series) -> list[str]:
        one, disk, whole = series.fact("one"), series.fact("disk"), series.fact("verified")
        counts = f"{whole['here']}, {whole['elsewhere']} whole" if whole else "-"
        figures = [number(one / 1e6), number(disk / 1e6), number(disk / one)]
        return [str(series.fact("kept")), *figures, counts]

    return table(heads, lines(found, LABELS, len(heads), cells))


def memory(found: Found) -> str:
    """What is resident beyond the steps before the first checkpoint."""
    heads = (
        "e. way",
        "state, MB",
        "saves",
        "most beyond, MB",
        "of the state",
        "first five saves",
        "last five",
    )

    def cells(series: Series) -> list[str]:
        result = series.rounds[-1]
        state, peaks = result["state"], [w["peak"] for w in result["windows"]]
        known = [number(state / 1e6), str(len(peaks))]
        if result["baseline"] is None or None in peaks:
            return [*known, "the kernel does not tell", "", "", ""]
        extra = [(peak - result["baseline"]) / state for peak in peaks]
        ends = [statistics.median(part) for part in (extra[:5], extra[-5:])]
        return [*known, *map(number, (max(extra) * state / 1e6, max(extra), *ends))]

    return table(heads, lines(found, LABELS, len(heads), cells))
