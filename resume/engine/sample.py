"""What tells whether data that was made before an attempt is what it was in the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xxhash

_ROWS = 64
_ARRAYS: Any = (np.ndarray, tf.Tensor)


def of_arrays(value: Any) -> dict[str, Any] | None:
    """The number of rows, and a digest of some that are spread evenly; None for what is no structure of arrays."""
    arrays = [array for array in keras.tree.flatten(value) if array is not None]
    if not arrays or not all(isinstance(array, _ARRAYS) and len(array.shape) for array in arrays):
        return None
    rows = int(arrays[0].shape[0])
    picked = np.unique(np.linspace(0, max(rows - 1, 0), min(rows, _ROWS)).astype(np.int64))
    found = xxhash.xxh3_64()
    for array in arrays:
        sample = tf.gather(array, picked).numpy() if isinstance(array, tf.Tensor) else array[picked]
        found.update(f"{sample.dtype}{sample.shape}".encode())
        found.update(repr(sample.tolist()).encode() if sample.dtype.hasobject else sample.tobytes())
    return {"rows": rows, "sample": found.hexdigest()}


def draws_anew(dataset: tf.data.Dataset) -> bool:
    """Whether it shuffles without a seed: each process has an order of its own then."""
    shuffles = [part for part in parts(dataset) if type(part).__name__ == "_ShuffleDataset"]
    return any(not np.any(part._seed) and not np.any(part._seed2) for part in shuffles)


def parts(dataset: tf.data.Dataset) -> Iterator[Any]:
    """The dataset and all that it is made of, as objects: to write its graph copies the data that it holds."""
    todo: list[Any] = [dataset]
    while todo:
        part = todo.pop()
        yield part
        todo += part._inputs()
