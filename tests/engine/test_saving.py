"""Publishing beside the training: nothing that was due is lost, nothing fails unheard, and a training is none other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import BreakAt, BrokenError, X, Y, classifier

import resume
from resume import headroom, lineage, rundir

Python = Callable[..., subprocess.Popen[str]]

STEPS = 18  # three epochs of six
ROWS = np.random.default_rng(2).integers(0, 40, (48, 5))


def laden(*, megabytes: int = 64) -> keras.Model:
    """Fast steps, and a table that takes its time on the way to the disk."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    table = layers.Embedding(megabytes << 14, 16, embeddings_initializer="ones", trainable=False)
    model = keras.Sequential(
        [keras.Input((5,)), table, layers.Flatten(), layers.Dense(3, activation="softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def fit(
    run: Path, *callbacks: Any, model: Any = None, x: Any = X, **arguments: Any
) -> keras.callbacks.History:
    keras.utils.clear_session()
    given = {"epochs": 3, "every_steps": 1, "every_minutes": None, "every_epochs": None, "keep_last": 99}
    return resume.fit(
        model or classifier(), x, Y, run_dir=run, batch_size=8, verbose=0, callbacks=list(callbacks),
        **{**given, **arguments},
    )  # fmt: skip


def published(run: Path) -> list[int]:
    return [r["step"] for r in lineage.read(run) if r["event"] == "checkpoint"]


def same_ends(one: Path, other: Path) -> None:
    a, b = rundir.read(one), rundir.read(other)
    assert dict(a.specs) == dict(b.specs)  # digests
    assert (a.epoch, a.batch, a.progress["callbacks"]) == (b.epoch, b.batch, b.progress["callbacks"])


# ---- what is due is published ----


def test_a_step_that_goes_back_is_refused(tmp_path: Path) -> None:
    """A checkpoint of a lower step would be retired as it is published, and the run go on from before it."""
    run = tmp_path / "run"

    class CompileAgain(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.compile("adam", "sparse_categorical_crossentropy")

    with pytest.raises(
        resume.ContinuityError, match=r"iterations went back, 5 -> 0: .*compile\(\) in a callback"
    ):
        fit(run, CompileAgain(), every_epochs=1, keep_last=2)
    assert published(run) == [1, 2, 3, 4, 5]  # the sixth stands for the end of its epoch
    assert [c.step for c in rundir.checkpoints(run)] == [4, 5]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("beside") / "run"
    fit(run, background=True)
    return run


def test_every_checkpoint_that_was_due_is_there(beside: Path) -> None:
    """In the lineage, in this order, and on the disk: the last one stands for the end of its epoch too."""
    assert published(beside) == list(range(1, STEPS + 1))
    assert [c.step for c in rundir.checkpoints(beside)] == published(beside)
    assert [c.damage() for c in rundir.checkpoints(beside)] == [[]] * STEPS
    assert [r["event"] for r in lineage.read(beside)] == ["start", *["checkpoint"] * STEPS, "end"]
    assert lineage.breaks(beside) == []


def test_each_is_of_its_own_step(beside: Path) -> None:
    """A snapshot is written while later steps change what it refers to."""
    states = [rundir.read(c.path) for c in rundir.checkpoints(beside)]
    kernels = {state.specs["model/dense/kernel"].digest for state in states}
    assert len(kernels) == STEPS
    assert [state.iterations for state in states] == list(range(1, STEPS + 1))


def test_beside_the_training_or_not_is_all_one(tmp_path: Path, beside: Path) -> None:
    fit(tmp_path / "run", background=False)
    for one, other in zip(rundir.checkpoints(tmp_path / "run"), rundir.checkpoints(beside), strict=True):
        same_ends(one.path, other.path)
    records = [r for r in lineage.read(tmp_path / "run") if r["event"] == "checkpoint"]
    assert all(r["blocked"] == r["seconds"] for r in records)
    assert any(r["blocked"] < r["seconds"] for r in lineage.read(beside) if r["event"] == "checkpoint")


def test_what_is_in_flight_when_the_users_code_fails_is_published(tmp_path: Path) -> None:
    """And noted before the attempt's end, so that the next begins there."""
    run, seen = tmp_path / "run", []

    def fail() -> None:
        seen.append(rundir.checkpoints(run))
        raise BrokenError

    with pytest.raises(BrokenError):
        fit(run, BreakAt(5, by=fail), model=laden(), x=ROWS, every_steps=4)
    assert seen == [[]]  # it was on its way
    assert [(r["event"], r["step"]) for r in lineage.read(run)] == [
        ("start", 0),
        ("checkpoint", 4),
        ("end", 5 - 1),
    ]
    assert lineage.read(run)[-1]["reason"] == "failed: BrokenError: "
    assert rundir.checkpoints(run)[0].damage() == []


@pytest.mark.parametrize("background", [True, False])
def test_what_no_file_holds_is_an_error_of_its_own(tmp_path: Path, background: bool) -> None:
    """No disk is to blame, and nothing to be repeated: it is the same whatever `on_failure` says."""

    class Odd(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.layers[0].odd = tf.Variable(tf.zeros(2, "complex128"))

    with pytest.raises(resume.SourceError, match="safetensors has no dtype complex128; cast this variable"):
        fit(tmp_path / "run", Odd(), on_failure="warn", background=background)
    assert rundir.checkpoints(tmp_path / "run") == []
    assert lineage.read(tmp_path / "run")[-1]["reason"].startswith("failed: SourceError: ")


# ---- a schedule that is faster than the disk ----

FASTER = "the schedule is faster than the disk"


def test_waiting_drops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path / "run", model=laden(), x=ROWS, when_busy="wait", epochs=1)
    assert published(tmp_path / "run") == [1, 2, 3, 4, 5, 6]
    assert capsys.readouterr().out.count("(when_busy=skip)") == 0


def test_skipping_drops_some_and_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Never the last; and what is dropped comes as soon as the one before is done."""
    run = tmp_path / "run"
    fit(run, model=laden(), x=ROWS, when_busy="skip", epochs=2)
    steps = published(run)
    assert steps[0] == 1
    assert steps[-1] == 12
    assert len(steps) < 12
    assert steps == sorted(set(steps)) == [c.step for c in rundir.checkpoints(run)]
    assert capsys.readouterr().out.count(FASTER) == 1
    assert lineage.breaks(run) == []


# ---- memory ----


def test_the_bytes_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path / "run", model=laden(), x=ROWS, epochs=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("checkpoints of")]
    assert lines == ["checkpoints of 67.1 MB, written beside the training, with up to as much memory more"]
    record = next(r for r in lineage.read(tmp_path / "run") if r["event"] == "checkpoint")
    assert record["bytes"] == pytest.approx(67.1e6, rel=0.001)


@pytest.mark.parametrize("background", [None, True])
def test_where_there_is_no_memory_for_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    background: bool | None,
) -> None:
    """The machine's own word is another module's to read; who insists is taken at his word."""
    monkeypatch.setattr(headroom, "available", lambda: 1000)
    run = tmp_path / "run"
    fit(run, background=background, epochs=1)
    out = capsys.readouterr().out
    records = [r for r in lineage.read(run) if r["event"] == "checkpoint"]
    assert len(records) == 6
    waited = (
        "are written while the training waits: beside it they take as much memory more, and 1.0 KB are free"
    )
    assert (waited in out) == (background is None)
    assert all(r["blocked"] == r["seconds"] for r in records) == (background is None)


# ---- a disk that is full ----

FULL = '''
import contextlib, io, json, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import keras
from small import BreakAt, classifier
from test_saving import fit, published
from resume import lineage, rundir
from resume.errors import ResumeError

top = Path(sys.argv[2])

def limited(count, run=None):
    """Once what is in flight has arrived, or failed."""
    if run is not None:
        time.sleep(0.3)
        while list(run.glob("checkpoints/.unfinished-*")):
            time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.RLIM_INFINITY))

def wide():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(20_000), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

def attempt(name, full=None, empty=None, most=65536, **arguments):
    run, out, error = top / name, io.StringIO(), ""
    callbacks = [BreakAt(full, by=lambda: limited(most, run)), BreakAt(empty, by=lambda: limited(-1, run))]
    with contextlib.redirect_stdout(out):
        try:
            fit(run, *callbacks, model=wide(), every_steps=2, **arguments)
        except ResumeError as raised:
            error = str(raised)
        limited(-1)
    records = lineage.read(run)
    print(json.dumps({
        "error": error, "out": out.getvalue(), "published": published(run), "end": records[-1],
        "damage": [line for c in rundir.checkpoints(run) for line in c.damage()],
        "left": [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")],
        "breaks": lineage.breaks(run),
        "ends": {n: s.digest for n, s in rundir.read(run).specs.items() if not n.startswith("callbacks/")},
    }))

attempt("whole")
attempt("stop", full=3)
attempt("stop")
attempt("warn", full=3, empty=7, on_failure="warn")
attempt("last", full=15, on_failure="warn")
attempt("last", on_failure="warn")
attempt("waiting", full=3, background=False)
attempt("mute", full=3, most=1)
attempt("mute")
'''


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, python: Python) -> tuple[Path, list[dict[str, Any]]]:
    """The runs' folder, and what was told of each attempt, all in one process."""
    top = tmp_path_factory.mktemp("full")
    process = python(FULL, Path(__file__).parent, top)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    return top, [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def refusal(run: Path, step: int) -> str:
    return (
        f"{run}: step {step} could not be published (File too large). "
        "Earlier checkpoints are as they were: make room or repair it, then repeat the command."
    )


def test_a_full_disk_stops_the_training_at_a_next_step(full: tuple[Path, list[dict[str, Any]]]) -> None:
    top, (whole, stopped, again, *_) = full
    assert stopped["error"] == refusal(top / "stop", 4)
    assert "could not be published" not in stopped["out"]  # once
    assert stopped["published"] == [2]
    assert (stopped["damage"], stopped["left"], stopped["breaks"]) == ([], [], [])
    assert stopped["end"]["event"] == "end"
    assert stopped["end"]["reason"].startswith("failed: ResumeError: ")
    assert 5 <= stopped["end"]["step"] <= 6
    assert again["error"] == ""
    assert again["published"] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert again["ends"] == whole["ends"]
    assert again["breaks"] == []


def test_a_training_that_waits_stops_at_that_very_step(full: tuple[Path, list[dict[str, Any]]]) -> None:
    top, told = full
    assert told[6]["error"] == refusal(top / "waiting", 4)
    assert (told[6]["published"], told[6]["end"]["step"]) == ([2], 4)


def test_where_nothing_can_be_noted_either_the_reason_is_still_told(
    full: tuple[Path, list[dict[str, Any]]],
) -> None:
    """Not the error of the line in the lineage, nor an epoch that seems to end: TensorBoard's log fails, too."""
    top, (whole, *_, mute, again) = full
    assert mute["error"] == refusal(top / "mute", 4)
    assert "why it ended could not be noted (File too large)" in mute["out"]
    assert (mute["damage"], mute["left"], mute["published"]) == ([], [], [2])
    assert (again["error"], again["breaks"], again["ends"]) == ("", [], whole["ends"])


def test_our_log_that_cannot_be_written_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keras takes TensorFlow's error for a file that is too large for the end of the data."""

    def scalar(*_: Any, **__: Any) -> None:
        raise tf.errors.OutOfRangeError(
            None, None, "events.out.tfevents.1; File too large\n\tFailed to flush"
        )

    monkeypatch.setattr(tf.summary, "scalar", scalar)
    fit(tmp_path / "run")
    assert published(tmp_path / "run") == list(range(1, STEPS + 1))
    assert capsys.readouterr().out.count("this log has gaps now (File too large)") == 1


def test_with_a_warning_it_goes_on_and_publishes_again(full: tuple[Path, list[dict[str, Any]]]) -> None:
    top, (whole, _, _, warned, *_) = full
    assert warned["error"] == ""
    for step in (4, 6):
        assert warned["out"].count(refusal(top / "warn", step)) == 1
    assert warned["out"].count("The training goes on (checkpoint.on_failure=warn)") == 2
    assert warned["published"] == [2, 8, 10, 12, 14, 16, 18]
    assert (warned["damage"], warned["left"], warned["breaks"]) == ([], [], [])
    assert warned["end"]["reason"] == "completed"
    assert warned["ends"] == whole["ends"]


def test_a_run_whose_last_checkpoint_failed_is_not_completed(full: tuple[Path, list[dict[str, Any]]]) -> None:
    top, (whole, _, _, _, failed, again, *_) = full
    assert failed["error"] == refusal(top / "last", STEPS)
    assert refusal(top / "last", STEPS) not in failed["out"]  # once
    assert failed["out"].count("The training goes on") == 1  # without the one before
    assert failed["published"] == [2, 4, 6, 8, 10, 12, 14]
    assert failed["end"]["reason"].startswith("failed: ResumeError: ")
    assert not list(top.glob("last/.unfinished*"))
    assert again["published"] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert again["ends"] == whole["ends"]
