"""What has to be known of a configuration before it is rehearsed: its data, how long its epochs are, what they hold."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from omegaconf import OmegaConf

from resume.engine.data import Order, takes_epoch
from resume.engine.job import Job
from resume.engine.validation import Validation

_COUNTING = 20.0  # seconds that counting batches may take
_EPOCHS = 2  # epochs that are counted


def survey(job: Job, file: Path) -> None:
    """Write what is found as one JSON object; trains nothing, builds no model."""
    order = Order(job.train, job.feeding, job.strategy)
    value, settings = order.value(0), OmegaConf.create(job.record or "{}")
    found = {
        "kind": _kind(value),
        "takes_epoch": takes_epoch(job.train),
        "steps": order.steps(0),
        "steps_given": bool(job.feeding.steps_per_epoch),
        "block": int(OmegaConf.select(settings, "compile.steps_per_execution") or 1),
        "validates": job.validation is not None,
        "validation_steps": job.validation_args.get("validation_steps"),
        "validation_batches": _batches(job),
        "source": f"data.train ({(job.declared.get('data') or {}).get('_target_')})",
        "ends": _ends(order),
    }
    file.write_text(json.dumps(found))


def _kind(value: Any) -> str:
    if isinstance(value, tf.data.Dataset):
        return "dataset"
    return "sequence" if isinstance(value, keras.utils.PyDataset) else "arrays"


def _batches(job: Job) -> int | None:
    """Batches of a validation, where a dataset knows them."""
    value = Validation(job.validation, job.feeding.seed, job.strategy).data(0, done=0)
    return max(int(value.cardinality()), 0) if isinstance(value, tf.data.Dataset) else None


def _ends(order: Order) -> dict[str, int] | None:
    """The first epoch whose data ends before its steps are done, of data whose length only counting tells."""
    give_up = time.monotonic() + _COUNTING
    for epoch in range(_EPOCHS):
        value, steps = order.value(epoch), order.steps(epoch)
        if (
            not (takes_epoch(order.source) and isinstance(value, tf.data.Dataset))
            or int(value.cardinality()) >= 0
        ):
            return None
        count = sum(1 for _ in itertools.takewhile(lambda _: time.monotonic() < give_up, value.take(steps)))
        if count < steps and time.monotonic() < give_up:
            return {"epoch": epoch, "batches": count, "steps": steps}
    return None
