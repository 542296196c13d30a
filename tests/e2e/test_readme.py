"""Every command of the README runs, in its order, in one folder; a run that was killed there ends continuous."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE = """
import keras, warnings
warnings.simplefilter("ignore")
from resume.examples import digits
model = digits.mlp(hidden=16)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(digits.train(epoch=0, seed=0), verbose=0)
model.save("run42.h5")

import tf_keras
from tf_keras import layers
old = tf_keras.Sequential([
    layers.Conv2D(8, 3, activation="relu", input_shape=(8, 8, 1), name="conv"),
    layers.BatchNormalization(name="norm"), layers.Flatten(), layers.Dense(10, activation="softmax", name="probs"),
])
old.compile(tf_keras.optimizers.legacy.Adam(decay=1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
old.fit(digits.train(epoch=0, seed=0), verbose=0)
old.save("old.h5")
"""


def commands() -> list[str]:
    """Lines that begin with a prompt in console blocks; comments cut off; not the test command itself."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    typed = [
        line[2:].split("  #")[0].strip()
        for block in blocks
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    return [line for line in typed if line != "scripts/test"]


def killed(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Not after so many seconds, which are those of one machine, but where the README shows it: in the fifth epoch."""
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    while not list(folder.glob("runs/digits_cnn/checkpoints/step-00000180.1")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9


@pytest.mark.slow
def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", MAKE], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    outputs = {}
    for typed in commands():
        if typed.startswith("timeout -s KILL"):
            killed(shlex.split(typed)[4:], tmp_path, environment)
            continue
        typed_here = typed.replace("scripts/train", f"{ROOT}/scripts/train")
        done = subprocess.run(
            typed_here, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{typed}\n{done.stdout}\n{done.stderr}"
        outputs.setdefault(typed, []).append(done.stdout)
    shown = re.search(r"\$ (python -m resume convert .*)\n((?:.*\n)*?)```", (ROOT / "README.md").read_text())
    assert shown is not None
    for ours, theirs in zip(outputs[shown[1]][0].splitlines(), shown[2].splitlines(), strict=True):
        assert ours.startswith(theirs.removesuffix("..."))
    verdict = outputs["python -m resume verify runs/digits_cnn"][0]
    assert verdict.startswith("runs/digits_cnn: continuous, 2 attempts")
    assert "finished already, 10 epochs, step 450" in outputs[
        "python -m resume train +experiment=digits_cnn checkpoint=often"
    ][-1]  # fmt: skip
    assert len(commands()) >= 9


@pytest.mark.slow
def test_a_killed_process_of_its_own_continues(tmp_path: Path) -> None:
    """No fork, no preloading: the interpreter is started, killed in the middle of an epoch, and started again."""
    command = [
        sys.executable,
        "-m",
        "resume",
        "train",
        "checkpoint.every_steps=7",
        "fit.epochs=40",
        "run_dir=run",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob("run/checkpoints/step-*7")) and process.poll() is None:
        pass
    process.kill()
    assert process.wait() == -9
    again = [*command[:-2], "fit.epochs=3", "run_dir=run"]
    done = subprocess.run(again, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continuity: exact" in done.stdout
    verify = [sys.executable, "-m", "resume", "verify", "run"]
    done = subprocess.run(verify, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("run: continuous, 2 attempts")
