"""What `fit` would do as each of its calls begins and ends, and must not: one call is one epoch here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from resume.engine import flavour


@contextlib.contextmanager
def averages_held_back(optimizer: Any) -> Iterator[None]:
    """Keep `fit` from overwriting the weights with their averages at the end of every epoch."""
    if not hasattr(optimizer, "finalize_variable_values"):
        yield
        return
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


@contextlib.contextmanager
def built_already(model: keras.Model) -> Iterator[None]:
    """Under a strategy, `fit` draws a batch just to build the model, which is built: that batch would be lost."""
    if flavour.of(model) == flavour.TF_KERAS:  # which draws none
        yield
        return
    object.__setattr__(model, "_maybe_symbolic_build", lambda iterator=None, data_batch=None: None)
    try:
        yield
    finally:
        object.__delattr__(model, "_maybe_symbolic_build")
