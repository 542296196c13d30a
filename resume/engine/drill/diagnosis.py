"""From the first difference to the part that broke continuity, the object that is to blame, and a cure.

A training step is a chain: batch -> output -> loss -> learning rate -> update -> metrics. What goes into the first link
that differs was equal, so the link itself is to blame: its Python-side state, or a source of chance in its source text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from resume.engine.drill import record
from resume.engine.drill.blame import Blame, at, compiler, named, seen, some
from resume.engine.drill.cures import CURES
from resume.engine.drill.record import Event, Trace

_SCALE, _RATE = "optimizer/loss_scale/", "optimizer/learning_rate"
_ORDERLESS = ("hash", "listing")
_UNSEEDED = ("unseeded", "clock", *_ORDERLESS)
_NOBODY = "not found: look at what this step calls"

Suspicion = tuple[str, str, str]  # part, where, what is seen


@dataclass(frozen=True)
class Finding:
    """`part`: which kind of thing broke; `where`: the object, its class, its configuration key or source line."""

    part: str
    where: str
    evidence: str
    cure: str

    def json(self) -> dict[str, str]:
        return asdict(self)


def finding(part: str, where: str, evidence: str) -> Finding:
    return Finding(part, where or _NOBODY, evidence, CURES[part])


def of_repetition(whole: Trace, again: Trace) -> Finding | None:
    """Two unbroken runs: what the training itself does not repeat."""
    found = record.parting(whole, [again])
    if found is None:
        return None
    part, where, what = _suspicion(Blame(whole, again, found, repeats=False))
    return finding(part, where, f"two unbroken runs part {found.broken}: {what}")


def of_resumption(whole: Trace, attempts: Sequence[Trace]) -> Finding | None:
    """A run that was killed and resumed, of a training that repeats itself."""
    found = record.parting(whole, attempts)
    if found is None:
        return None
    part, where, what = _suspicion(Blame(whole, attempts[found.attempt - 1], found, repeats=True))
    return finding(part, where, f"attempt {found.attempt}, {found.broken}: {what}")


def of_compile(trace: Trace, compiled: Event, evidence: str) -> Finding:
    """A run that failed after its model was compiled again."""
    return finding("optimizer rebuilt by compile()", compiler(trace, compiled), evidence)


def _suspicion(blame: Blame) -> Suspicion:
    """By the first link of the chain that differs."""
    return _LINKS[blame.parting.effects[0]](blame)


# -- the links ---------------------------------------------------------------------------------------------------------


def _data(blame: Blame) -> Suspicion:
    (where, part), *_ = blame.parts("data.train").items()
    same, draws = record.same_rows(blame.whole, blame.parting.broken), blame.draws("data.train")
    what, source = _batch(blame, same=same), named(where, part)
    if not blame.repeats:
        unseeded = [draw for draw in draws if draw["kind"] in _UNSEEDED]
        orderless = bool(unseeded) and all(draw["kind"] in _ORDERLESS for draw in unseeded)
        chance = "unseeded shuffle" if same else "unseeded randomness in the data"
        return "order by hash or listing" if orderless else chance, at(source, unseeded or draws), what
    hidden = blame.hidden("data.train")
    if hidden:
        return "data with hidden state", blame.owner(hidden, "data.train"), what + seen(hidden)
    drawn = [draw for draw in draws if draw["kind"] in ("python", "numpy")]
    if drawn:
        return "global random numbers in the data", at(source, drawn), what + blame.generators()
    return "data order" if same else "data with hidden state", at(source, draws), what


def _batch(blame: Blame, *, same: bool) -> str:
    """What is seen of a batch that differs."""
    if same:
        return "the batch holds other rows of the same data"
    whole, broken = blame.parting.whole.facts, blame.parting.broken.facts
    labels = ", with the same labels" if whole["y"] == broken["y"] else ""
    return f"the batch holds values that the unbroken run never saw{labels}"


def _output(blame: Blame) -> Suspicion:
    what, draws = "the same batch and the same weights give another output", blame.draws("layer ")
    if not blame.repeats:
        if draws:
            return "unseeded randomness in a layer", blame.all_of("layer ", draws), what
        calls = blame.operations(python=True)
        return "non-deterministic operation", blame.layers_of(calls) or blame.all_of("layer "), what
    hidden, drawn = blame.hidden("layer "), blame.operations(python=False)
    if hidden:
        return "layer with hidden state", blame.owner(hidden, "layer "), what + seen(hidden)
    if drawn:
        where = at(blame.layers_of(drawn), [draw for draw in draws if draw["kind"] == "tensorflow"])
        return "stateful random operation in a layer", where, what
    return "layer with hidden state", blame.all_of("layer ", draws), what + blame.generators()


def _loss(blame: Blame) -> Suspicion:
    what, draws = "the same output and the same labels give another loss", blame.draws("loss")
    if not blame.repeats:
        part = "unseeded randomness in the loss" if draws else "non-deterministic operation"
        return part, blame.all_of("loss", draws), what
    hidden = blame.hidden("loss")
    return (
        "loss with hidden state",
        blame.owner(hidden, "loss") or blame.all_of("loss", draws),
        what + seen(hidden),
    )


def _rate(blame: Blame) -> Suspicion:
    whole, broken = (event.facts["rate_value"] for event in (blame.parting.whole, blame.parting.broken))
    what = f"the learning rate was {whole:.6g} and is {broken:.6g}, with the same batch, weights and loss"
    hidden = blame.hidden("schedule") or blame.hidden("optimizer")
    where = blame.owner(hidden, "schedule", "optimizer") or blame.all_of("schedule")
    return "schedule with hidden state", where, what + seen(hidden)


def _variables(blame: Blame) -> Suspicion:
    names, broken = blame.parting.variables, blame.parting.broken
    compiled = blame.trace.first("compile") or blame.whole.first("compile")
    if compiled is not None and any(name.startswith("optimizer/") for name in names):
        what = f"model.compile() has made a new optimizer; differs: {some(names)}"
        return "optimizer rebuilt by compile()", compiler(blame.whole, compiled), what
    if all(name.startswith(("metrics/", "seeds/")) for name in names):
        return _metric(blame, f"the accumulators differ, weights do not: {some(names)}")
    outside = broken.at == "before" or _RATE in names or any(name.startswith(_SCALE) for name in names)
    if outside or blame.hidden("callbacks."):
        return _callback(blame, f"changed outside the step: {some(names)}")
    hidden = blame.hidden("optimizer")
    part = "optimizer with hidden state" if blame.repeats else "non-deterministic operation"
    where = blame.owner(hidden, "optimizer") or blame.all_of("optimizer")
    return part, where, f"the same loss gives another update: {some(names)}{seen(hidden)}"


def _callback(blame: Blame, what: str) -> Suspicion:
    hidden = blame.hidden("callbacks.")
    scale = any(name.startswith(_SCALE) for name in blame.parting.variables)
    part = "loss scale reset" if scale else "callback with hidden state"
    return part, blame.owner(hidden, "callbacks.") or blame.callbacks(), what + seen(hidden)


def _metric(blame: Blame, what: str) -> Suspicion:
    hidden, draws = blame.hidden("metric "), blame.draws("metric ")
    if not blame.repeats:
        return "unseeded randomness in a metric", blame.all_of("metric ", draws), what
    where = blame.owner(hidden, "metric ") or blame.all_of("metric ", draws)
    return "metric with hidden state", where, what + seen(hidden)


def _logs(blame: Blame) -> Suspicion:
    """Weights are equal: a metric, the validation's data, or a callback that adds to the logs."""
    names = blame.parting.logs
    what = f"weights are equal, logs are not: {', '.join(names)}"
    users = [where.removeprefix("metric ") for where in blame.parts("metric ")]
    if blame.hidden("metric ") or any(metric in name for metric in users for name in names):
        return _metric(blame, what)
    if blame.parting.broken.at == "validated" or any(name.startswith("val_") for name in names):
        hidden = blame.hidden("data.validation") or blame.hidden("layer ")
        where = blame.owner(hidden, "data.validation", "layer ")
        return (
            "validation data with hidden state",
            where or blame.all_of("data.validation", blame.draws("data.validation")),
            what + seen(hidden),
        )
    return _callback(blame, what)


_LINKS: Mapping[str, Callable[[Blame], Suspicion]] = {
    "x": _data, "y": _data, "weight": _data, "out": _output, "loss": _loss, "rate": _rate,
    "variables": _variables, "logs": _logs,
}  # fmt: skip
