"""One attempt: what to resume from, in order; restore; prove; then train (resume.engine.attempt)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from resume import drift, lineage, lock, rundir, tiers
from resume.continuity import Finding
from resume.engine import capture, declaring, flavour, keras2, live, remote, restore, revival, rng
from resume.engine.attempt import Attempt
from resume.engine.data import Order
from resume.engine.job import Built, Job, Origin, Outcome
from resume.errors import UsageError
from resume.formats import native, trust
from resume.formats.trust import Trust
from resume.state import TrainState


def choose(run_dir: Path, ckpt: str | None, kept: contextlib.ExitStack) -> Origin:
    """What to resume from; the order is the contract.

    1. The run directory's newest whole checkpoint, always: `ckpt` then only says where the run began.
    2. `ckpt`.
    3. Fresh, if neither exists. Checkpoints of which none is whole are an error, never a silent restart.

    `kept`: for how long a copy of a source behind a URL is kept.
    """
    _same_beginning(run_dir, ckpt)
    checkpoint, passed = rundir.newest_whole(run_dir)
    if checkpoint is not None:
        state = rundir.read(checkpoint.path)
        facts = lineage.identity(run_dir, checkpoint.path, native.read_manifest(checkpoint.path))
        return Origin("run", state, facts, tuple(passed))
    if ckpt is not None:
        state = rundir.read(kept.enter_context(tiers.local_copy(ckpt, newest=True)))
        return Origin("source", state, {"path": ckpt, "step": state.iterations})
    return Origin("fresh")


def _same_beginning(run_dir: Path, ckpt: str | None) -> None:
    starts = lineage.attempts(lineage.read(run_dir))
    if ckpt is None or not starts or not rundir.checkpoints(run_dir):
        return
    began = starts[0].get("ckpt")
    if began != ckpt:
        raise UsageError(
            f"{run_dir}: this run began {f'with ckpt={began}' if began else 'without a ckpt'}, today's command says "
            f"ckpt={ckpt}. Use another run_dir (or name) for another beginning."
        )


def train(job: Job) -> Outcome:
    """Run one attempt to the end. Raises a ResumeError, with nothing trained or written, for what cannot be resumed."""
    # None: the run was begun by another process while this one prepared a fresh start, which is of no use any more.
    return _attempt(job) or train(job)


def _attempt(job: Job) -> Outcome | None:
    with contextlib.ExitStack() as held:
        exists = job.run_dir.is_dir() or job.remote is not None  # which is asked only under the lock
        claim = held.enter_context(_lock(job)) if exists else None
        tier = held.enter_context(remote.tier(job))
        lineage.demand_progress(job.run_dir, most=job.fruitless)
        started = time.perf_counter()
        origin = choose(job.run_dir, job.ckpt, held)
        origin = replace(origin, passed_over=(*origin.passed_over, *tier.passed))
        rng.seed_everything(job.feeding.seed)
        with job.strategy.scope():
            attempt = _prepare(job, origin)
            claim = claim or _claim(job, held)
            seconds = time.perf_counter() - started
            return attempt.run(claim, tier, restore_seconds=seconds) if claim else None


def _lock(job: Job) -> contextlib.AbstractContextManager[lock.Claim]:
    job.run_dir.mkdir(parents=True, exist_ok=True)
    return lock.held(job.run_dir, wait=job.wait, stale=job.stale, job=job.watch.cluster.job)


def _claim(job: Job, held: contextlib.ExitStack) -> lock.Claim | None:
    """Only now, with everything proven, does a new run get its directory. None where it is no new run any more."""
    claim = held.enter_context(_lock(job))
    return None if lineage.read(job.run_dir) else claim


def _prepare(job: Job, origin: Origin) -> Attempt:
    """Build, restore, prove. Touches no file."""
    built = job.build(origin.state)
    model = built.model
    block = int(getattr(model, "steps_per_execution", 1) or 1)
    order = Order(job.train, replace(job.feeding, steps_per_execution=block), job.strategy)
    spec = order.spec(origin.epoch)
    complete(model, spec)
    live.demand_storable(model)
    declared = declaring.of(job, model, order, spec, epoch=origin.epoch)
    findings = _drift(origin, declared, built, fresh_optimizer="optimizer" in job.accept)
    if origin.kind == "run" and restore.fresh_optimizer(model, origin.state, accept=job.accept):
        raise UsageError(
            f"{origin.name}: a fresh optimizer counts its steps from 0, which this run has behind it. Begin another "
            f"run there:\n  +ckpt={origin.name} run_dir=ANOTHER"
        )
    if origin.state is not None:
        restore.demand_optimizer(origin.state, accept=job.accept)
        drift.demand(findings, prefer=job.prefer, source=origin.name)
    rate = _rate(model)
    if origin.state is not None:
        restore.build_beside(model, origin.state)
        restore.demand_sound(model, origin.state, accept=job.accept)
    absent = built.unheld
    proof = restore.restore(model, origin.state, accept=job.accept, absent=absent) if origin.state else None
    if proof is not None:
        proof.demand(source=origin.name)
    for line in _changed_meanwhile(origin, declared["layers"], findings):
        job.say(f"changed during the training, and not put back: {line}")
    wins = job.prefer == "config" and any(f.name.startswith("optimizer.") for f in findings)
    if job.prefer == "checkpoint":
        declared |= {
            part: _saved_declaration(origin)[part] for part in {f.name.split(".")[0] for f in findings}
        }
    return Attempt(job, origin, model, order, declared, proof, drift.lines(findings), rate if wins else None)


def complete(model: keras.Model, spec: Any) -> None:
    """Create every variable that training will use (model, metrics, optimizer), from the shape of one batch."""
    try:
        if flavour.of(model) == flavour.TF_KERAS:
            keras2.complete(model, spec, tf.distribute.get_strategy())
        else:
            model._symbolic_build(data_batch=spec)
    except (RuntimeError, TypeError, ValueError) as error:
        if not model.built:
            raise UsageError(
                f"the model cannot be built from a batch of data.train ({spec}): {error}"
            ) from error
        # A model with a training step of its own, and without a call().
        build_optimizer(model)
        _trace(model, spec)


def _trace(model: keras.Model, spec: Any) -> None:
    """Run through the training step's code, computing nothing: what it makes the first time (metrics) is made then.

    Where it does not work like this, the first step makes what it makes, and what a checkpoint has of it is missed.
    """
    if flavour.of(model) == flavour.KERAS and tf.distribute.get_strategy().num_replicas_in_sync == 1:
        with contextlib.suppress(Exception):
            tf.function(model.train_step).get_concrete_function(spec)


def build_optimizer(model: Any) -> None:
    """Create the slots of everything that the model trains."""
    if flavour.of(model) == flavour.TF_KERAS:
        keras2.build_optimizer(model.optimizer, model.trainable_variables)
    elif not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _drift(
    origin: Origin, declared: Mapping[str, Any], built: Built, *, fresh_optimizer: bool
) -> list[Finding]:
    state = origin.state
    if state is None:
        return []
    saved = _saved_declaration(origin)
    own = dict.fromkeys(declaring.OF_THE_MODEL, built.model_from_source)
    own |= {"optimizer": built.optimizer_from_source or fresh_optimizer}
    today = {part: item for part, item in declared.items() if not own.get(part)}
    return drift.compare(saved, today)


def _changed_meanwhile(
    origin: Origin, layers: Mapping[str, Any] | None, findings: Sequence[Finding]
) -> list[str]:
    """Settings of layers that were others when the checkpoint was written, by a callback's doing (`trainable`, a rate).

    `layers`: as they are declared today. Whether such a change had any effect depends on what was traced before it: the
    callback has to make it again.
    """
    if origin.kind != "run" or origin.state is None or any(f.name.startswith("layers.") for f in findings):
        return []
    then = drift.layers(origin.state.model_config)
    return drift.lines(drift.compare({"layers": then}, {"layers": layers}) if then else [])


def _saved_declaration(origin: Origin) -> dict[str, Any]:
    """What the checkpoint says it was made with; for a foreign file, what its own config says."""
    state = origin.state
    if state is None:
        return {}
    declared: dict[str, Any] | None = capture.section(state, "declared")
    return _of_source(state) if declared is None else declared


def _of_source(state: TrainState) -> dict[str, Any]:
    if state.flavour == flavour.TF_KERAS:
        return _respelled(state)
    info = state.optimizer
    return {
        "optimizer": drift.optimizer(info.inner.class_name, info.inner.config) if info else None,
        "layers": drift.layers(state.model_config) or None,
    }


def _respelled(state: TrainState) -> dict[str, Any]:
    """A source of Keras 2 as tf_keras writes it today: every version spelled its layers otherwise.

    A part that cannot be built from the source alone is not compared; what nobody vouches for is not built.
    """
    found: dict[str, Any] = {}
    try:
        trust.demand(state, Trust(trust.NONE))
    except UsageError:
        return found
    with contextlib.suppress(Exception):
        found["layers"] = drift.layers(capture.model_config(revival.model(state, {}))) or None
    with contextlib.suppress(Exception):
        info = capture.optimizer_info(revival.optimizer(state.optimizer)) if state.optimizer else None
        found["optimizer"] = drift.optimizer(info.inner.class_name, info.inner.config) if info else None
    return found


def _rate(model: keras.Model) -> float | None:
    """The learning rate as configured, where it is a plain number."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = getattr(inner, "_learning_rate", None)
    if flavour.of(inner) == flavour.TF_KERAS and keras2.is_legacy(inner):
        rate = getattr(inner, "_hyper", {}).get("learning_rate")
    return float(rate.numpy()) if isinstance(rate, keras.Variable | tf.Variable) else None
