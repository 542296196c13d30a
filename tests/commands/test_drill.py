"""The command line of `resume drill` and its report. Real drills are in tests/e2e/test_drill.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume import cli
from resume.commands import drill
from resume.engine.drill.diagnosis import finding
from resume.engine.drill.rehearsal import Report

Captured = pytest.CaptureFixture[str]


def code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as end:
        cli.main(["drill", *arguments])
    return end.value.code


def test_help(capsys: Captured) -> None:
    assert code("--help") == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: resume drill [-h] [--json] [--kills N]")
    assert "3 continuity broken" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "seed=0,1"], "no sweep"),
        (["--kills", "0"], "--kills: 0 is less than 1."),
        (["--steps", "-2"], "--steps: -2 is less than 1."),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: Captured) -> None:
    assert code(*arguments) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_somebody_elses_is_left_alone(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "thesis.tex").touch()
    assert code("--dir", str(tmp_path)) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_the_folder_of_an_earlier_drill_is_taken_again(tmp_path: Path) -> None:
    with drill._folder(str(tmp_path / "d")) as folder:
        (folder / "run").mkdir()
    with drill._folder(str(tmp_path / "d")) as folder:
        assert [path.name for path in folder.iterdir()] == ["attempts.log"]
    with drill._folder(None) as temporary:
        assert temporary.is_dir()
    assert not temporary.exists()


KILLS = [
    {"signal": "SIGKILL", "moment": "in a save", "at": "after 4 steps of this attempt", "code": -9},
    {"signal": "SIGTERM", "moment": "inside an epoch", "at": None, "code": 0},
]


def test_a_clean_report() -> None:
    report = Report(attempts=2, kills=KILLS, seconds=21.4, arrays=36, notes=["epochs are cut"])
    assert list(drill._lines(report)) == [
        "continuity: exact. The killed run ended as the unbroken one, bit for bit: 36 arrays, history,\n"
        "callbacks, logs (1 kills, 2 attempts, 21 s).",
        "",
        "  SIGKILL  in a save: after 4 steps of this attempt",
        "  SIGTERM  inside an epoch: not reached, the attempt ended first",
        "  note: epochs are cut",
    ]


def test_a_broken_report() -> None:
    report = Report(attempts=2, kills=KILLS, differences=["array model/a"] * 3)
    report.broken(finding("data order", "data.train (mine.train)", "attempt 2, at batch 3"), None)
    text = "\n".join(drill._lines(report))
    assert text.startswith(
        "continuity: BROKEN. The killed run did not end as the unbroken one: 3 parts differ (1 kills"
    )
    assert (
        "\n\ndata order\n  where     data.train (mine.train)\n  evidence  attempt 2, at batch 3\n  cure      Give"
        in text
    )
    assert max(map(len, text.splitlines())) <= 100


def test_json() -> None:
    found = Report(seconds=1.26).broken(finding("logs", "callbacks", "seen")).json()
    assert (found["verdict"], found["seconds"], found["attempts"], found["kills"]) == ("broken", 1.3, 0, [])
    assert set(found["findings"][0]) == {"part", "where", "evidence", "cure"}


def test_the_run_directory_of_the_real_run_is_not_used() -> None:
    given = drill._given(["+experiment=mine", "run_dir='runs/a'", "+run_dir=b", "seed=3", "++run_dir=c"])
    assert given == ("+experiment=mine", "seed=3")
