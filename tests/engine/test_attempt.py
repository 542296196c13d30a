"""An attempt that is told to leave: what it saves first, what it does not wait for, and where the next one begins."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import BreakAt, BrokenError, X, Y, classifier

import resume
from resume import clusters, lineage, preempt, rundir
from resume.errors import RunInUseError

STEPS = 6  # an epoch


def told(
    step: int | None = None, *, batch: int | None = None, number: int = signal.SIGTERM
) -> keras.callbacks.Callback:
    """Sends a signal to this very process at a step of the training, or at a batch of a validation."""

    def send() -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.3)  # the thread that listens has it by then

    return BreakAt(step, batch=batch, by=send)


def fit(run: Path, *callbacks: Any, **arguments: Any) -> keras.callbacks.History:
    keras.utils.clear_session()
    given = {
        "epochs": 3,
        "batch_size": 8,
        "verbose": 0,
        "every_minutes": None,
        "every_epochs": None,
        **arguments,
    }
    data = {"validation_data": (X[:16], Y[:16])}
    return resume.fit(classifier(), X, Y, run_dir=run, callbacks=list(callbacks), **data, **given)


def preempted(run: Path, *callbacks: Any, **arguments: Any) -> int:
    with pytest.raises(SystemExit) as left:
        fit(run, *callbacks, **arguments)
    return int(left.value.code or 0)


def same_ends(one: Path, other: Path) -> None:
    a, b = rundir.read(one), rundir.read(other)
    assert dict(a.specs) == dict(b.specs)
    assert (a.epoch, a.batch, a.iterations) == (b.epoch, b.batch, b.iterations)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    run = tmp_path_factory.mktemp("whole") / "run"
    return run, fit(run).history


def test_the_step_ends_and_is_published(tmp_path: Path, whole: tuple[Path, Any]) -> None:
    run = tmp_path / "run"
    assert preempted(run, told(8)) == 75
    state = rundir.read(run)
    assert (state.iterations, state.epoch, state.batch) == (8, 1, 2)
    assert lineage.read(run)[-1]["reason"] == "preempted (SIGTERM)"
    assert fit(run).history == whole[1]
    same_ends(run, whole[0])


def test_a_validation_begins_again_and_not_the_epoch(tmp_path: Path, whole: tuple[Path, Any]) -> None:
    run = tmp_path / "run"
    assert preempted(run, told(batch=1)) == 75
    state = rundir.read(run)
    assert (state.iterations, state.epoch, state.batch) == (STEPS, 0, STEPS)
    assert fit(run).history == whole[1]
    same_ends(run, whole[0])


class StopAt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.model.stop_training = True


def test_a_validation_after_an_early_stop_begins_again_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    history = fit(tmp_path / "whole", StopAt())
    assert preempted(run, StopAt(), told(batch=1)) == 75
    state = rundir.read(run)
    assert (state.iterations, state.epoch, state.batch) == (3, 0, 3)
    assert fit(run, StopAt()).history == history.history
    same_ends(run, tmp_path / "whole")


class InterruptAtBegin(keras.callbacks.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)


def test_ctrl_c_before_the_first_step_is_an_interrupt_as_well(tmp_path: Path) -> None:
    """A notebook's process, and all that is in it, goes on."""
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", InterruptAtBegin())
    assert [r["event"] for r in lineage.read(tmp_path / "run")] == ["start", "end"]
    fit(tmp_path / "run", epochs=1)
    assert lineage.breaks(tmp_path / "run") == []


def test_a_second_signal_changes_nothing(tmp_path: Path, whole: tuple[Path, Any]) -> None:
    run = tmp_path / "run"
    assert preempted(run, told(4), told(4, number=signal.SIGUSR1), told(4)) == 75
    assert rundir.read(run).iterations == 4
    assert [r["event"] for r in lineage.read(run)] == ["start", "checkpoint", "end"]


def test_ctrl_c_is_an_interrupt_afterwards(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", told(4, number=signal.SIGINT))
    assert rundir.read(tmp_path / "run").iterations == 4


def test_handlers_are_given_back_and_the_earlier_one_has_its_turn(tmp_path: Path) -> None:
    heard: list[int] = []

    def mine(number: int, frame: Any) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, mine)
    try:
        assert preempted(tmp_path / "run", told(2)) == 75
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_would_not_be_saved_in_time_is_not_begun(tmp_path: Path) -> None:
    watch = preempt.Watch(clusters.Cluster("local", (), 75))
    cause = clusters.Cause("preempted", 5.0)
    watch.notice = preempt.Notice(signal.SIGTERM, cause, time.monotonic(), time.monotonic() + 5.0)
    assert watch.time_to_save()
    watch.saved(4.0)
    assert not watch.time_to_save()


def test_a_run_that_was_taken_over_is_let_go(tmp_path: Path) -> None:
    """As if another process had taken it while this one stood still: nothing is published, not even an end."""
    run = tmp_path / "run"

    class TakenOver(keras.callbacks.Callback):
        def get_state(self) -> None:
            return None

        def set_state(self, state: Any) -> None:
            pass

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            # Whole, as a real one: the thread that publishes reads it at any moment.
            (run / "owner.other").write_text(OTHERS)
            (run / "owner.other").replace(run / "owner.json")

    with pytest.raises(RunInUseError, match="taken over by another process \\(host elsewhere, pid 1"):
        fit(run, TakenOver(), every_steps=2)
    assert rundir.checkpoints(run) == []
    assert [r["event"] for r in lineage.read(run)] == ["start"]
    assert (run / "owner.json").is_file()


OTHERS = '{"token": "other", "host": "elsewhere", "pid": 1, "since": "now"}'


def test_an_error_after_the_run_was_taken_over_is_not_noted_in_it(tmp_path: Path) -> None:
    """The error is this process's own; the lineage is not any more, whatever is still in flight."""
    run = tmp_path / "run"

    def taken_over() -> None:
        (run / "owner.json").write_text(OTHERS)
        raise BrokenError

    with pytest.raises(BrokenError):
        fit(run, BreakAt(3, by=taken_over), every_steps=2)
    assert [r["event"] for r in lineage.read(run) if r["event"] != "checkpoint"] == ["start"]


def test_a_process_that_stood_still_while_it_prepared_touches_nothing(
    tmp_path: Path, whole: tuple[Path, Any]
) -> None:
    """It has the lock, and prepares; meanwhile another takes over, and writes."""
    run = tmp_path / "run"
    begun = run / "checkpoints" / ".unfinished-1"
    begun.mkdir(parents=True)

    def data(epoch: int) -> Any:
        (run / "owner.json").write_text(OTHERS)
        return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)

    with pytest.raises(RunInUseError, match="taken over by another process \\(host elsewhere, pid 1"):
        resume.fit(classifier(), data, run_dir=run, verbose=0)
    assert begun.is_dir()
    assert lineage.read(run) == []


def test_a_process_that_stood_still_after_its_last_checkpoint_has_not_completed_the_run(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"

    class TakenOver(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            (run / "owner.json").write_text(OTHERS)

    with pytest.raises(RunInUseError):
        fit(run, TakenOver(), epochs=1)
    assert [r["event"] for r in lineage.read(run)] == ["start", "checkpoint"]
    assert not [*run.glob("*.keras"), *run.glob(".unfinished*")]


def test_a_run_that_another_process_began_meanwhile_is_continued(
    tmp_path: Path, whole: tuple[Path, Any]
) -> None:
    """Both prepared a fresh start; this one waited, and has its turn."""
    run = tmp_path / "run"

    def train(data: Any, *callbacks: Any) -> keras.callbacks.History:
        return resume.fit(
            classifier(), data, run_dir=run, epochs=3, batch_size=8, verbose=0, every_steps=4,
            validation_data=(X[:16], Y[:16]), callbacks=callbacks,
        )  # fmt: skip

    def data(epoch: int) -> Any:
        if not run.exists():
            with pytest.raises(BrokenError):
                train(lambda epoch: (X, Y), BreakAt(9))
        return X, Y

    keras.utils.clear_session()
    history = train(data)
    assert [(r["attempt"], r["step"]) for r in lineage.attempts(lineage.read(run))] == [(1, 0), (2, 8)]
    assert history.history == whole[1]
    same_ends(run, whole[0])
    assert lineage.breaks(run) == []


def test_the_state_before_a_validation_has_the_epochs_own_metrics(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert preempted(run, told(batch=0)) == 75
    state = rundir.read(run)
    counts = [
        float(np.asarray(state.arrays[n])) for n in state.specs if n.startswith("metrics/") and "count" in n
    ]
    assert counts
    assert all(count in (len(X), STEPS) for count in counts)


# ---- a callback that swaps the weights in a validation ----


def averaging() -> keras.Model:
    """Averages of the weights in the optimizer; seeds that move with each step, and with an LSTM's own dropout."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Reshape((3, 2)),
            layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2),
            layers.Dense(3, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit_swapping(run: Path, *callbacks: Any) -> tuple[keras.Model, keras.callbacks.History]:
    model = averaging()
    history = resume.fit(
        model, X, Y, run_dir=run, epochs=2, batch_size=8, verbose=0, validation_data=(X[:16], Y[:16]),
        callbacks=[keras.callbacks.SwapEMAWeights(), *callbacks],
    )  # fmt: skip
    return model, history


class Watching(keras.callbacks.Callback):
    """The weights at the end of each epoch's last step, and in its validation."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: dict[int, Any] = {}
        self.swapped: Any = None

    def get_state(self) -> None:
        return None

    def set_state(self, state: Any) -> None:
        pass

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == STEPS - 1:
            self.trained[len(self.trained)] = self.model.get_weights()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.swapped = self.model.get_weights()


def test_weights_that_a_validation_swaps_are_published_as_they_were_trained(tmp_path: Path) -> None:
    """The signal comes while the averages stand in the weights' place: the state is that of the last step."""
    seen = Watching()
    with pytest.raises(SystemExit):
        fit_swapping(tmp_path / "run", seen, told(batch=1))
    state = rundir.read(tmp_path / "run")
    assert (state.iterations, state.epoch, state.batch) == (STEPS, 0, STEPS)
    kernel = state.arrays["model/lstm/lstm_cell/kernel"]
    np.testing.assert_array_equal(kernel, seen.trained[0][0])
    assert not np.array_equal(kernel, seen.swapped[0])  # they were swapped by then
    average = state.arrays["optimizer/average/lstm/lstm_cell/kernel"]
    np.testing.assert_allclose(
        average, seen.swapped[0], rtol=1e-5, atol=1e-6
    )  # Keras swaps by adding and subtracting
    model, history = fit_swapping(tmp_path / "run")
    unbroken, told_nothing = fit_swapping(tmp_path / "whole")
    assert history.history == told_nothing.history
    same_ends(tmp_path / "run", tmp_path / "whole")
    for one, other in zip(model.get_weights(), unbroken.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
