"""Each validation of a run draws what it would have drawn in a run that was never interrupted."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from resume.engine.validation import Validation
from resume.errors import UsageError


@pytest.mark.parametrize("steps", [None, 2])
def test_validation_is_replayed_where_it_shuffles(steps: int | None) -> None:
    def make() -> tf.data.Dataset:
        dataset = tf.data.Dataset.range(30).shuffle(30).batch(10)
        return dataset.repeat() if steps else dataset

    def drawn(validation: Validation, epoch: int) -> list[Any]:
        adapter = validation.data(epoch, done=epoch)
        iterator = iter(adapter.get_tf_dataset())
        return [next(iterator).numpy().tolist() for _ in range(adapter.num_batches)]

    def fresh() -> Validation:
        return Validation(make, 4, tf.distribute.get_strategy(), steps)

    unbroken = fresh()
    seen = [drawn(unbroken, epoch) for epoch in range(3)]
    assert len(seen[0]) == (steps or 3)
    assert drawn(fresh(), 2) == seen[2]
    assert seen[0] != seen[1]


def test_validation_that_never_ends_is_refused() -> None:
    endless = tf.data.Dataset.range(3).shuffle(3).repeat()
    with pytest.raises(UsageError, match=r"data\.validation never ends: set fit\.validation_steps"):
        Validation(endless, 0, tf.distribute.get_strategy()).data(0, done=0)


def test_a_process_that_goes_on_with_the_same_dataset_is_where_it_was() -> None:
    def make() -> tf.data.Dataset:
        return tf.data.Dataset.range(30).shuffle(30, seed=3).batch(10)

    def order(validation: Validation, done: int) -> list[Any]:
        adapter = validation.data(done, done=done)
        return [
            batch.numpy().tolist() for _, batch in zip(range(3), iter(adapter.get_tf_dataset()), strict=True)
        ]

    def over(dataset: tf.data.Dataset) -> Validation:
        return Validation(dataset, 0, tf.distribute.get_strategy())

    unbroken, same = over(make()), make()
    whole = [order(unbroken, done) for done in range(4)]
    assert [order(over(same), done) for done in range(3)] == whole[:3]
    goes_on = over(same)
    assert order(goes_on, 3) == whole[3]
    assert goes_on.notes == []
    behind = over(same)
    order(behind, 1), order(behind, 2)
    assert behind.notes == [
        "data.validation was iterated before in this process, and cannot go back to its pass 2: its order may differ; "
        "give a function that takes `epoch`"
    ]
