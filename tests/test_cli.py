"""The command line: words, exit codes, and paths that Hydra would otherwise read as its own grammar."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep

from resume import cli, rundir
from resume.cli import shielded
from resume.state import TrainState

Captured = pytest.CaptureFixture[str]


def code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return end.value.code


# ---- words and exit codes ----


@pytest.mark.parametrize("word", ["-h", "--help", "help"])
def test_help(word: str, capsys: Captured) -> None:
    assert code(word) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m resume COMMAND [arguments]")
    assert [line.split()[0] for line in out.splitlines()[2:]] == [
        "train",
        "drill",
        "list",
        "inspect",
        "diff",
        "convert",
        "verify",
        "doctor",
        "render",
    ]
    assert err == ""


def test_nothing_said(capsys: Captured) -> None:
    assert code() == 2
    assert "usage: python -m resume COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["resume", "Train", "", "os", "table", "../train"])
def test_unknown_command(word: str, capsys: Captured) -> None:
    assert code(word) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", f"resume: unknown command {word!r}")
    assert "usage: " in err


@pytest.mark.parametrize("word", ["list", "inspect", "diff", "verify"])
def test_help_and_usage_of_each_command(word: str, capsys: Captured) -> None:
    assert code(word, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: resume {word} ")
    assert code(word) == 2
    assert "the following arguments are required" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["list", "inspect", "verify"])
def test_errors_are_said_without_a_traceback(word: str, tmp_path: Path, capsys: Captured) -> None:
    assert code(word, str(tmp_path / "absent")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"resume: {tmp_path}/absent: ")
    assert len(err.splitlines()) == 1


def test_exit_codes_come_through(
    tmp_path: Path, make_state: Callable[..., TrainState], capsys: Captured
) -> None:
    path = rundir.publish(tmp_path, make_state(1)).path
    assert code("verify", str(path)) == 0
    (path / "manifest.json").unlink()
    assert code("verify", str(path)) == 3
    assert code("verify", str(tmp_path)) == 4
    assert code("inspect", str(tmp_path)) == 4
    assert capsys.readouterr().err.startswith(f"resume: {tmp_path}: none of its 1 checkpoints is whole")


GONE = """
import os, sys
from resume.cli import main

reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
main(["list", sys.argv[1]])
"""


def test_a_reader_that_has_gone_away(
    tmp_path: Path, make_state: Callable[..., TrainState], python: Callable[..., subprocess.Popen[str]]
) -> None:
    """As with any other tool: silent, and as if SIGPIPE had ended it."""
    rundir.publish(tmp_path, make_state(1))
    process = python(GONE, tmp_path)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 141


# ---- paths and Hydra's grammar ----

ODD = [
    "run42.h5",
    "/data/run 42.h5",
    " leading.h5",
    "trailing.h5  ",
    "   ",
    "epoch=03-loss=0.12, a.h5",
    "a,b,c",
    "a[1].h5",
    "[a, b]",
    "{a: 1}",
    "model{02}.keras",
    "f(x).h5",
    "choice(a,b)",
    "it's.h5",
    "'quoted'.h5",
    'say "hi".h5',
    "\"q\" or 'q'.h5",
    "back\\slash.h5",
    "ends in \\",
    "two \\\\",
    "\\'",
    "\\\\'x\\",
    "#1.h5",
    "a;b&c!d.h5",
    "~home.h5",
    "~/runs/a",
    "übung-モデル-🙂.h5",
    "$HOME.h5",
    "a$b@c%d.h5",
    "k:v.h5",
    "*.h5?",
    "<a>|`b`",
    "tab\there",
    "line\nbreak",
    "true",
    "12",
    "1e3",
    "NULL",
    "null.h5",
    "'",
    "-rf",
    "+ckpt=a",
    "undecodable-\udcff.h5",
]


@pytest.mark.parametrize("name", ODD)
def test_hydra_takes_a_shielded_path_as_it_is(name: str) -> None:
    parser = OverridesParser.create()
    for key in ("ckpt", "+ckpt", "++ckpt", "run_dir"):
        override = parser.parse_override(shielded(f"{key}={name}"))
        assert override.key_or_group == key.lstrip("+")
        assert override.value() == name
        assert type(override.value()) is str


@pytest.mark.parametrize(
    "argument",
    [
        "ckpt=",
        "ckpt=null",
        "ckpt='a b.h5'",
        'ckpt="a, b.h5"',
        "run_dir=${oc.env:HOME}/runs",
        "model.width=a b",
        "+experiment=digits_cnn",
        "--multirun",
        "ckpt",
        "~ckpt",
        "data.ckpt=a=b",
    ],
)
def test_left_alone(argument: str) -> None:
    assert shielded(argument) == argument


def test_a_sweep_over_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    swept = OverridesParser.create().parse_override(shielded("ckpt=a.h5,b.h5", sweeps=True))
    assert isinstance(swept.value(), ChoiceSweep)
    Path("a.h5,b.h5").touch()  # unless that is what a file is called
    assert shielded("ckpt=a.h5,b.h5", sweeps=True) == "ckpt='a.h5,b.h5'"
    Path("'q'").touch()
    assert OverridesParser.create().parse_override(shielded("ckpt='q'")).value() == "'q'"


def test_odd_names_are_odd_on_this_file_system_too(tmp_path: Path) -> None:
    """Each is a file that could be there."""
    names = [name for name in ODD if "/" not in name]
    for name in names:
        (tmp_path / name).touch()
    assert sorted(os.listdir(tmp_path)) == sorted(names)  # noqa: PTH208
