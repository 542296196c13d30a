"""What tells whether data that was made before an attempt is what it was in the one before."""

from __future__ import annotations

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
    graph = tf.compat.v1.GraphDef.FromString(graph_of(dataset).numpy())
    constants = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    for node in graph.node:
        if node.op.startswith("ShuffleDataset"):
            seeds = [constants.get(name.partition(":")[0]) for name in node.input[2:4]]
            if all(seed is not None and not tf.make_ndarray(seed).any() for seed in seeds):
                return True
    return False


def graph_of(dataset: tf.data.Dataset) -> tf.Tensor:
    """A GraphDef, serialised."""
    return tf.raw_ops.DatasetToGraphV2(
        input_dataset=tf.data.experimental.to_variant(dataset),
        external_state_policy=1,
        strip_device_assignment=True,
    )
