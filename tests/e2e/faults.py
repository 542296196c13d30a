"""One fault each: what users write, and what does not come back when their run is resumed."""

import itertools
import os
import random
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers

_BATCH, _ROWS = 8, 48


def _arrays(rows=_ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 6)).astype("float32"), rng.integers(0, 3, rows).astype("int32")


def _batches(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(_BATCH)


# -- without a fault ---------------------------------------------------------------------------------------------------


def model(middle=None):
    inner = [middle] if middle is not None else []
    return keras.Sequential([
        keras.Input((6,)), layers.Dense(5, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.2), *inner,
        layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def pure(epoch, seed):
    x, y = _arrays()
    order = np.random.default_rng((seed, epoch)).permutation(len(x))
    return _batches(x[order], y[order])


def held_out():
    return _batches(*_arrays(16, 7))


# -- data --------------------------------------------------------------------------------------------------------------


def unseeded(epoch):
    x, y = _arrays()
    order = np.random.default_rng().permutation(len(x))
    return _batches(x[order], y[order])


def by_hash(epoch):
    """Files by class, say, in the order in which a set has them."""
    x, y = _arrays()
    names = list({f"file-{i}" for i in range(len(x))})
    order = [int(name[5:]) for name in names]
    return _batches(x[order], y[order])


def jittered(epoch, seed):
    """Python's global generator, drawn from while the batches are read."""
    x, y = _arrays()

    def rows():
        for i in range(0, len(x), _BATCH):
            yield x[i : i + _BATCH] * random.uniform(0.9, 1.1), y[i : i + _BATCH]

    return tf.data.Dataset.from_generator(rows, output_signature=(
        tf.TensorSpec((None, 6), tf.float32), tf.TensorSpec((None,), tf.int32))).apply(
        tf.data.experimental.assert_cardinality(_ROWS // _BATCH))  # fmt: skip


class Drawing(keras.utils.PyDataset):
    """Augments with a generator of its own: batch 3 depends on how many were read before it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = _arrays()
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return _ROWS // _BATCH

    def __getitem__(self, index):
        rows = slice(index * _BATCH, (index + 1) * _BATCH)
        return self.x[rows] + self.rng.normal(0, 0.1, (_BATCH, 6)).astype("float32"), self.y[rows]


class Sampling(keras.utils.PyDataset):
    """Picks its rows anew for every batch: the same rows in another order after a resume."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = _arrays()
        self.rng = random.Random(0)

    def __len__(self):
        return _ROWS // _BATCH

    def __getitem__(self, index):
        rows = self.rng.sample(range(_ROWS), _BATCH)
        return self.x[rows], self.y[rows]


def read_once():
    """An iterator that is empty when the second epoch asks for it."""
    x, y = _arrays()
    pairs = iter([(x[i : i + _BATCH], y[i : i + _BATCH]) for i in range(0, _ROWS, _BATCH)])
    return tf.data.Dataset.from_generator(lambda: pairs, output_signature=(
        tf.TensorSpec((None, 6), tf.float32), tf.TensorSpec((None,), tf.int32))).apply(
        tf.data.experimental.assert_cardinality(_ROWS // _BATCH))  # fmt: skip


def short(epoch):
    """Has six batches, and does not know it."""
    data = pure(epoch, 0)
    return data.filter(lambda x, y: True)


# -- model -------------------------------------------------------------------------------------------------------------


class Counting(layers.Layer):
    """Fades in by a Python counter."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = 0

    def call(self, x, training=False):
        if training:
            self.calls += 1
        return x * (1.0 - 0.5 / (1 + self.calls))


def counting():
    return model(Counting(name="fade"))


class Noise(layers.Layer):
    """Draws with an operation whose counter nobody can save."""

    def call(self, x, training=False):
        return x + tf.random.normal(tf.shape(x), stddev=0.1) if training else x


def noisy():
    return model(Noise(name="noise"))


class Clocked(layers.Layer):
    """Python inside the step that gives other bits each time."""

    def call(self, x, training=False):
        drawn = tf.ensure_shape(tf.py_function(lambda: np.float32(time.time() % 1), [], tf.float32), ())
        return x + 1e-3 * drawn if training else x


def clocked():
    return model(Clocked(name="clocked"))


class Racing(layers.Layer):
    """Python inside the step, whose result depends on the process."""

    def call(self, x, training=False):
        found = tf.py_function(lambda: np.float32(os.getppid() % 997), [], tf.float32)
        return x + 1e-4 * tf.ensure_shape(found, ()) if training else x


def racing():
    return model(Racing(name="racing"))


class Warming(keras.losses.Loss):
    """Weighs itself by how often it was called."""

    def __init__(self, name="warming", **kwargs):
        super().__init__(name=name, **kwargs)
        self.seen = 0

    def call(self, y_true, y_pred):
        self.seen += 1
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred) * (1.0 - 1.0 / (2 + self.seen))


class Best(keras.metrics.Metric):
    """The best mean so far, in a Python number."""

    def __init__(self, name="best", **kwargs):
        super().__init__(name=name, **kwargs)
        self.sure = self.add_variable((), initializer="zeros", name="sure")
        self.highest = 0.0

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sure.assign(keras.ops.mean(keras.ops.max(y_pred, axis=-1)))
        self.highest = self.highest * 0.5 + float(self.sure)

    def result(self):
        return keras.ops.convert_to_tensor(self.highest, "float32")

    def reset_state(self):
        self.sure.assign(0.0)


class Counted(keras.optimizers.schedules.LearningRateSchedule):
    """Counts its own calls instead of using the step."""

    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 0.01 / (1 + 0.1 * self.calls)

    def get_config(self):
        return {}


# -- callbacks ---------------------------------------------------------------------------------------------------------

_ROUNDS = itertools.count()


class Decay(keras.callbacks.Callback):
    """Its count is a module's: no attribute, no checkpoint."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.optimizer.learning_rate = 0.01 / (1 + 0.2 * next(_ROUNDS))


class Compiling(keras.callbacks.Callback):
    """Sets the rate by compiling: a new optimizer in every attempt."""

    def on_train_begin(self, logs=None):
        self.model.compile(
            keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )


class Unfreezing(keras.callbacks.Callback):
    """Compiles again after the first epoch, as fine-tuning guides do."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.model.compile(
                keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
            )


class Scale(keras.callbacks.Callback):
    """Sets the loss scale once, and remembers that where nothing is kept."""

    def on_train_batch_begin(self, batch, logs=None):
        if not hasattr(self.model, "scaled"):
            self.model.scaled = True
            self.model.optimizer.dynamic_scale.assign(2.0**10 if batch == 0 else 2.0**8)


def stepper():
    """A closure counts."""
    count = [0]

    def slower(batch, logs=None):
        count[0] += 1
        if slower.callback.model is not None:
            slower.callback.model.optimizer.learning_rate = 0.01 / (1 + 0.2 * count[0])

    slower.callback = keras.callbacks.LambdaCallback(on_train_batch_end=slower)
    return slower.callback


class Extra(keras.callbacks.Callback):
    """Adds a number to the logs from a generator."""

    def __init__(self):
        super().__init__()
        self.numbers = (n / 8 for n in itertools.count())

    def on_epoch_end(self, epoch, logs=None):
        logs["extra"] = next(self.numbers)
