"""`resume diff`: two sources side by side, as lines and as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume import errors, rundir
from resume.commands import diff
from resume.errors import SourceError, UsageError
from resume.state import TrainState

Make = Callable[..., TrainState]
Captured = pytest.CaptureFixture[str]

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def two(tmp_path: Path, make_state: Make) -> tuple[str, str]:
    paths = [rundir.publish(tmp_path / name, make_state(step)).path for name, step in (("a", 7), ("b", 8))]
    return str(paths[0]), str(paths[1])


def test_equal(two: tuple[str, str], capsys: Captured) -> None:
    assert diff.run([two[0], two[0]]) == 0
    a = f"{two[0]}: native, Keras 3.12.0, SGD, iterations 7"
    assert capsys.readouterr().out == f"A {a}\nB {a}\nequal: 6 arrays are equal bit for bit\n"
    assert diff.run([two[0], two[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"equal": True, "findings": []}


def test_different(two: tuple[str, str], capsys: Captured) -> None:
    assert diff.run(list(two)) == errors.EXIT_DIFFERENT == 1
    assert capsys.readouterr().out == (
        f"A {two[0]}: native, Keras 3.12.0, SGD, iterations 7\n"
        f"B {two[1]}: native, Keras 3.12.0, SGD, iterations 8\n"
        "  optimizer/iteration: 7 -> 8\n"
        "  model/dense/kernel: 7 -> 8 at [0, 0], apart by 1 (0.077 of the largest value); 6 of 6 values differ\n"
        "  optimizer/momentum/dense/kernel: 3.5 -> 4 at [0, 0], apart by 0.5 (0.077 of the largest value);"
        " 6 of 6 values differ\n"
        "different: 3 differences; 3 arrays are equal bit for bit\n"
    )


def test_json_has_every_difference(two: tuple[str, str], capsys: Captured) -> None:
    assert diff.run([*two, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["equal", "findings"]
    assert found["equal"] is False
    assert [f["name"] for f in found["findings"]] == [
        "optimizer/iteration",
        "model/dense/kernel",
        "optimizer/momentum/dense/kernel",
    ]
    assert found["findings"][0] == {
        "name": "optimizer/iteration", "kind": "value", "saved": "7", "found": "8", "largest": 1.0,
        "relative": 0.125, "differing": 1, "elements": 1,
    }  # fmt: skip


def test_run_directories_are_their_newest(two: tuple[str, str], capsys: Captured) -> None:
    folders = [str(Path(path).parents[1]) for path in two]
    assert diff.run(folders) == 1
    assert capsys.readouterr().out.splitlines()[2] == "  optimizer/iteration: 7 -> 8"


def test_bounded_unless_all(tmp_path: Path, make_state: Make, capsys: Captured) -> None:
    extra: dict[str, Any] = {f"model/layer_{n}/w": np.zeros(1, "float32") for n in range(30)}
    a = str(rundir.publish(tmp_path / "a", make_state(7, extra=extra)).path)
    b = str(rundir.publish(tmp_path / "b", make_state(7)).path)
    assert diff.run([a, b]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 20 + 2
    assert lines[-2] == "  ... and 10 more: --all shows them"
    assert lines[-1] == "different: 30 differences; 6 arrays are equal bit for bit"
    assert diff.run([a, b, "--all"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2 + 30 + 1


def test_tolerance(two: tuple[str, str], tmp_path: Path, make_state: Make, capsys: Captured) -> None:
    near = make_state(7, extra={"model/dense/bias": np.full(2, 1e-6, "float32")})
    near_path = str(rundir.publish(tmp_path / "near", near).path)
    assert diff.run([two[0], near_path]) == 1
    assert diff.run([two[0], near_path, "--atol", "1e-5"]) == 0
    assert capsys.readouterr().out.endswith("equal: 5 arrays are equal bit for bit, 1 within the tolerance\n")
    for value in ("-1", "nan"):
        with pytest.raises(UsageError, match="not a difference of numbers"):
            diff.run([*two, "--atol", value])


def test_nothing_there(two: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or directory") as raised:
        diff.run([two[0], str(tmp_path / "absent")])
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("a", "b"),
    [("model.keras", "model.h5"), ("model.h5", "model.keras")],
)
def test_two_formats_of_one_run_are_equal(a: str, b: str, capsys: Captured) -> None:
    run = FIXTURES / "o45_k315_mlp_adam_control"
    assert diff.run([str(run / a), str(run / b)]) == 0
    assert capsys.readouterr().out.endswith("equal: 20 arrays are equal bit for bit\n")


def test_two_runs_of_one_architecture_differ_in_values_only(capsys: Captured) -> None:
    """Keras 3.0.5 and 3.15.1 write other settings, which say nothing of the two models."""
    old, new = (FIXTURES / run / "model.keras" for run in ("o35_k305_mlp_adam", "o45_k315_mlp_adam_control"))
    assert diff.run([str(old), str(new), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert {f["kind"] for f in found} == {"value"}
    assert len(found) == 18
    largest = [f["largest"] for f in found]
    assert largest == sorted(largest, reverse=True)


def test_help_tells_the_exit_codes(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        diff.run(["--help"])
    assert "0 equal, 1 different; 2 usage" in " ".join(capsys.readouterr().out.split())
    assert "`resume diff` exits as diff(1) does" in (errors.__doc__ or "")
