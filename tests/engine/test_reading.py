"""Many variables are read by one operation, and it gives what each one's own read gives: its very buffer."""

from __future__ import annotations

import itertools
import json
import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from small import X, Y, classifier
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from resume.engine import live, reading, snapshot

KINDS: dict[str, Any] = {
    "float32": np.arange(6, dtype="float32").reshape(2, 3),
    "empty": np.zeros((0, 3), "float32"),
    "int64": np.int64(7),
    "bool": np.array([True, False]),
    "bfloat16": tf.constant([1.5, -2.0], tf.bfloat16),
    "complex": np.array([1 + 2j]),
    "text": np.array([b"a", b"bc"]),
}


class Doubled(ResourceVariable):  # type: ignore[misc]
    """Of the user's own: what it says is its value is not what TensorFlow holds."""

    def value(self) -> tf.Tensor:
        return super().value() * 2


def test_every_kind_of_variable_in_their_own_order() -> None:
    variables: dict[str, Any] = {name: tf.Variable(value) for name, value in KINDS.items()}
    variables = {"keras": keras.Variable(np.ones(3)), "own": Doubled(tf.ones(2)), **variables}
    reader = reading.Reader(variables)
    for n in (3.0, 5.0):
        found = reader.read()
        assert list(found) == list(variables)
        for name, tensor in found.items():
            alone = live.reference(variables[name])
            assert (tensor.dtype, tensor.shape) == (alone.dtype, alone.shape), name
            assert np.array_equal(tensor.numpy(), alone.numpy()), name
        assert found["own"].numpy().tolist() == [2, 2]
        variables["keras"].assign(np.full(3, n))
        assert found["keras"].numpy().tolist() != [n, n, n]  # a reference to what it was
    assert not [*reading.Reader({}).read()]


def test_they_are_the_variables_own_buffers() -> None:
    model = classifier()
    model.train_on_batch(X, Y)
    found = live.of(model).variables
    read = reading.Reader(found).read()
    for name, variable in found.items():
        assert snapshot._address(read[name]) == snapshot._address(live.reference(variable)), name


def test_where_the_operation_fails_each_is_read_by_its_own() -> None:
    one, other = tf.Variable([1.0]), tf.Variable([2.0])
    # What the one operation is told of the first is wrong, and TensorFlow refuses it.
    told = types.SimpleNamespace(handle=one.handle, dtype=tf.float16, value=one.value)
    read = reading._Together({"one": told, "other": other})
    for _ in range(2):
        assert [tensor.numpy().tolist() for tensor in read()] == [[1], [2]]


DEVICES = """
import json
import tensorflow as tf
from resume.engine import devices, reading
devices.choose("cpu", logical_cpus=2)
variables = {}
for n in range(6):
    with tf.device(f"/CPU:{n % 2}"):
        variables[str(n)] = tf.Variable([n])
print(json.dumps([[name, tensor.numpy().tolist(), tensor.device[-1]] for name, tensor in
                  reading.Reader(variables).read().items()]))
"""


def test_several_devices(python: Callable[..., subprocess.Popen[str]]) -> None:
    out, _ = python(DEVICES, Path(__file__).parent).communicate(timeout=120)
    assert json.loads(out.splitlines()[-1]) == [
        [str(n), [n], device] for n, device in zip(range(6), itertools.cycle("01"), strict=False)
    ]
