"""What is captured of live objects, once."""

from __future__ import annotations

import keras
from small import X, Y, classifier

from resume.engine import capture, live


def test_a_model_that_cannot_be_serialised_has_none() -> None:
    class Own(keras.Model):
        def __init__(self, given: object) -> None:
            super().__init__()

    model = Own(object())
    assert capture.model_config(model) is None
    assert capture.model_config(model) is None


def test_what_is_captured_is_a_copy() -> None:
    model = classifier()
    model.optimizer.build(model.trainable_variables)
    state = capture.capture(model, epoch=1, batch=2)
    copies = {name: live.value(v) for name, v in live.of(model).variables.items()}
    model.fit(X, Y, verbose=0)
    assert (state.epoch, state.batch) == (1, 2)
    assert all(state.arrays[name].tobytes() == copy.tobytes() for name, copy in copies.items())
