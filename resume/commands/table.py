"""Plain columns for pipes, a table on a terminal, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def show(rows: Sequence[Row], *, as_json: bool) -> None:
    """Rows with the same keys: one JSON list, or a table with the keys as its header."""
    if as_json:
        print(json.dumps(rows, default=str))
    elif sys.stdout.isatty():
        _rich(rows)
    else:
        _plain(rows)


def facts(values: Row, *, as_json: bool) -> None:
    """One object: JSON, or a line a fact."""
    if as_json:
        print(json.dumps(values, default=str))
        return
    width = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"{name.replace('_', ' '):<{width}}  {cell(value)}")


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(rows: Sequence[Row]) -> None:
    if not rows:
        return
    lines = [list(rows[0]), *([cell(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def _rich(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*(rows[0] if rows else ()), box=None, header_style="bold")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    Console().print(table)
