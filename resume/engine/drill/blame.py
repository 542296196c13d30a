"""Who is to blame for a difference: the object, its class and configuration key, the attribute, the source line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resume.engine.drill.record import Event, Parting, Trace

Hidden = Mapping[str, tuple[str | None, str | None]]  # path -> (reference, attempt)
Draws = Sequence[Mapping[str, Any]]
_MODULE = "module "
_SHOWN = 3
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


@dataclass(frozen=True)
class Blame:
    """The reference, the attempt that leaves it, and where. `repeats`: whether the training repeats itself at all."""

    whole: Trace
    trace: Trace
    parting: Parting
    repeats: bool

    def parts(self, *kinds: str) -> dict[str, Mapping[str, Any]]:
        """The user's parts of these kinds ("layer ", "callbacks.", "data.train"), as the attempt described them."""
        return {where: part for where, part in self.whole.described().items() if where.startswith(kinds)}

    def hidden(self, *kinds: str) -> Hidden:
        """Python-side state of these parts that differs: their own first, then module globals that they use."""
        found = self.parting.hidden
        paths = sorted(found, key=lambda path: None in found[path])  # values that both sides have say most
        own = {path: found[path] for kind in kinds for path in paths if path.startswith(kind)}
        used = {name for part in self.parts(*kinds).values() for name in part["names"]}
        modules = [path for path in paths if path.startswith(_MODULE)]
        return own | {
            path: found[path] for path in modules if used.intersection(path.replace("[", ".").split("."))
        }

    def draws(self, *kinds: str) -> Draws:
        """Suspicious calls in the source of these parts, each line once."""
        parts = self.parts(*kinds).values()
        return list({draw["where"]: draw for part in parts for draw in part["draws"]}.values())

    def operations(self, *, python: bool) -> dict[str, str]:
        """Operations in the compiled step that keep a counter of their own, or that call Python."""
        found = {**self.whole.chance(), **self.trace.chance()}
        return {name: op for name, op in found.items() if (op in _PYTHON) == python}

    # -- names -----------------------------------------------------------------------------------------------------

    def owner(self, hidden: Hidden, *kinds: str) -> str:
        """The part that the first of these paths is in, or that uses that global, with the path."""
        path = next(iter(hidden), None)
        if path is None:
            return ""
        if path.startswith(_MODULE):
            last = set(path.replace("[", ".").split("."))
            users = [named(w, p) for w, p in self.parts(*kinds).items() if last.intersection(p["names"])]
            return f"{', '.join(users)}: {path}"
        owners = [where for where in self.whole.described() if _within(path, where)]
        where = max(owners, key=len, default=path.split(".")[0])
        return f"{named(where, self.whole.described().get(where))}: {path}"

    def all_of(self, kind: str, draws: Draws = ()) -> str:
        """Every part of a kind; those with suspicious calls alone, where there are such calls."""
        parts = self.parts(kind).items()
        names = [named(w, p) for w, p in parts if p["draws"] or not draws]
        return at("; ".join(names), draws)

    def layers_of(self, operations: Mapping[str, str]) -> str:
        """The user's layers that these operations are in, and the operations."""
        within = [named(w, p) for w, p in self.parts("layer ").items() if self._holds(w, operations)]
        shown = ", ".join(f"{op} {name}" for name, op in list(operations.items())[:_SHOWN])
        return ": ".join(filter(None, ["; ".join(within), shown]))

    @staticmethod
    def _holds(where: str, operations: Mapping[str, str]) -> bool:
        layer = where.removeprefix("layer ")
        return any(
            part == layer or part.startswith(f"{layer}_") for name in operations for part in name.split("/")
        )

    def callbacks(self) -> str:
        """The user's own callbacks, where nothing tells which one it is."""
        mine = [named(where, part) for where, part in self.parts("callbacks.").items() if part["names"]]
        return ("one of " if len(mine) > 1 else "") + ", ".join(mine)

    def generators(self) -> str:
        moved = ", ".join(self.parting.random)
        return f"; global generators that are elsewhere: {moved}" if moved else ""


def compiler(trace: Trace, compiled: Event) -> str:
    """Who called compile(): of a callback, its class too."""
    by = str(compiled.facts["by"])
    known = trace.described().get(by.split(" ")[0])
    return f"{by}, of {known['class']}" if known else by


def _within(path: str, where: str) -> bool:
    return path == where or (path.startswith(where) and path[len(where)] in ".[(")


def named(where: str, part: Mapping[str, Any] | None) -> str:
    return f"{where} ({part['class']})" if part else where


def seen(hidden: Hidden) -> str:
    """What differs, as evidence."""
    shown = [f"{path}: {a or '-'} -> {b or '-'}" for path, (a, b) in list(hidden.items())[:_SHOWN]]
    return f"; not in any checkpoint: {'; '.join(shown)}" if shown else ""


def at(where: str, draws: Draws) -> str:
    """A part with its suspicious source lines."""
    shown = ", ".join(f"{draw['text']} at {draw['where']}" for draw in draws[:_SHOWN])
    return ": ".join(filter(None, [where, shown]))


def some(names: Sequence[str]) -> str:
    return ", ".join(_some(names))


def _some(names: Sequence[str]) -> Iterator[str]:
    yield from names[:_SHOWN]
    if len(names) > _SHOWN:
        yield f"{len(names) - _SHOWN} more"
