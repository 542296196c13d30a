"""What only TensorFlow can tell of this machine and this configuration: the devices, and a checkpoint's size."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import keras
import tensorflow as tf

from resume import rundir, tiers, urls
from resume.check import OK, PROBLEM, WARNING, Check
from resume.engine import build, flavour, live, loop
from resume.engine.data import Feeding, Order
from resume.settings import Settings


def backend() -> Check:
    name = keras.backend.backend()
    if name == "tensorflow":
        return Check("keras backend", OK, name)
    return Check("keras backend", PROBLEM, f"{name}, and this package trains with TensorFlow",
                 "KERAS_BACKEND=tensorflow, or backend in ~/.keras/keras.json")  # fmt: skip


def devices(kind: str) -> Check:
    """What TensorFlow sees, against what the machine has."""
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "cpu":
        return Check("devices", OK, "CPU, as devices.kind=cpu says")
    if gpus:
        names = {
            str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)) for gpu in gpus
        }
        return Check("devices", OK, f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}: {', '.join(sorted(names))}")
    cards = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if not cards:
        return Check("devices", OK, f"CPU, {os.cpu_count()} cores; no GPU in this machine")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    advice = (
        f"CUDA_VISIBLE_DEVICES={hidden} hides them"
        if hidden is not None
        else "pip install 'tensorflow[and-cuda]'"
    )
    return Check("devices", WARNING, f"{cards} GPUs in this machine, none of which TensorFlow sees", advice)


def checkpoint_bytes(settings: Settings) -> int:
    """What a checkpoint will hold, by the model built as an attempt builds it: variables, slots, seeds, metrics.

    Raises what the attempt would raise.
    """
    custom = build.custom_objects(settings.custom_objects)
    ckpt = urls.absolute(settings.ckpt) if settings.ckpt else None
    with flavour.custom_objects(custom), contextlib.ExitStack() as kept:
        state = rundir.read(kept.enter_context(tiers.local_copy(ckpt, newest=True))) if ckpt else None
        model = build.model_builder(settings, custom)(state).model
        source = (
            None
            if settings.data.train is None
            else build.node(settings.data.train, "data.train", partial=True)
        )
        feeding = Feeding(settings.seed, settings.fit.batch_size, settings.fit.steps_per_epoch)
        loop.complete(model, Order(source, feeding, tf.distribute.get_strategy()).spec(0))
        return live.nbytes(model)
