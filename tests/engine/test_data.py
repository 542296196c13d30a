"""The rest of an epoch, begun at any batch by a process that has seen nothing before, is the whole epoch's tail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from resume.engine import data
from resume.engine.data import Feeding, Order
from resume.errors import UsageError

X = np.arange(40, dtype="float32").reshape(20, 2)
Y = np.arange(20) % 3


def pure(epoch: int, seed: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(20, seed=100 * epoch + seed).batch(4)


def unseeded(epoch: int) -> tf.data.Dataset:
    """Takes its seeds from the process: these are a function of (seed, epoch) while it runs."""
    order = np.random.permutation(20)
    return tf.data.Dataset.from_tensor_slices((X[order], Y[order])).shuffle(7).batch(4)


def reshuffled() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(20).batch(4)


def endless() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(20, seed=2).repeat().batch(4)


def generated() -> tf.data.Dataset:
    def rows() -> Any:
        yield from zip(X, Y, strict=True)

    signature = (tf.TensorSpec((2,), tf.float32), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(rows, output_signature=signature).batch(4)


class Shuffling(keras.utils.PyDataset):
    def __init__(self) -> None:
        super().__init__()
        self.order = np.arange(20)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = self.order[4 * index : 4 * index + 4]
        return X[rows], Y[rows]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)


SOURCES: dict[str, tuple[Callable[[], Any], Feeding]] = {
    "pure": (lambda: pure, Feeding(seed=5)),
    "unseeded": (lambda: unseeded, Feeding(seed=5)),
    "reshuffled": (lambda: reshuffled, Feeding()),
    "endless": (lambda: endless, Feeding(steps_per_epoch=3)),
    "cut stream": (lambda: reshuffled, Feeding(steps_per_epoch=4)),
    "generated": (lambda: generated, Feeding()),
    "arrays": (lambda: (X, Y), Feeding(seed=1, batch_size=4)),
    "arrays in dictionaries": (lambda: ({"a": X, "b": X}, Y), Feeding(batch_size=4)),
    "arrays in order": (lambda: (X, Y), Feeding(batch_size=8, shuffle=False)),
    "py_dataset": (Shuffling, Feeding(seed=3)),
    "py_dataset in order": (Shuffling, Feeding(shuffle=False)),
}


def order_of(name: str) -> Order:
    make, feeding = SOURCES[name]
    return Order(make(), feeding, tf.distribute.get_strategy())


def batches(order: Order, epoch: int, batch: int = 0) -> list[list[Any]]:
    """As `fit` draws them: the adapter's number of batches from its one iterator."""
    adapter = order.begin(epoch, batch).adapter
    adapter.on_epoch_begin()
    iterator = iter(adapter.get_tf_dataset())
    drawn = [next(iterator) for _ in range(adapter.num_batches)]
    adapter.on_epoch_end()
    return [[np.asarray(part).tolist() for part in keras.tree.flatten(one)] for one in drawn]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("epoch", "batch"), [(0, 2), (2, 0), (2, 1)])
def test_a_resumed_epoch_is_the_tail_of_the_whole_one(name: str, epoch: int, batch: int) -> None:
    unbroken = order_of(name)
    whole = [batches(unbroken, e) for e in range(epoch + 1)][-1]
    assert batches(order_of(name), epoch, batch) == whole[batch:]
    assert len(whole) > batch


@pytest.mark.parametrize("name", ["pure", "unseeded", "reshuffled", "arrays", "py_dataset"])
def test_epochs_differ_from_each_other(name: str) -> None:
    order = order_of(name)
    assert batches(order, 0) != batches(order, 1)


def test_a_stream_goes_on_from_epoch_to_epoch() -> None:
    order = Order(
        lambda: tf.data.Dataset.range(10).batch(2), Feeding(steps_per_epoch=2), tf.distribute.get_strategy()
    )
    assert batches(order, 0) + batches(order, 1) == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]


def again(data: Any, name: str) -> Order:
    """The same object, handed to another training of this process."""
    return Order(data, SOURCES[name][1], tf.distribute.get_strategy())


@pytest.mark.parametrize("name", ["reshuffled", "py_dataset"])
def test_a_process_that_goes_on_with_the_same_object_is_where_it_was(name: str) -> None:
    unbroken = order_of(name)
    whole = [batches(unbroken, epoch) for epoch in range(4)]
    same = order_of(name).value(0)
    first = again(same, name)
    assert [batches(first, epoch) for epoch in range(2)] == whole[:2]
    resumed = again(same, name)
    assert [batches(resumed, epoch) for epoch in (2, 3)] == whole[2:]
    assert not [note for note in resumed.notes if "cannot go back" in note]


def test_a_pass_that_was_begun_goes_on_for_a_py_dataset() -> None:
    unbroken = order_of("py_dataset")
    whole = [batches(unbroken, epoch) for epoch in range(2)]
    same = Shuffling()
    first = again(same, "py_dataset")
    batches(first, 0), batches(first, 1)
    assert batches(again(same, "py_dataset"), 1, 2) == whole[1][2:]


@pytest.mark.parametrize(
    ("name", "made", "there"),
    [
        ("reshuffled", reshuffled, "epoch 2"),
        ("py_dataset", Shuffling, "epoch 2"),
        ("cut stream", reshuffled, "its beginning"),
    ],
)
def test_what_cannot_be_gone_back_to_is_said_once(name: str, made: Callable[[], Any], there: str) -> None:
    same = made()
    first = again(same, name)
    for epoch in range(3):
        batches(first, epoch)
    for _ in range(2):  # a third training is no nearer to it
        later = again(same, name)
        for epoch in (1, 2):
            batches(later, epoch)
        assert [note for note in later.notes if "this process" in note] == [
            f"data.train was gone over before in this process, and cannot go back to {there}: its order may differ; "
            "give a function that takes `epoch`"
        ]
    fresh = again(made(), name)
    batches(fresh, 1)
    assert not [note for note in fresh.notes if "this process" in note]


class Drawing(Shuffling):
    """Each epoch's order is a function of the generators alone, whatever it was before."""

    def on_epoch_end(self) -> None:
        self.order = np.random.permutation(20)


def test_hooks_are_called_in_every_training_of_a_process() -> None:
    whole = [batches(unbroken, epoch) for unbroken in [again(Drawing(), "py_dataset")] for epoch in range(4)]
    same = Drawing()
    for start in (0, 1, 0):
        order = again(same, "py_dataset")
        assert [batches(order, epoch) for epoch in range(start, 4)] == whole[start:]


class Interrupting(Shuffling):
    at = -1

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        self.at -= 1
        if self.at == 0:
            raise KeyboardInterrupt


def test_what_was_interrupted_within_its_hooks_is_nowhere_any_more() -> None:
    same = Interrupting()
    same.at = 2
    with pytest.raises(KeyboardInterrupt):
        batches(again(same, "py_dataset"), 1)
    later = again(same, "py_dataset")
    batches(later, 1)
    assert any("this process" in note for note in later.notes)


def test_what_takes_a_pass_to_be_counted_is_counted_once() -> None:
    def made() -> tf.data.Dataset:
        return reshuffled().filter(lambda x, y: True)

    unbroken = again(made, "reshuffled")
    unbroken.steps(0)
    whole = [batches(unbroken, epoch) for epoch in range(3)]
    same = again(made, "reshuffled").value(0)
    first, second = again(same, "reshuffled"), again(same, "reshuffled")
    assert first.steps(0) == 5
    assert [batches(first, epoch) for epoch in range(2)] == whole[:2]
    assert second.steps(0) == 5
    assert batches(second, 2) == whole[2]


class Still(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("py_dataset", Still),
        ("reshuffled", lambda: tf.data.Dataset.range(20).batch(4)),
        ("cut stream", lambda: tf.data.Dataset.range(20).batch(4)),
    ],
)
def test_data_that_is_the_same_in_each_pass_is_nothing_to_be_said_of(
    name: str, made: Callable[[], Any]
) -> None:
    same = made()
    drawn = []
    for _ in range(2):
        order = again(same, name)
        drawn.append([batches(order, epoch) for epoch in range(2)])
        assert not [note for note in order.notes if "this process" in note]
    assert drawn[0] == drawn[1]


def test_replay_is_said_and_needless_replay_is_not() -> None:
    shuffled, plain = (
        order_of("reshuffled"),
        Order(tf.data.Dataset.range(4), Feeding(), tf.distribute.get_strategy()),
    )
    batches(shuffled, 2)
    batches(plain, 2)
    assert shuffled.notes[0].startswith("replaying 2 epochs of data.train")
    assert plain.notes == []


def test_statefulness_is_read_from_the_graph() -> None:
    assert data.is_stateful(reshuffled())
    assert data.is_stateful(generated())
    assert not data.is_stateful(tf.data.Dataset.range(3).map(lambda i: i + 1).batch(2).prefetch(1))


def test_class_weights_become_sample_weights() -> None:
    order = Order(
        (X, Y),
        Feeding(batch_size=20, shuffle=False, class_weight={0: 1.0, 2: 5.0}),
        tf.distribute.get_strategy(),
    )
    _, y, weights = batches(order, 0)[0]
    assert weights == [{0: 1.0, 1: 1.0, 2: 5.0}[label] for label in y]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: iter([(X, Y)]), "data.train is a generator"),
        (lambda: None, "data.train returned None"),
        (lambda: tf.data.Dataset.range(3).repeat(), "data.train never ends: set fit.steps_per_epoch"),
        (lambda: (X, Y[:7]), r"different numbers of rows: \[7, 20\]"),
    ],
)
def test_data_that_cannot_be_resumed_is_refused(source: Any, message: str) -> None:
    order = Order(source, Feeding(), tf.distribute.get_strategy())
    with pytest.raises(UsageError, match=message):
        order.steps(0)


def test_a_stream_is_not_cut_inside_an_execution() -> None:
    order = Order(endless, Feeding(steps_per_epoch=10, steps_per_execution=4), tf.distribute.get_strategy())
    with pytest.raises(UsageError, match="steps_per_epoch=10 is no multiple of steps_per_execution=4"):
        order.begin(0, 0)
