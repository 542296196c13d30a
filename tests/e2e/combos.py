"""Models and data of the end-to-end runs: small, awkward on purpose, chosen by the experiments in conf/."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def _images(rows=96, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 8, 8, 1)).astype("float32"), rng.integers(0, 3, rows)


def _tokens(rows=96, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 20, (rows, 7)), rng.integers(0, 3, rows)


def _compiled(model, optimizer, **kwargs):
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **kwargs)
    return model


# -- models ------------------------------------------------------------------------------------------------------------


def dense():
    return keras.Sequential([
        keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(12, activation="relu"), layers.BatchNormalization(),
        layers.Dropout(0.3), layers.Dense(12, activation="relu"), layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def convolutional():
    return keras.Sequential([
        keras.Input((8, 8, 1)), layers.RandomFlip("horizontal"), layers.Conv2D(4, 3), layers.BatchNormalization(),
        layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def recurrent():
    return keras.Sequential([
        keras.Input((7,)), layers.Embedding(20, 6), layers.LSTM(8, recurrent_dropout=0.1), layers.Dropout(0.2),
        layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def nested():
    block = keras.Sequential(
        [layers.Dense(8, activation="relu"), layers.Dense(8), layers.Dropout(0.1)], name="block"
    )
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(inputs)
    x = layers.Dense(8)(x)
    x = block(block(x))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(Noisy(0.05)(x)))


@keras.saving.register_keras_serializable("e2e")
class Noisy(layers.Layer):
    """Draws from a TensorFlow generator of its own, which Keras does not track."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.generator = tf.random.Generator.from_seed(5)

    def call(self, x, training=False):
        return x + self.scale * self.generator.normal(tf.shape(x)) if training else x

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


# -- data --------------------------------------------------------------------------------------------------------------


def arrays(kind="images"):
    return _images() if kind == "images" else _tokens()


def held_out(kind="images"):
    return _images(40, 7) if kind == "images" else _tokens(40, 8)


def pure(epoch, seed, kind="images", batch_size=8):
    """A function of (seed, epoch), as the documentation recommends."""
    x, y = arrays(kind)
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(96, seed=seed + 1000 * epoch)
    return data.batch(batch_size).prefetch(1)


def reshuffled(kind="images", batch_size=8):
    """One dataset for all epochs, reshuffled each time: its order has to be found again by replay."""
    x, y = arrays(kind)
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(50).batch(batch_size)


def endless(batch_size=8):
    x, y = arrays()
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(96, seed=3).repeat().batch(batch_size)


def unknown_length(kind="images"):
    def batches():
        x, y = arrays(kind)
        for i in range(0, 90, 8):
            yield x[i : i + 8], y[i : i + 8]

    x, y = arrays(kind)
    return tf.data.Dataset.from_generator(batches, output_signature=(
        tf.TensorSpec((None, *x.shape[1:]), x.dtype), tf.TensorSpec((None,), y.dtype)))  # fmt: skip


class Shuffling(keras.utils.PyDataset):
    """Shuffles itself at each epoch's end from NumPy's global generator, as many do."""

    def __init__(self, batch_size=8, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = arrays()
        self.batch_size, self.order = batch_size, np.arange(len(self.x))

    def __len__(self):
        return len(self.order) // self.batch_size

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        np.random.shuffle(self.order)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def halved(epoch, rate):
    return rate * 0.8


class Tally(keras.callbacks.Callback):
    """A user's own callback with state of several kinds, which steers the training."""

    def __init__(self):
        super().__init__()
        self.seen, self.worst, self.average = 0, -np.inf, keras.metrics.Mean()
        self.rng, self.by_epoch, self.losses = np.random.default_rng(4), {}, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        self.worst = max(self.worst, logs["loss"])
        self.average.update_state(logs["loss"])
        self.losses = [*self.losses, logs["loss"]][-5:]
        if self.seen % 7 == 0:
            factor = 1 + 0.1 * self.rng.random()
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) * factor

    def on_epoch_end(self, epoch, logs=None):
        self.by_epoch[epoch] = (self.seen, np.float32(self.worst))
        logs["tally"] = float(self.average.result()) + float(np.random.random())


class Tell(keras.callbacks.Callback):
    """Shows the outside when a validation is under way, so that a kill can hit it."""

    def __init__(self, file):
        super().__init__()
        self.file = Path(file)

    def on_test_begin(self, logs=None):
        self.file.touch()

    def on_test_end(self, logs=None):
        self.file.unlink()
