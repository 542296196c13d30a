"""The shipped configuration: everything in it composes, validates, and is in the wheel."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from resume.commands.composition import completed
from resume.settings import Settings, config_dir, validate

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path.relative_to(config_dir()) for path in config_dir().rglob("*.yaml"))
GROUPS = [path for path in FILES if path.parent.name]


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def settings(*overrides: str) -> Settings:
    return validate(compose("train", overrides=list(overrides)))


@pytest.mark.parametrize("path", GROUPS, ids=str)
def test_every_choice_validates(path: Path) -> None:
    plus = "+" if path.parent.name == "experiment" else ""
    settings(f"{plus}{path.parent}={path.stem}")


@pytest.mark.parametrize("path", GROUPS, ids=str)
def test_every_file_opens_with_a_command_that_trains(path: Path) -> None:
    command = (config_dir() / path).read_text().split("# python -m resume train ", 1)[1]
    arguments = command.splitlines()[0].split(";")[0].split()
    found = settings(*completed(arguments))
    assert found.model is not None or found.ckpt is not None
    assert found.compile.get("optimizer") is not None or found.ckpt is not None
    assert found.data.train is not None


def test_the_default_is_a_whole_run() -> None:
    found = settings(*completed([]))
    assert (found.name, found.run_dir) == ("digits", "runs/digits")
    assert found.model is not None
    assert found.data.train is not None
    assert found.data.validation is not None
    assert set(found.compile) == {"optimizer", "loss", "metrics"}
    assert found.callbacks["tensorboard"]["log_dir"] == "runs/digits/logs"


def test_model_and_optimizer_are_left_to_the_checkpoint() -> None:
    found = settings("+ckpt=run42.h5")
    assert (found.model, found.compile, found.name) == (None, {}, "run42")


def test_experiments_replace_what_they_name() -> None:
    found = settings("+experiment=custom", "optimizer=rmsprop")
    assert found.compile["optimizer"] == {
        "_target_": "keras.optimizers.RMSprop",
        "learning_rate": {"_target_": "resume.examples.custom.WarmupDecay", "peak": 3e-3, "warmup": 100},
    }


def test_every_key_can_be_set_without_a_plus() -> None:
    cfg = compose("train")
    found = validate(cfg)
    assert list(cfg) == [field.name for field in fields(found)]
    for name in ("data", "fit", "checkpoint", "devices", "cluster"):
        assert sorted(cfg[name]) == sorted(field.name for field in fields(getattr(found, name)))


def test_the_wheel_holds_conf_and_data(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"resume/conf/{path.as_posix()}" for path in FILES} <= set(names)
    assert {
        f"resume/examples/{name}" for name in ("digits.npz", "text.txt", "backbone.npz", "NOTICE")
    } <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "scripts/", "conf/"))]
