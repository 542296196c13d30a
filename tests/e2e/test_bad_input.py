"""Whatever is wrong with a command: one message, the documented exit code, the run directory untouched."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

MAKE = """
import keras, warnings
warnings.simplefilter("ignore")
from resume.examples import digits, custom
model = digits.mlp(hidden=16)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(digits.train(epoch=0, seed=0, batch_size=256), verbose=0)
model.save("good.keras")
model.save("good.h5")
for name in ("good.h5", "good.keras"):
    data = open(name, "rb").read()
    open("cut." + name[5:], "wb").write(data[: len(data) // 2])
gated = custom.gated_mlp(units=8)
gated.compile("adam", custom.FocalLoss())
gated.save("gated.keras")
"""

# What is typed, the exit code, and what the message says.
CASES: dict[str, tuple[list[str], int, list[str]]] = {
    "missing file": (["+ckpt=nope.h5", "run_dir=new"], 2, ["nope.h5: no such file"]),
    "wrong file": (["+ckpt=mine.py", "run_dir=new"], 2, ["mine.py", "not a checkpoint"]),
    "truncated .h5": (["+ckpt=cut.h5", "run_dir=new"], 2, ["cut.h5", "cut off"]),
    "truncated .keras": (["+ckpt=cut.keras", "run_dir=new"], 2, ["cut.keras", "cut off"]),
    "another architecture": (
        ["+ckpt=good.h5", "run_dir=new", "model=digits_mlp", "checkpoint.prefer=config"],
        3,
        ["good.h5: continuity broken", "model/", "[64, 16] -> [64, 128]"],
    ),
    "another model, not said which": (
        ["+ckpt=good.h5", "run_dir=new", "model=digits_mlp"], 2, ["16 saved -> 128 configured", "checkpoint.prefer="],
    ),
    "missing custom object": (["+ckpt=gated.keras", "run_dir=new"], 2, ["gated.keras", "GatedDense", "custom_objects"]),
    "custom object that is not there": (
        ["+ckpt=gated.keras", "+custom_objects.GatedDense=mine.Nope", "run_dir=new"], 2, ["mine.Nope"],
    ),
    "unknown key": (["fit.epoch=3", "run_dir=new"], 2, ["fit.epoch", "Did you mean fit.epochs?"]),
    "unknown key, appended": (["+fit.epoch=3", "run_dir=new"], 2, ["fit.epoch", "Did you mean fit.epochs?"]),
    "typo in a group": (["optimizer=adamm", "run_dir=new"], 2, ["optimizer/adamm", "adam"]),
    "typo in an experiment": (["+experiment=digit", "run_dir=new"], 2, ["experiment/digit"]),
    "broken user module": (["+model._target_=mine.model", "run_dir=new"], 2, ["mine.model", "no such thing as x"]),
    "empty ckpt": (["ckpt=", "run_dir=new"], 2, ["ckpt: empty"]),
    "learning rate changed": (
        ["run_dir=old", "fit.epochs=2", "compile.optimizer.learning_rate=0.1"],
        2,
        ["optimizer.learning_rate: 0.003 saved -> 0.1 configured", "checkpoint.prefer=config"],
    ),
    "optimizer changed": (
        ["run_dir=old", "fit.epochs=2", "optimizer=sgd_momentum"], 2, ["optimizer.class: Adam saved -> SGD configured"],
    ),
    "layer changed": (["run_dir=old", "fit.epochs=2", "model.dropout=0.5"], 2, ["0.2 saved -> 0.5 configured"]),
    "batch size changed": (
        ["run_dir=old", "fit.epochs=2", "data.train.batch_size=16"], 2, ["batch_size: 32 saved -> 16 configured"],
    ),
    "another beginning": (["run_dir=old", "fit.epochs=2", "+ckpt=good.h5"], 2, ["ckpt"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, batch: Any) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "mine.py").write_text("def model():\n    raise ValueError('no such thing as x')\n")
    first = [
        "train",
        "run_dir=old",
        "fit.epochs=1",
        "+ckpt=good.keras",
        "model=digits_mlp",
        "model.hidden=16",
    ]
    setup = [
        {"folder": folder, "python": MAKE},
        {"folder": folder, "arguments": ["train", "run_dir=old", "fit.epochs=1", "fit.verbose=0"]},
    ]
    del first
    for done in batch(setup):
        assert done.code == 0, done.output
    before = fingerprint(folder / "old")
    cases = [{"folder": folder, "arguments": ["train", *typed]} for typed, _, _ in CASES.values()]
    found = dict(zip(CASES, batch(cases), strict=True))
    return {
        "done": found,
        "untouched": fingerprint(folder / "old") == before,
        "new": (folder / "new").exists(),
    }


def fingerprint(folder: Path) -> dict[str, str]:
    """Of every file but the one that says who was here last: a refused command was."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "owner.left.json")
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("name", CASES)
def test_one_message_and_the_documented_code(results: dict[str, Any], name: str) -> None:
    _, code, words = CASES[name]
    done = results["done"][name]
    assert done.code == code, done.output
    assert "Traceback" not in done.output
    assert done.output.count("resume: ") == 1
    for word in words:
        assert word in done.output


def test_run_directories_are_untouched(results: dict[str, Any]) -> None:
    assert results["untouched"]
    assert not results["new"]
