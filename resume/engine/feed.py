"""How a prepared iterator is handed to `fit`: as one epoch, from some batch on, never iterated twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from resume.engine import flavour


class Lazy:
    """An iterator that is made when it is first asked for."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class Batches(tf.distribute.DistributedDataset):  # type: ignore[misc]
    """One prepared iterator, in the shape of a dataset; the type keeps Keras from distributing it once more."""

    def __init__(self, iterator: Any, spec: Any) -> None:
        self._iterator, self._spec = iterator, spec

    def __iter__(self) -> Any:
        if isinstance(self._iterator, Lazy):
            self._iterator = self._iterator.make()
        return self._iterator

    @property
    def element_spec(self) -> Any:
        return self._spec


class Adapter(DataAdapter):  # type: ignore[misc]
    """What `fit` takes as its data. `inner`: the adapter whose workers have to be started and stopped."""

    def __init__(self, batches: Batches, steps: int, *, inner: PyDatasetAdapter | None = None) -> None:
        self._batches, self._steps, self._inner = batches, steps, inner

    def get_tf_dataset(self) -> Any:
        return self._batches

    @property
    def num_batches(self) -> int:
        return self._steps

    @property
    def batch_size(self) -> None:
        return None

    @property
    def has_partial_batch(self) -> None:
        return None

    @property
    def partial_batch_size(self) -> None:
        return None

    def on_epoch_begin(self) -> None:
        if self._inner is not None:
            self._inner.on_epoch_begin()

    def on_epoch_end(self) -> None:
        if self._inner is not None:
            self._inner.on_epoch_end()


@contextlib.contextmanager
def handed(adapter: Adapter, born: str) -> Iterator[dict[str, Any]]:
    """The data arguments of one epoch's `fit`: Keras 3 takes an adapter, tf_keras a distributed dataset and its length.

    tf_keras asks a distributed dataset for one iterator and never for a second: what `Batches` is there for.
    """
    if born == flavour.KERAS:
        yield {"x": adapter}
        return
    adapter.on_epoch_begin()
    try:
        yield {"x": adapter.get_tf_dataset(), "steps_per_epoch": adapter.num_batches}
    finally:
        adapter.on_epoch_end()


def validation_arguments(data: Any, born: str) -> dict[str, Any]:
    """The validation arguments of `fit`; of an adapter, tf_keras takes what is in it."""
    if born == flavour.TF_KERAS and isinstance(data, Adapter):
        return {"validation_data": data.get_tf_dataset(), "validation_steps": data.num_batches}
    return {"validation_data": data}


class Sequenced(keras.utils.PyDataset):  # type: ignore[misc]
    """A Sequence of tf_keras as the PyDataset that Keras 3 has made of it."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]

    def on_epoch_end(self) -> None:
        self.inner.on_epoch_end()


class Window(keras.utils.PyDataset):  # type: ignore[misc]
    """Some batches of a PyDataset, in a given order; its epoch hooks are ours to call, not Keras's."""

    def __init__(self, inner: keras.utils.PyDataset, order: np.ndarray[Any, Any]) -> None:
        super().__init__(
            workers=inner.workers,
            use_multiprocessing=inner.use_multiprocessing,
            max_queue_size=inner.max_queue_size,
        )
        self._inner, self._order = inner, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Any:
        return self._inner[int(self._order[index])]
