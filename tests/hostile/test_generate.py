"""Every file of a small hostile corpus is refused in two lines that name it, or loads exactly right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import resume
from resume.errors import ContinuityError, ResumeError

sys.path.insert(0, str(Path(__file__).parent))
import generate


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return generate.generate(tmp_path_factory.mktemp("hostile") / "corpus")


def names() -> list[str]:
    """The classes of cases; each test takes one, so that a failure says which."""
    return ["control", "truncated", "not-a-file", "code", "links", "size", "archive", "values", "config"]


@pytest.mark.parametrize("cls", names())
def test_every_file(corpus: Any, cls: str) -> None:
    cases = [case for case in corpus.cases if case["cls"] == cls]
    assert cases
    for case in cases:
        keras.utils.clear_session()
        path = corpus.out / case["path"]
        if case["expect"] == "accept":
            demand_true(resume.load(path)[0], dict(np.load(corpus.out / "base" / f"ref_{case['lib']}.npz")))
        else:
            demand_refused(path)
    assert list((corpus.out / "markers").iterdir()) == []


def demand_true(model: Any, truth: dict[str, np.ndarray]) -> None:
    held = {f"w{i}": np.array(v) for i, v in enumerate(model.weights)}
    held |= {f"o{i}": np.array(v) for i, v in enumerate(model.optimizer.variables)}
    assert all(held[name].tobytes() == truth[name].tobytes() for name in truth if name != "y")
    np.testing.assert_allclose(np.array(model(generate.rows()[0][:3])), truth["y"], rtol=1e-5)


def demand_refused(path: Path) -> None:
    with pytest.raises(ResumeError) as caught:
        resume.load(path)
    text = str(caught.value)
    assert str(path) in text, text
    assert isinstance(caught.value, ContinuityError) or len(text.splitlines()) <= 3, text


def test_the_list_of_classes_is_whole(corpus: Any) -> None:
    assert {case["cls"] for case in corpus.cases} == set(names())
