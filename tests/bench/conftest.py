"""The modules of scripts/bench, which is no package."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.fixture(scope="session")
def imported() -> Callable[[str], ModuleType]:
    """Imports one of them, or a script, under its own name, by which the others ask for it."""
    return _imported


def _imported(name: str) -> ModuleType:
    script = BENCH / name
    file = script if script.is_file() else script.with_suffix(".py")
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module
