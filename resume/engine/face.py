"""The Python face: `resume.load` and `resume.fit`, for notebooks and scripts without our configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from resume import clusters, preempt, rundir, urls
from resume.continuity import Proof
from resume.engine import build, loop, restore, sample, trusted
from resume.engine import flavour as flavours
from resume.engine.data import Feeding
from resume.engine.job import Built, Job
from resume.errors import UsageError
from resume.formats.trust import Trust
from resume.preempt import Watch
from resume.rundir import Best, Retention
from resume.schedule import Schedule
from resume.settings import ClusterSettings


def load(
    path: str | os.PathLike[str],
    *,
    custom_objects: Mapping[str, Any] | None = None,
    model: Any = None,
    accept: Sequence[str] = (),
    flavour: str = "auto",
    trust: str = "config",
    trusted_modules: Sequence[str] = (),
) -> tuple[Any, Proof]:
    """A live, compiled model with its optimizer's state, and the proof that every array is the source's.

    `model`: a compiled model to restore into, where the source holds no architecture. `accept`: names that may start
    fresh. `flavour`: "auto" gives the model of the Keras that the source was born in (a keras.Model or a
    tf_keras.Model). `trust`: what the source may bring to life, "none", "config" or "code" (resume.formats.trust).

    Raises SourceError for a source that cannot be read, ContinuityError when the restored state differs; a `model` that
    was given holds part of the source then.

        model, proof = resume.load("run42.h5")
        assert proof.verdict != "broken" and proof.iterations_restored == 1200
    """
    state, custom = rundir.read(path), dict(custom_objects or {})
    born = flavours.of(model) if model is not None else flavours.chosen(flavour, state)
    flavours.library(born)
    absent: tuple[str, ...] = ()
    allowed = trusted.here(Trust(trust, tuple(trusted_modules), frozenset(custom)))
    custom = trusted.objects(state, custom, allowed)
    with flavours.custom_objects(custom):
        if model is None:
            model = build.model_of(state, custom, born=born, allowed=allowed)
            if state.optimizer is not None or not flavours.is_compiled(model):
                absent = build.compile_model(model, {}, state, allowed=allowed).unheld
    restore.demand_optimizer(state, accept=accept)
    if not model.built:
        raise UsageError("the model is not built: call it on a batch, or give its input shape.")
    if getattr(model, "optimizer", None) is not None:
        loop.build_optimizer(model)
    restore.build_beside(model, state)
    restore.demand_sound(model, state, accept=accept)
    proof = restore.restore(model, state, accept=accept, absent=absent, position=False)
    proof.demand(source=str(path))
    return model, proof


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    run_dir: str | os.PathLike[str],
    local: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: Any = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: Any = 1,
    ckpt: str | os.PathLike[str] | None = None,
    seed: int = 0,
    every_steps: int | None = None,
    every_minutes: float | None = 10,
    every_epochs: int | None = 1,
    keep_last: int = 2,
    keep_every_steps: int | None = None,
    keep_best: str | None = None,
    when_busy: str = "wait",
    on_failure: str = "stop",
    background: bool | None = None,
    accept: Sequence[str] = (),
    prefer: str | None = None,
    cluster: str = "auto",
    wait: float = 0.0,
    fruitless: int | None = 3,
) -> keras.callbacks.History:
    """Keras's `fit`, that cannot be lost: run the same script again after any kill, and it continues.

    Arguments up to `validation_freq` are Keras's own. `x` may also be a function of (epoch, seed) that returns an
    epoch's data; so may `validation_data`. `epochs` counts all attempts together. The random generators of the process
    are set from `seed`. When a signal says so (resume.clusters), the step in flight ends, the state is published and
    SystemExit is raised with the cluster's code, for Ctrl-C KeyboardInterrupt. Returns the History of the whole run;
    its attribute `proof` is this attempt's (None when it began fresh). Raises ContinuityError, with nothing trained,
    when what was restored is not what was saved. `wait`: seconds for another process to leave the run. `fruitless`:
    attempts in a row that may end without a new checkpoint, None for any number.

    `run_dir` may be a URL (s3://bucket/runs/a): `local` is then the folder for its tier on this machine, in $TMPDIR or
    the user's cache where it is not given.

        history = resume.fit(model, x, y, run_dir="runs/a", epochs=10, every_steps=100)
    """
    train, validation = _split((x, y, sample_weight), validation_split, validation_data)
    _demand("when_busy", when_busy, ("wait", "skip"))
    _demand("on_failure", on_failure, ("stop", "warn"))
    watch = Watch(clusters.of(ClusterSettings(kind=cluster)), guest=True)
    place, remote = urls.placed(os.fspath(run_dir), local=os.fspath(local) if local else None)
    job = Job(
        run_dir=place,
        remote=remote,
        build=lambda state: Built(model),
        train=train,
        validation=validation,
        callbacks=lambda born: _named(keras.tree.flatten(callbacks or [])),
        epochs=epochs,
        verbose=1 if verbose == "auto" else int(verbose),
        validation_args={
            "validation_steps": validation_steps,
            "validation_freq": validation_freq,
            "validation_batch_size": validation_batch_size or batch_size,
        },
        feeding=Feeding(int(seed), batch_size, steps_per_epoch, shuffle, class_weight),
        schedule=Schedule(every_steps, every_minutes, every_epochs),
        retention=Retention(keep_last, keep_every_steps, Best.named(keep_best)),
        when_busy=when_busy,
        on_failure=on_failure,
        background=background,
        ckpt=urls.absolute(os.fspath(ckpt)) if ckpt is not None else None,
        accept=tuple(accept),
        prefer=prefer,
        declared={"arrays": sample.of_arrays(train)},
        wait=wait,
        fruitless=fruitless,
        strategy=model.distribute_strategy,
        watch=watch,
    )
    with watch:
        outcome = preempt.obeyed(watch, lambda: loop.train(job))
    outcome.history.proof = outcome.proof
    return outcome.history


def _demand(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UsageError(f"{name}: {given!r} is none of {', '.join(known)}.")


def _named(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, keras.callbacks.Callback]:
    """By class, counted: the same for the same list, and untouched by a new callback of another class."""
    counts: dict[str, int] = {}
    out = {}
    for callback in callbacks:
        kind = type(callback).__name__
        counts[kind] = counts.get(kind, 0) + 1
        out[kind if counts[kind] == 1 else f"{kind}~{counts[kind]}"] = callback
    return out


def _split(given: tuple[Any, Any, Any], share: float, validation: Any) -> tuple[Any, Any]:
    """(train, validation) data; the last `share` of the rows of arrays is for validation, as in Keras."""
    x, y, weight = given
    if y is None and weight is None:
        if share and validation is None:
            raise UsageError("validation_split needs arrays x and y; give validation_data.")
        return x, validation
    arrays = (x, y) if weight is None else (x, y, weight)
    if not share or validation is not None:
        return arrays, validation
    rows = len(keras.tree.flatten(x)[0])
    cut = int(rows * (1.0 - share))
    if not 0 < cut < rows:
        raise UsageError(f"validation_split={share} leaves no rows on one side ({rows} rows).")
    return (
        keras.tree.map_structure(lambda a: a[:cut], arrays),
        keras.tree.map_structure(lambda a: a[cut:], arrays),
    )
