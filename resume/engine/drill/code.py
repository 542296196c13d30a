"""What a user's source text says about chance: calls that draw from a generator nobody has seeded, by file and line.

Read, never run. Functions of the same module that are called by name are read too.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resume.engine.drill.hidden import is_users

_CLOCKS = ("time.time", "time.time_ns", "time.perf_counter", "time.monotonic", "datetime.now", "os.urandom",
           "uuid.uuid4", "secrets.token_bytes", "os.getpid")  # fmt: skip
_LISTINGS = ("os.listdir", "os.scandir", "glob.glob", "glob.iglob")
_NUMPY_SEEDED = ("default_rng", "RandomState", "Generator", "SeedSequence", "PCG64", "seed")
_PURE = ("random.Random", "random.seed")


@dataclass(frozen=True)
class Draw:
    """One suspicious call. `kind`: python, numpy, unseeded, tensorflow, clock, hash, listing."""

    kind: str
    text: str  # the call as it is written
    where: str  # file:line

    def __str__(self) -> str:
        return f"{self.text} ({self.where})"


def is_users_part(item: Any) -> bool:
    return is_users(_bare(item))


def described(item: Any) -> dict[str, Any]:
    """What a report can name: the class or function, its suspicious calls, the names that its source uses."""
    bare = _bare(item)
    names: set[str] = set()
    found = [vars(draw) for draw in draws(item, names)]
    name = f"{getattr(bare, '__module__', '')}.{getattr(bare, '__qualname__', bare)}"
    return {"class": name, "draws": found, "names": sorted(names)}


def draws(item: Any, names: set[str] | None = None) -> list[Draw]:
    """Every suspicious call in a function's or a class's source; empty where there is no source to read.

    `names`: filled with every name that is used there.
    """
    found: dict[str, Draw] = {}
    pending, seen = [_bare(item)], set()
    while pending:
        part = pending.pop(0)
        if id(part) in seen or not is_users(part):
            continue
        seen.add(id(part))
        tree, line = _tree(part)
        found |= {d.where: d for d in _calls(tree, _file(part), line)}
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if names is not None:
            names |= used
        module = vars(sys.modules.get(part.__module__, ast))
        pending += [m for m in map(module.get, sorted(used)) if inspect.isfunction(m) or inspect.isclass(m)]
    return list(found.values())


def _bare(item: Any) -> Any:
    while isinstance(item, functools.partial):
        item = item.func
    item = inspect.unwrap(item) if callable(item) else item
    return (
        item if inspect.isfunction(item) or inspect.isclass(item) else getattr(item, "__func__", type(item))
    )


def _file(part: Any) -> str:
    try:
        return Path(inspect.getsourcefile(part) or "?").name
    except TypeError:
        return "?"


def _tree(part: Any) -> tuple[ast.AST, int]:
    try:
        lines, first = inspect.getsourcelines(part)
        return ast.parse(textwrap.dedent("".join(lines))), first
    except (
        OSError,
        SyntaxError,
        TypeError,
    ):  # a lambda in the middle of an expression, a class made by a call
        return ast.Module(body=[], type_ignores=[]), 0


def _calls(tree: ast.AST, file: str, first: int) -> Iterator[Draw]:
    for node in ast.walk(tree):
        kind = "hash" if isinstance(node, ast.SetComp) else None
        if isinstance(node, ast.Call):
            kind = _kind(ast.unparse(node.func), node)
        if kind is not None and isinstance(node, ast.expr):
            yield Draw(kind, ast.unparse(node)[:60], f"{file}:{first + node.lineno - 1}")


def _kind(name: str, call: ast.Call) -> str | None:
    parts, last = name.split("."), name.split(".")[-1]
    bare = not call.args and not call.keywords
    if (last in ("default_rng", "Random", "RandomState", "SystemRandom") and bare) or last == "SystemRandom":
        return "unseeded"
    if parts[0] == "random" and len(parts) == 2 and name not in _PURE:
        return "python"
    if parts[0] in ("np", "numpy") and "random" in parts and last not in _NUMPY_SEEDED:
        return "numpy"
    if (
        parts[0] in ("tf", "tensorflow")
        and parts[1:2] == ["random"]
        and not last.startswith(("stateless", "set_seed"))
    ):
        return "tensorflow" if "Generator" not in parts else None
    if name in _CLOCKS:
        return "clock"
    if name == "hash" or (name in ("set", "frozenset") and not bare):
        return "hash"
    return "listing" if name in _LISTINGS else None
