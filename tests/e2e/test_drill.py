"""A drill finds each planted fault and names its culprit; what has no fault passes, the shipped experiments too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
EAGER = "++compile.run_eagerly=true"  # a Python counter in a compiled step never moves

# Overrides of a run without a fault; the part that breaks; what `where` has to name; what the evidence has to show.
FAULTS: dict[str, tuple[list[str], str, list[str], str]] = {
    "an unseeded shuffle": (
        ["data.train._target_=faults.unseeded"],
        "unseeded shuffle", ["faults.unseeded", "default_rng() at faults.py:"], "other rows of the same data",
    ),
    "the order of a set": (
        ["data.train._target_=faults.by_hash"],
        "order by hash or listing", ["faults.by_hash", "at faults.py:"], "two unbroken runs part at batch 1",
    ),
    "Python's random in a generator": (
        ["data.train._target_=faults.jittered"],
        "global random numbers in the data", ["faults.jittered", "random.uniform(0.9, 1.1)"], "same labels",
    ),
    "an augmentation with a generator of its own": (
        ["data.train._target_=faults.Drawing"],
        "data with hidden state", ["faults.Drawing", "data.train().rng"], "values that the unbroken run never saw",
    ),
    "a data order that is drawn as it is read": (
        ["data.train._target_=faults.Sampling"],
        "data with hidden state", ["faults.Sampling", "data.train().rng"], "other rows of the same data",
    ),
    "data that is empty the second time": (
        ["data.train._target_=faults.read_once"],
        "data ends early", ["data.train (faults.read_once)"], "contained only 0 elements",
    ),
    "wrong steps_per_epoch": (
        ["data.train._target_=faults.short", "fit.steps_per_epoch=9"],
        "wrong steps_per_epoch", ["fit.steps_per_epoch", "faults.short"], "ended after 6 of 9 batches of epoch 1",
    ),
    "a layer with a Python counter": (
        ["model._target_=faults.counting", EAGER],
        "layer with hidden state", ["layer fade (faults.Counting)", "fade.calls"], "fade.calls: 2 -> 0",
    ),
    "a stateful random operation in a layer": (
        ["model._target_=faults.noisy"],
        "stateful random operation in a layer",
        ["layer noise (faults.Noise)", "RandomStandardNormal", "tf.random.normal("], "another output",
    ),
    "an operation that does not repeat": (
        ["model._target_=faults.clocked"],
        "unseeded randomness in a layer", ["layer clocked (faults.Clocked)", "time.time()"], "give another output",
    ),
    "an operation that says nothing of its chance": (
        ["model._target_=faults.racing"],
        "non-deterministic operation", ["layer racing (faults.Racing)", "EagerPyFunc"], "give another output",
    ),
    "a loss that counts": (
        ["compile.loss={_target_: faults.Warming}", EAGER],
        "loss with hidden state", ["loss (faults.Warming)", "loss.seen"], "give another loss",
    ),
    "a metric with a Python number": (
        ["compile.metrics=[{_target_: faults.Best}]", EAGER],
        "metric with hidden state", ["metric best (faults.Best)", "best.highest"], "logs are not: best",
    ),
    "a schedule that counts its calls": (
        ["compile.optimizer.learning_rate={_target_: faults.Counted}", EAGER],
        "schedule with hidden state", ["schedule (faults.Counted)", "schedule.calls"], "schedule.calls: 2 -> 0",
    ),
    "a callback that counts in its module": (
        ["+callbacks.decay={_target_: faults.Decay}"],
        "callback with hidden state", ["callbacks.decay (faults.Decay)", "faults._ROUNDS"], "optimizer/learning_rate",
    ),
    "a callback with a closure": (
        ["+callbacks.slower={_target_: faults.stepper}"],
        "callback with hidden state", ["callbacks.slower", "on_train_batch_end.count"], "[2] -> [0]",
    ),
    "a callback with a generator": (
        ["+callbacks.extra={_target_: faults.Extra}"],
        "callback with hidden state", ["callbacks.extra (faults.Extra)"], "logs are not: extra",
    ),
    "compile() in every attempt": (
        ["+callbacks.again={_target_: faults.Compiling}"],
        "optimizer rebuilt by compile()", ["callbacks.again on_train_begin (faults.py:", "faults.Compiling"],
        "optimizer/momentum",
    ),
    "compile() after an epoch": (
        ["+callbacks.thaw={_target_: faults.Unfreezing}"],
        "optimizer rebuilt by compile()", ["callbacks.thaw on_epoch_end (faults.py:"], "the unbroken run then failed",
    ),
    "a loss scale that is set again": (
        ["dtype_policy=mixed_float16", "+callbacks.scale={_target_: faults.Scale}"],
        "loss scale reset", ["callbacks.scale (faults.Scale)"], "optimizer/loss_scale/dynamic_scale",
    ),
}  # fmt: skip


SHIPPED = {
    "digits_cnn": {"arguments": ["+experiment=digits_cnn"], "kills": 5, "epochs": 3},
    "text_lstm": {"arguments": ["+experiment=text_lstm"], "kills": 2, "epochs": 2},
    "transfer": {"arguments": ["+experiment=transfer"], "kills": 3, "epochs": 2},
    "custom": {"arguments": ["+experiment=custom"], "kills": 2, "epochs": 2},
}


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    cases: dict[str, Any] = {"no fault": [], **{name: case[0] for name, case in FAULTS.items()}, **SHIPPED}
    command = [sys.executable, "-W", "ignore", str(HERE / "drills.py")]
    done = subprocess.run(command, input=json.dumps(cases), stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_what_has_no_fault_passes(reports: dict[str, Any]) -> None:
    report = reports["no fault"]
    assert report["findings"] == report["differences"] == []
    assert report["verdict"] == "clean"
    assert report["attempts"] == 3
    assert [(k["signal"], k["moment"], k["code"]) for k in report["kills"]] == [
        ("SIGKILL", "inside an epoch", -9),
        ("SIGKILL", "in a save", -9),
    ]
    assert report["arrays"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(reports: dict[str, Any], name: str) -> None:
    _, part, where, evidence = FAULTS[name]
    report = reports[name]
    assert report["verdict"] == "broken"
    (found,) = report["findings"]
    assert found["part"] == part
    for text in where:
        assert text in found["where"]
    assert evidence in found["evidence"]
    assert found["cure"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_experiments_pass(reports: dict[str, Any], name: str) -> None:
    report, kills = reports[name], SHIPPED[name]["kills"]
    assert report["findings"] == report["differences"] == []
    assert (report["verdict"], report["attempts"]) == ("clean", kills + 1)
    assert [k["code"] for k in report["kills"]] == [-9, -9, 75, -9, -9][:kills]
    assert all(k["at"] for k in report["kills"])


def drill(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "resume", "drill", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_broken_run_as_people_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=":")
    done = drill(
        *("--dir", str(tmp_path / "drill"), "--config-dir", str(HERE / "drills"), "+experiment=plain"),
        *("data.train._target_=faults.short", "fit.steps_per_epoch=9"),
    )
    assert done.returncode == 3
    assert done.stdout.startswith("continuity: BROKEN.")
    assert (
        "\nwrong steps_per_epoch\n  where     fit.steps_per_epoch and data.train (faults.short)\n"
        in done.stdout
    )
    assert "\n  cure      fit.steps_per_epoch asks for more batches" in done.stdout


@pytest.mark.slow
def test_a_configuration_that_does_not_train_is_said_as_train_says_it() -> None:
    done = drill("+experiment=digits_cnn", "fit.epoch=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "fit.epoch" in done.stderr
    assert "Traceback" not in done.stderr
