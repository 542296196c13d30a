"""On a GPU: what is referenced stays as it is while steps go on, and a killed run ends as the unbroken one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPERIMENTS = ["adamw_cosine", "ema"]

CONSISTENT = """
import json, sys
import keras, numpy as np
from resume.engine import live, snapshot

found = {}
for xla in (False, True):
    keras.utils.set_random_seed(1)
    first = [keras.layers.Conv2D(32, 3, activation="relu"), keras.layers.BatchNormalization()]
    middle = [keras.layers.Dropout(0.3), keras.layers.Flatten()]
    last = [keras.layers.Dense(1024, activation="relu") for _ in range(6)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *first, *middle, *last, keras.layers.Dense(10)])
    model.compile("adam", "mse", jit_compile=xla)
    x, y = np.random.rand(640, 28, 28, 1).astype("float32"), np.random.rand(640, 10).astype("float32")
    model.fit(x, y, batch_size=64, verbose=0)
    state = snapshot.Snapshots(model).take(epoch=0, batch=0, progress={})
    then = {name: live.value(v) for name, v in live.of(model).variables.items()}
    model.fit(x, y, batch_size=64, verbose=0)
    now = {name: live.value(v) for name, v in live.of(model).variables.items()}
    moved = sum(not np.array_equal(then[n], now[n]) for n in then)
    held = {name: state.arrays.take(name) for name in list(state.specs)}
    wrong = [n for n in then if held[n].tobytes() != then[n].tobytes()]
    found[str(xla)] = {"moved": moved, "wrong": wrong}
print(json.dumps(found))
"""


def on_gpu() -> bool:
    return bool(list(Path("/dev").glob("nvidia[0-9]*")))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu,
    pytest.mark.skipif(not on_gpu(), reason="there is no GPU here"),
]


def test_references_stay_as_they_are_while_steps_go_on() -> None:
    done = subprocess.run([sys.executable, "-c", CONSISTENT], stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for case in found.values():
        assert case["moved"] > 20
        assert case["wrong"] == []


def test_a_killed_run_ends_as_the_unbroken_one() -> None:
    command = [sys.executable, "-W", "ignore", str(HERE / "kills.py"), "--kills", "3", *EXPERIMENTS]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [end["experiment"] for end in ends] == EXPERIMENTS
    for end in ends:
        assert "error" not in end, end["error"]
        assert end["killed"] + end["preempted"] >= 1
        assert end["arrays_differ"] == end["progress_differs"] == end["scalars_differ"] == []
        assert end["lineage_breaks"] == []
