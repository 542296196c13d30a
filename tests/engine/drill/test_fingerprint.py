"""Digests of tensors: every bit and its place count, in any dtype, compiled or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from resume.engine.drill.fingerprint import ROWS, digest, rows

X = np.arange(12, dtype="float32").reshape(4, 3)


def changed(array: np.ndarray[Any, Any], index: int) -> np.ndarray[Any, Any]:
    """With the last bit of one value the other way round."""
    out = array.copy()
    out.view(np.uint8).reshape(array.size, -1)[index, 0] ^= 1
    return out


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int32", "int64", "uint8", "uint64", "complex64"]
)
def test_a_single_bit_counts(dtype: str) -> None:
    array = X.astype(dtype)
    found = {int(digest(tf.constant(changed(array, i)))) for i in range(array.size)}
    assert len(found | {int(digest(tf.constant(array)))}) == array.size + 1


def test_places_count() -> None:
    both = [int(digest(tf.constant(a))) for a in (X, X[::-1].copy())]
    assert both[0] != both[1]
    assert int(digest((tf.constant(X), tf.constant(X[:1])))) != int(
        digest((tf.constant(X[:1]), tf.constant(X)))
    )


def test_strings_booleans_and_nothing() -> None:
    assert int(digest(None)) == 0
    assert int(digest(tf.constant(["a", "b"]))) != int(digest(tf.constant(["b", "a"])))
    assert int(digest(tf.constant([True, False]))) != int(digest(tf.constant([False, True])))


def test_compiled_as_eager() -> None:
    compiled = tf.function(digest, input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    assert int(compiled(tf.constant(X))) == int(digest(tf.constant(X)))


def test_rows_are_told_apart_whatever_their_order() -> None:
    one, other = rows(tf.constant(X)).numpy(), rows(tf.constant(X[[2, 0, 3, 1]])).numpy()
    assert one.shape == (ROWS,)
    assert list(other[:4]) == list(one[[2, 0, 3, 1]])
    assert not one[4:].any()


def test_rows_of_a_structure_and_of_more_than_are_kept() -> None:
    many = np.arange(3.0 * ROWS).reshape(-1, 1)
    assert len(set(rows({"a": tf.constant(many), "b": tf.constant(many)}).numpy())) == ROWS
