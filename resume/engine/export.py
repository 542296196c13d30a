"""The finished model: averaged or best weights are in no checkpoint, as training could not go on from them."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import keras

from resume.engine import flavour
from resume.rundir import Directory


def export(model: keras.Model, directory: Directory, *, say: Callable[[str], None]) -> None:
    """`model.keras` in the run directory, `model.h5` of tf_keras; says so where Keras cannot save this model."""
    # tf_keras leaves a legacy optimizer's state out of `.keras`, and nothing out of `.h5`.
    target = directory.path / ("model.keras" if flavour.of(model) == flavour.KERAS else "model.h5")
    begun = target.with_name(f".unfinished-{uuid.uuid4().hex}{target.suffix}")  # no two write one file
    try:
        model.save(begun)
        with directory.guard():
            begun.replace(target)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        say(f"{target}: not written, Keras cannot save this model ({type(error).__name__}: {error})")
    finally:
        begun.unlink(missing_ok=True)
