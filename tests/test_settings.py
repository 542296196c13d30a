"""Typos, wrong types and nulls in a configuration."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from resume import settings, urls
from resume.errors import UsageError
from resume.settings import CheckpointSettings, FitSettings, Settings


def validate(**given: Any) -> Settings:
    return settings.validate(OmegaConf.create(given))


def message(**given: Any) -> str:
    with pytest.raises(UsageError) as caught:
        validate(**given)
    return str(caught.value)


def test_nothing_given_is_the_defaults() -> None:
    found = validate()
    assert found == Settings(run_dir="runs/digits")
    assert (found.fit, found.checkpoint) == (FitSettings(), CheckpointSettings())


def test_values_are_plain_and_resolved() -> None:
    model = {"_target_": "my.cnn", "widths": [8, "${fit.epochs}"], "deep": {"path": "${run_dir}/x"}}
    found = validate(name="a", model=model, fit={"epochs": 3, "class_weight": {0: 1, 1: 2.5}})
    assert found.model == {"_target_": "my.cnn", "widths": [8, 3], "deep": {"path": "runs/a/x"}}
    assert (type(found.model), type(found.model["widths"])) == (dict, list)
    assert found.fit.class_weight == {0: 1.0, 1: 2.5}


@pytest.mark.parametrize(
    ("ckpt", "name"),
    [
        ("in/run42.h5", "run42"),
        ("runs/a/", "a"),
        ("epoch=03-loss=0.12.h5", "epoch=03-loss=0.12"),
        (None, "digits"),
    ],
)
def test_name_follows_ckpt(ckpt: str | None, name: str) -> None:
    found = validate(name=None, ckpt=ckpt, run_dir="runs/${name}")
    assert (found.name, found.run_dir) == (name, f"runs/{name}")


def test_what_is_named_after_a_remote_run_is_on_this_machine() -> None:
    found = validate(
        name="a",
        run_dir="s3://bucket/${name}",
        checkpoint={"local": "/disk"},
        callbacks={"csv": {"_target_": "CSVLogger", "filename": "${run_dir}/log.csv"}},
    )
    assert found.run_dir == "s3://bucket/a"
    node = found.callbacks["csv"]
    assert node is not None
    assert node["filename"] == f"{urls.local_tier('s3://bucket/a', within='/disk')}/log.csv"


def test_nulls() -> None:
    found = validate(
        fit=None,
        callbacks={"early": None, "stop": {"_target_": "keras.callbacks.TerminateOnNaN"}},
        compile={"optimizer": None, "loss": "mse"},
    )
    assert found.fit == FitSettings()
    assert list(found.callbacks) == ["stop"]
    assert found.compile == {"loss": "mse"}


def test_short_forms() -> None:
    found = validate(devices="cpu", cluster="slurm")
    assert (found.devices.kind, found.cluster.kind) == ("cpu", "slurm")


def test_compile_takes_any_argument() -> None:
    given = {"jit_compile": False, "d_optimizer": {"_target_": "keras.optimizers.Adam"}}
    assert validate(compile=given).compile == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fit": {"epoch": 4}}, "fit.epoch: unknown key. Did you mean fit.epochs?\nKeys of fit: epochs,"),
        ({"checkpoint": {"every_step": 4}}, "Did you mean checkpoint.every_steps?"),
        ({"data": {"valid": None}}, "Did you mean data.validation?"),
        ({"sed": 1}, "sed: unknown key. Did you mean seed?\nKeys: name, run_dir,"),
        ({"epochs": 1}, "Did you mean fit.epochs?"),
        ({"keep_lst": 1}, "Did you mean checkpoint.keep_last?"),
        ({"fit": {"initial_epoch": 2}}, "the epoch comes from the checkpoint"),
        ({"optimizer": {"_target_": "x"}}, "Its place is compile.optimizer"),
        ({"zzz": 1}, "zzz: unknown key.\nKeys: "),
    ],
)
def test_unknown_keys(given: dict[str, Any], said: str) -> None:
    assert said in message(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"fit": {"epochs": "ten"}},
            "fit.epochs: Value 'ten' of type 'str' could not be converted to Integer.",
        ),
        ({"fit": {"epochs": 0}}, "fit.epochs: 0 is less than 1."),
        ({"fit": {"verbose": 3}}, "fit.verbose: 3 is none of auto, 0, 1, 2."),
        ({"fit": {"validation_freq": 0}}, "fit.validation_freq: neither a number of epochs nor a list"),
        ({"fit": 3}, "fit: 3 is not a mapping."),
        (
            {"checkpoint": {"prefer": "file"}},
            "checkpoint.prefer: 'file' is none of null, config, checkpoint.",
        ),
        ({"checkpoint": {"keep_last": 0}}, "checkpoint.keep_last: 0 is less than 1."),
        ({"checkpoint": {"when_busy": "skipp"}}, "checkpoint.when_busy: 'skipp' is none of wait, skip."),
        ({"checkpoint": {"on_failure": None}}, "checkpoint.on_failure: "),
        ({"checkpoint": {"on_failure": "go"}}, "checkpoint.on_failure: 'go' is none of stop, warn."),
        ({"checkpoint": {"background": "yes please"}}, "checkpoint.background: Value 'yes please'"),
        ({"devices": "tpu"}, "devices.kind: 'tpu' is none of auto, cpu."),
        ({"data": {"train": "numbers"}}, "data.train: "),
        ({"model": {"width": 3}}, "model: has no _target_"),
        ({"callbacks": {"early": {"patience": 3}}}, "callbacks.early: has no _target_"),
        ({"run_dir": "${nowhere}"}, "run_dir: Interpolation key 'nowhere' not found."),
        ({"model": {"_target_": "x", "width": "???"}}, "model.width: Missing mandatory value"),
    ],
)
def test_unusable_values(given: dict[str, Any], said: str) -> None:
    assert said in message(**given)


def test_config_dir_of_a_checkout() -> None:
    assert settings.config_dir() == Path(__file__).resolve().parents[1] / "conf"


def test_config_dir_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()  # somebody else's, beside the package
    (tmp_path / "resume" / "conf").mkdir(parents=True)
    monkeypatch.setattr(settings, "__file__", str(tmp_path / "resume" / "settings.py"))
    assert settings.config_dir() == tmp_path / "resume" / "conf"


def test_trust_is_spelled_out() -> None:
    assert (validate().trust, validate().trusted_modules) == ("config", [])
    found = validate(trust="code", trusted_modules=["my.layers", "theirs"])
    assert found.trusted_modules == ["my.layers", "theirs"]
    assert message(trust="all") == "trust: 'all' is none of none, config, code."
    assert "no name of a module" in message(trust="code", trusted_modules=["my/layers"])
    assert "under trust=code only" in message(trusted_modules=["my.layers"])
