"""Settings -> Job: the one place where the configuration's keys meet the engine's arguments."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from resume import urls
from resume.engine import build, devices, flavour
from resume.engine.data import Feeding
from resume.engine.job import Job
from resume.engine.loop import train
from resume.preempt import Watch
from resume.rundir import Best, Retention
from resume.schedule import Schedule
from resume.settings import Settings


def run(settings: Settings, *, record: str, watch: Watch, act: Callable[[Job], object] | None = None) -> None:
    """Train as the settings say. `record`: the resolved configuration as text, kept in the run directory.

    `act`: what is done with the job instead of training it; a drill traces it, or looks at its data.
    """
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    if settings.deterministic:
        keras.utils.set_random_seed(settings.seed)
        tf.config.experimental.enable_op_determinism()
    chosen = devices.choose(
        settings.devices.kind,
        logical_cpus=settings.devices.logical_cpus,
        memory_growth=settings.devices.memory_growth,
    )
    print(f"devices: {chosen.description}")
    keras.utils.clear_session()  # names must not depend on what was built before; outside any strategy's scope
    custom = build.custom_objects(settings.custom_objects)
    with flavour.custom_objects(custom):
        (act or train)(_job(settings, custom, chosen, record, watch))


def _job(
    settings: Settings, custom: dict[str, Any], chosen: devices.Devices, record: str, watch: Watch
) -> Job:
    fit, checkpoint = settings.fit, settings.checkpoint
    run_dir, remote = urls.placed(settings.run_dir, local=checkpoint.local)
    return Job(
        run_dir=run_dir,
        remote=remote,
        build=build.model_builder(settings, custom),
        train=_function(settings.data.train, "data.train"),
        validation=_function(settings.data.validation, "data.validation"),
        callbacks=lambda born: build.callbacks(settings.callbacks, born),
        flavour=settings.flavour,
        epochs=fit.epochs,
        verbose=_verbosity(fit.verbose),
        validation_args={
            "validation_steps": fit.validation_steps,
            "validation_freq": fit.validation_freq,
            "validation_batch_size": fit.validation_batch_size or fit.batch_size,
        },
        feeding=Feeding(settings.seed, fit.batch_size, fit.steps_per_epoch, fit.shuffle, fit.class_weight),
        schedule=Schedule(
            checkpoint.every_steps, checkpoint.every_minutes, checkpoint.every_epochs, checkpoint.at_end
        ),
        retention=Retention(
            checkpoint.keep_last, checkpoint.keep_every_steps, Best.named(checkpoint.keep_best)
        ),
        when_busy=checkpoint.when_busy,
        on_failure=checkpoint.on_failure,
        background=checkpoint.background,
        ckpt=urls.absolute(settings.ckpt) if settings.ckpt else None,
        accept=tuple(checkpoint.accept),
        prefer=checkpoint.prefer,
        declared={"data": settings.data.train},
        record=record,
        strategy=chosen.strategy,
        devices=chosen.description,
        watch=watch,
        wait=settings.cluster.wait,
        stale=settings.cluster.stale,
        fruitless=settings.cluster.fruitless,
    )


def _function(node: Any, name: str) -> Any:
    """The data function that a node describes, not yet called: it may take `epoch` and `seed`."""
    return None if node is None else build.node(node, name, partial=True)


def _verbosity(verbose: Any) -> int:
    """Keras's "auto", but one line an epoch where nobody watches a progress bar."""
    return int(verbose) if verbose != "auto" else 1 if sys.stdout.isatty() else 2
