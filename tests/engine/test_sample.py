"""Data that is not what it was is seen where it can be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small import BreakAt, BrokenError, X, Y, classifier

import resume
from resume.engine import sample


def test_a_sample_is_of_rows_and_of_every_array() -> None:
    texts = np.array(["a", "bc", "d"], object)
    given: dict[str, Any] = {
        "two": (X, Y), "weights": (X, Y, np.ones(48)), "tensors": (tf.constant(X), Y), "mapping": ({"x": X}, Y),
        "turned": (X[::-1], Y[::-1]), "fewer": (X[:40], Y[:40]), "doubles": (X.astype("float64"), Y),
        "texts": (texts,), "other texts": (texts[::-1],), "none": (X[:0],),
    }  # fmt: skip
    found = {name: sample.of_arrays(value) for name, value in given.items()}
    assert (
        found["two"] == found["tensors"] == found["mapping"] == sample.of_arrays((X.copy(), Y.copy(), None))
    )
    rest = [str(facts) for name, facts in found.items() if name not in ("tensors", "mapping")]
    assert len(set(rest)) == len(rest)
    assert found["fewer"]["rows"] == 40  # type: ignore[index]
    for other in (tf.data.Dataset.range(3), [1, 2], lambda epoch: X, None):
        assert sample.of_arrays(other) is None


@pytest.fixture
def no_seed() -> Iterator[None]:
    """As in a process that has set none; with one, a shuffle's own is a function of it."""
    tf.random.set_seed(None)
    yield
    tf.random.set_seed(0)


@pytest.mark.usefixtures("no_seed")
@pytest.mark.parametrize(
    ("made", "anew"),
    [
        (lambda d: d.shuffle(8), True),
        (lambda d: d.shuffle(8, seed=1), False),
        (lambda d: d.shuffle(8, reshuffle_each_iteration=False).batch(4).prefetch(1), True),
        (lambda d: d.shuffle(8, seed=1).batch(4).shuffle(2), True),
        (lambda d: tf.data.Dataset.zip((d, d.shuffle(8))).with_options(tf.data.Options()), True),
        (lambda d: d.batch(4), False),
    ],
)
def test_a_shuffle_without_a_seed(made: Any, anew: bool) -> None:
    assert sample.draws_anew(made(tf.data.Dataset.range(8))) == anew
    tf.random.set_seed(5)
    assert not sample.draws_anew(made(tf.data.Dataset.range(8)))


def test_other_rows_are_drift(tmp_path: Path) -> None:
    """An unseeded split, in the next process."""

    def fit(x: Any, *more: Any, **given: Any) -> Any:
        return resume.fit(
            classifier(), x, Y, run_dir=tmp_path, epochs=2, batch_size=8, verbose=0, every_steps=1, callbacks=more,
            **given,
        )  # fmt: skip

    with pytest.raises(BrokenError):
        fit(X, BreakAt(2))
    with pytest.raises(resume.DriftError, match=r"(?s)arrays\.sample: \w+ saved -> .* needs a seed"):
        fit(np.random.default_rng().permutation(X))
    fit(X)


@pytest.mark.usefixtures("no_seed")
def test_a_shuffle_without_a_seed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(48).batch(8)
    resume.fit(classifier(), data, run_dir=tmp_path, verbose=0)
    assert "shuffled without a seed" in capsys.readouterr().out
