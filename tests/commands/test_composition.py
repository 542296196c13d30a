"""What a command line composes, and in which words Hydra's own errors arrive."""

from __future__ import annotations

import sys

import pytest

from resume.commands import composition
from resume.errors import UsageError


@pytest.fixture(autouse=True)
def _command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra reads it, and so it is set."""
    monkeypatch.setattr(sys, "argv", ["resume"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


def test_what_the_line_does_not_name_is_the_shipped_default() -> None:
    found = composition.settings(["fit.epochs=3"])
    assert found is not None
    assert (found.name, found.fit.epochs) == ("digits", 3)


def test_each_composed_configuration_is_handed_on() -> None:
    names: list[str] = []
    composition.compose(composition.completed(["name=a"]), lambda cfg: names.append(cfg.name))
    assert names == ["a"]


def test_a_sweep_is_no_one_configuration() -> None:
    with pytest.raises(UsageError, match="leave out -m"):
        composition.settings(["-m", "seed=1,2"])


@pytest.mark.parametrize(("override", "said"), [("fit.epoch=3", "fit.epochs"), ("model=absent", "absent")])
def test_hydras_own_errors_are_usage_errors_of_few_lines(override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        composition.settings([override])
    assert len(str(error.value).splitlines()) <= 4


def test_anything_else_keeps_its_traceback() -> None:
    def task(cfg: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        composition.compose(composition.completed([]), task)
