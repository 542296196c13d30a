"""Global generators: the same draws after a restore, and none disturbed by the data."""

from __future__ import annotations

import random

import keras
import numpy as np
import tensorflow as tf

from resume.engine import live, rng


def draws() -> list[float]:
    generator = tf.random.get_global_generator()
    return [
        random.random(),
        float(np.random.random()),
        float(generator.normal(())),
        float(keras.random.normal(())),
    ]


def test_restored_generators_draw_the_same() -> None:
    rng.seed_everything(3)
    draws()
    plain, variables = rng.state(), {n: live.value(v) for n, v in rng.variables().items()}
    assert sorted(variables) == ["rng/keras", "rng/tensorflow"]
    expected = draws()
    draws()
    rng.restore(plain)
    for name, variable in rng.variables().items():
        variable.assign(variables[name])
    assert draws() == expected


def test_data_draws_from_its_own_seed_and_disturbs_nothing() -> None:
    rng.seed_everything(3)
    expected = [random.random(), float(np.random.random())]
    rng.seed_everything(3)
    with rng.drawn_from(3, 1, 7):
        inside = [random.random(), float(np.random.random()), float(tf.random.uniform(()))]
    assert [random.random(), float(np.random.random())] == expected
    with rng.drawn_from(3, 1, 7):
        assert [random.random(), float(np.random.random()), float(tf.random.uniform(()))] == inside
    with rng.drawn_from(3, 1, 8):
        assert random.random() != inside[0]
