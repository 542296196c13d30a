"""Fingerprints of tensors, computed where the tensors are: inside the compiled step, in integers, whatever the device.

A digest depends on every bit and on its place. Digests of rows tell a batch in another order from another batch.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

ROWS = 64  # rows of a batch that are told apart
_GOLDEN, _ODD, _MORE = (
    number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_AS_INTEGERS = {tf.float32: tf.int32, tf.float64: tf.int64, tf.float16: tf.int16, tf.bfloat16: tf.int16}


def digest(structure: Any) -> tf.Tensor:
    """One integer for all tensors of a structure; 0 for None."""
    total = tf.zeros([], tf.int64)
    for tensor in tensors(structure):
        bits = tf.reshape(_bits(tensor), [-1])
        total = total * _ODD + tf.reduce_sum(_mixed(bits, tf.range(tf.size(bits, out_type=tf.int64))))
    return total


def rows(structure: Any) -> tf.Tensor:
    """An integer for each of the first ROWS rows, 0 where there is none; of all tensors that have as many rows."""
    found = [tensor for tensor in tensors(structure) if tensor.shape.rank]
    if not found:
        return tf.zeros([ROWS], tf.int64)
    total = sum(_by_row(tensor) for tensor in found)
    padded = tf.concat([total, tf.zeros([ROWS], tf.int64)], axis=0)
    return tf.ensure_shape(padded[:ROWS], [ROWS])


def tensors(structure: Any) -> list[tf.Tensor]:
    flat = tf.nest.flatten(structure, expand_composites=True)
    return [tf.convert_to_tensor(item) for item in flat if item is not None]


def _by_row(tensor: tf.Tensor) -> tf.Tensor:
    bits = _bits(tensor)
    bits = tf.reshape(bits, [tf.shape(bits)[0], -1])
    return tf.reduce_sum(_mixed(bits, tf.range(tf.shape(bits, out_type=tf.int64)[1])), axis=1)[:ROWS]


def _mixed(bits: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Each value scrambled together with its place (the finisher of splitmix64); products wrap around."""
    x = tf.bitwise.bitwise_xor(bits, (index + 1) * _GOLDEN)
    for shift, factor in ((30, _ODD), (27, _MORE)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.int64))) * factor
    return x


def _bits(tensor: tf.Tensor) -> tf.Tensor:
    if tensor.dtype in _AS_INTEGERS:
        return tf.cast(tf.bitcast(tensor, _AS_INTEGERS[tensor.dtype]), tf.int64)
    if tensor.dtype == tf.string:
        return tf.strings.to_hash_bucket_fast(tensor, (1 << 62))
    if tensor.dtype.is_complex:
        return tf.cast(tf.bitcast(tensor, tf.int32 if tensor.dtype == tf.complex64 else tf.int64), tf.int64)
    return tf.cast(tensor, tf.int64)
