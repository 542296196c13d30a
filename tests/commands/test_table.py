"""Columns for pipes, a table for terminals, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from resume.commands import table

ROWS = [{"step": 1, "path": "a"}, {"step": 1000, "path": "bb"}]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (0.1 + 0.2, "0.3"),
        (1e-07, "1e-07"),
        ([], "-"),
        ([1, None], "1, -"),
        ("x", "x"),
    ],
)
def test_cell(value: Any, shown: str) -> None:
    assert table.cell(value) == shown


def test_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(ROWS, as_json=False)
    assert capsys.readouterr().out == "step  path\n1     a\n1000  bb\n"
    table.show([], as_json=False)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as screen:
        monkeypatch.setenv("TERM", "dumb")  # no colours
        monkeypatch.setattr(sys, "stdout", terminal)
        table.show(ROWS, as_json=False)
        terminal.flush()
        shown = screen.read(4096).decode()
    assert [line.split() for line in shown.splitlines()] == [["step", "path"], ["1", "a"], ["1000", "bb"]]
    assert not shown.startswith("step")  # padded: not the plain columns


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    table.show(ROWS, as_json=True)
    table.facts({"where": Path("a"), "n": None}, as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [ROWS, {"where": "a", "n": None}]


def test_facts(capsys: pytest.CaptureFixture[str]) -> None:
    table.facts({"num_slots": 3, "whole": True}, as_json=False)
    assert capsys.readouterr().out == "num slots  3\nwhole      yes\n"
