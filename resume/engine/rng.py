"""Random number generators outside the layers: Python's, NumPy's, TensorFlow's and Keras's global ones."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from resume.engine import flavour


def seed_everything(seed: int) -> None:
    """Every generator to a function of `seed`; the same at the start of each attempt."""
    seed_libraries(seed)
    tf.random.set_global_generator(tf.random.Generator.from_seed(seed))


def seed_libraries(seed: int) -> None:
    """Python, NumPy, TensorFlow, and what each Keras draws the seeds of new layers from."""
    for library in flavour.imported():
        library.utils.set_random_seed(seed)


@contextlib.contextmanager
def drawn_from(seed: int, *labels: int) -> Iterator[None]:
    """Within: the process's generators are a pure function of (seed, labels). After: as they were before.

    TensorFlow's operation seeds are a counter that cannot be read, so it is set to `seed` again: the same after every
    use, whatever was drawn within.
    """
    python, numpy = random.getstate(), np.random.get_state()
    mixed = int(np.random.SeedSequence([seed, *labels]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    tf.random.set_seed(mixed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        tf.random.set_seed(seed)


def variables() -> dict[str, Any]:
    """The global generators whose state is a variable: rng/tensorflow, and rng/keras once anything has used it."""
    found: dict[str, Any] = {"rng/tensorflow": tf.random.get_global_generator().state}
    generator = global_state.get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR)
    if generator is not None:
        found["rng/keras"] = generator.state
    return found


def state() -> dict[str, Any]:
    """Python's and NumPy's global generators as plain values."""
    return noted()()


def noted() -> Callable[[], dict[str, Any]]:
    """Their `state` now, to be worked out later: Python's has 625 words, which takes longer than to note it."""
    (version, internal, gauss), numpy = random.getstate(), np.random.get_state(legacy=True)
    return lambda: {"python": (version, np.array(internal, np.uint32), gauss), "numpy": numpy}


def restore(saved: Mapping[str, Any]) -> None:
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(int(word) for word in internal), gauss))
    np.random.set_state(saved["numpy"])
