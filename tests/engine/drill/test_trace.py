"""What the tracing callback writes of a real training, and that the training does not notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from small import BreakAt, BrokenError, X, Y, classifier

from resume import rundir
from resume.engine import loop
from resume.engine.data import Feeding
from resume.engine.drill.record import Trace, parting
from resume.engine.drill.trace import NAME, traced
from resume.engine.job import Built, Job
from resume.schedule import Schedule


class Half(keras.callbacks.Callback):
    """Compiles nothing, keeps a count."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.count += 1


def job(run: Path, *, epochs: int = 2, **more: Any) -> Job:
    def build(state: Any) -> Built:
        keras.utils.clear_session()
        return Built(classifier(**more))

    return Job(
        run_dir=run, build=build, train=lambda: (X, Y), validation=lambda: (X[:16], Y[:16]), epochs=epochs, verbose=0,
        callbacks=lambda born: {"half": Half()}, feeding=Feeding(0, 16), schedule=Schedule(every_steps=2),
        say=lambda line: None,
    )  # fmt: skip


def run(folder: Path, name: str, **more: Any) -> Trace:
    file = folder / f"{name}.jsonl"
    loop.train(traced(job(folder / name, **more), file))
    return Trace.read(file)


def test_each_step_is_written_down(tmp_path: Path) -> None:
    found = run(tmp_path, "a")
    assert [e.at for e in found.events][:4] == ["began", "before", "step", "before"]
    assert [(e.epoch, e.batch) for e in found.only("step")] == [(e, b) for e in range(2) for b in range(3)]
    assert len(found.only("validated")) == len(found.only("epoch")) == 2
    steps = found.only("step")
    assert len({step.facts["x"] for step in steps}) == 6
    assert all(step.facts[name] for step in steps for name in ("y", "out", "loss", "rate"))
    assert steps[0].facts["rate_value"] == pytest.approx(1e-3)
    assert len(steps[0].facts["rows"]) == 16
    assert {"optimizer/iteration", "seeds/dropout/seed"} <= set(steps[0].facts["variables"])
    assert [step.hidden["callbacks.half.count"] for step in steps] == list("123456")
    assert found.described()["callbacks.half"]["class"] == f"{__name__}.Half"


def test_the_training_does_not_notice(tmp_path: Path) -> None:
    loop.train(job(tmp_path / "plain"))
    run(tmp_path, "traced")
    plain, watched = (rundir.read(tmp_path / name) for name in ("plain", "traced"))
    assert plain.specs == watched.specs
    assert plain.progress["epoch_logs"] == watched.progress["epoch_logs"]
    assert NAME in watched.progress["callbacks"]


def test_a_resumed_attempt_is_at_the_same_places(tmp_path: Path) -> None:
    whole, file = run(tmp_path, "whole"), tmp_path / "trace"
    broken = job(tmp_path / "broken")
    crash = replace(broken, callbacks=lambda born: {"half": Half(), "crash": BreakAt(5)})
    with pytest.raises(BrokenError):
        loop.train(traced(crash, file))
    again = replace(broken, callbacks=lambda born: {"half": Half(), "crash": BreakAt(99)})
    loop.train(traced(again, tmp_path / "again"))
    found = Trace.read(tmp_path / "again")
    assert [(e.epoch, e.batch) for e in found.only("step")] == [(1, 1), (1, 2)]
    assert parting(whole, [Trace.read(file), found]) is None


def test_compiled_blocks_and_other_weights(tmp_path: Path) -> None:
    found = run(tmp_path, "blocks", steps_per_execution=3)
    assert found.steps == 2
    other = run(tmp_path, "eager", run_eagerly=True)
    assert [e.facts["x"] for e in other.only("step")] == [
        e.facts["x"] for e in run(tmp_path, "b").only("step")
    ]


def test_who_compiles(tmp_path: Path) -> None:
    class Compiling(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.model.compile("sgd", "sparse_categorical_crossentropy")

    callbacks: Callable[[str], Any] = lambda born: {"again": Compiling()}  # noqa: E731
    loop.train(traced(replace(job(tmp_path / "c", epochs=1), callbacks=callbacks), tmp_path / "trace"))
    (event,) = Trace.read(tmp_path / "trace").only("compile")
    assert event.facts["by"].startswith("callbacks.again on_train_begin (test_trace.py:")


def test_what_a_data_function_takes_stays_visible(tmp_path: Path) -> None:
    def pure(epoch: int, seed: int, rows: int) -> Any:
        order = np.random.default_rng((seed, epoch)).permutation(rows)
        return X[order], Y[order]

    import functools

    source = functools.partial(pure, rows=48)
    loop.train(traced(replace(job(tmp_path / "d"), train=source), tmp_path / "trace"))
    assert Trace.read(tmp_path / "trace").described()["data.train"]["takes_epoch"]
