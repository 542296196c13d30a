"""`resume render`: job files that say what a scheduler has to know, and start the same command every time."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from resume import cli

ROOT = Path(__file__).resolve().parents[2]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def render(capsys: Captured) -> Any:
    """Through the command line, as its paths are shielded there."""

    def rendered(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            cli.main(["render", *arguments])
        out, err = capsys.readouterr()
        assert end.value.code == code, err
        return out if code == 0 else err

    return rendered


def sbatch(script: str) -> dict[str, str]:
    options = [line.split("--", 1)[1] for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {
        name: shlex.split(value)[0] if value else "" for name, _, value in (o.partition("=") for o in options)
    }


def command(script: str) -> list[str]:
    return shlex.split(script.splitlines()[-1])


def job(text: str) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(OmegaConf.create(text))
    return dict(found)


def pod(text: str) -> dict[str, Any]:
    found: dict[str, Any] = job(text)["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(("kind", "file"), [("slurm", "slurm.sbatch"), ("kubernetes", "kubernetes.yaml")])
def test_the_examples_are_what_is_rendered(render: Any, kind: str, file: str) -> None:
    assert (ROOT / "scripts/cluster" / file).read_text() == render(f"cluster={kind}")


# ---- Slurm ----


def test_a_slurm_script(render: Any) -> None:
    script = render("cluster=slurm", "+experiment=digits_cnn", "fit.epochs=50")
    assert sbatch(script) == {
        "job-name": "digits_cnn",
        "output": "%x-%j.out",
        "open-mode": "append",
        "requeue": "",
        "signal": "USR2@120",
        "ntasks": "1",
    }
    assert script.splitlines()[-1] == (
        "exec srun python -m resume train cluster=slurm +experiment=digits_cnn fit.epochs=50"
    )
    assert script.startswith("#!/usr/bin/env bash\n")


def test_what_only_the_user_knows(render: Any) -> None:
    script = render("cluster=slurm")
    for line in ("##SBATCH --partition=NAME", "##SBATCH --gres=gpu:1", "##SBATCH --time=04:00:00"):
        assert line in script.splitlines()
    given = render(
        "cluster=slurm", "render.partition=gpu", "render.gres=gpu:a100:2", "render.time=1-00:00:00",
        "render.cpus=16", "render.mem=64G", "render.output=logs/a b.out", "render.notice=300",
    )  # fmt: skip
    assert sbatch(given) | {"ntasks": "1"} == sbatch(given)
    assert {
        k: sbatch(given)[k] for k in ("partition", "gres", "time", "cpus-per-task", "mem", "output", "signal")
    } == {
        "partition": "gpu",
        "gres": "gpu:a100:2",
        "time": "1-00:00:00",
        "cpus-per-task": "16",
        "mem": "64G",
        "output": "logs/a b.out",
        "signal": "USR2@300",
    }
    assert "##SBATCH" not in given
    assert "render." not in given.splitlines()[-1]


@pytest.mark.parametrize(
    "override",
    ["ckpt=epoch=03, a.h5", "+ckpt=it's [1].h5", "run_dir=/data/my runs/$HOME", "ckpt=null", 'name="a; b"'],
)
def test_train_gets_what_render_got(render: Any, override: str) -> None:
    last = command(render("cluster=slurm", override))[-1]
    parse = OverridesParser.create().parse_override
    ours, theirs = parse(cli.shielded(last)), parse(cli.shielded(override))
    assert (ours.key_or_group, ours.value()) == (theirs.key_or_group, theirs.value())


def test_a_plain_path_stays_readable(render: Any) -> None:
    assert command(render("cluster=slurm", "run_dir=/data/runs/a"))[-1] == "run_dir=/data/runs/a"


# ---- Kubernetes ----


def test_a_kubernetes_job(render: Any) -> None:
    text = render("cluster=kubernetes", "+experiment=digits_cnn")
    spec = job(text)["spec"]
    assert (job(text)["apiVersion"], job(text)["kind"], job(text)["metadata"]) == (
        "batch/v1",
        "Job",
        {"name": "digits-cnn"},
    )
    assert set(spec) == {"backoffLimit", "podFailurePolicy", "template"}
    assert spec["podFailurePolicy"]["rules"] == [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "train", "operator": "In", "values": [2, 3, 4, 6]},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "Ignore",
            "onExitCodes": {"containerName": "train", "operator": "In", "values": [75, 143]},
        },
    ]
    assert pod(text)["restartPolicy"] == "Never"  # the only one that goes with podFailurePolicy
    assert pod(text)["terminationGracePeriodSeconds"] == 30
    (container,) = pod(text)["containers"]
    assert container == {
        "name": "train",
        "image": "IMAGE",
        "command": [
            "python", "-m", "resume", "train", "cluster=kubernetes", "+experiment=digits_cnn",
            "run_dir=/runs/digits_cnn",
        ],
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "volumeMounts": [{"name": "runs", "mountPath": "/runs"}],
    }  # fmt: skip
    assert pod(text)["volumes"] == [{"name": "runs", "persistentVolumeClaim": {"claimName": "CLAIM"}}]


def test_what_is_given_of_a_kubernetes_job(render: Any) -> None:
    text = render(
        "cluster=kubernetes", "cluster.grace=90.5", "cluster.exit_code=99", "run_dir=/data/team/run 1",
        "render.image=registry.example/me/train:1", "render.claim=team", "render.gpus=2", "render.mem=64Gi",
        "render.retries=20",
    )  # fmt: skip
    (container,) = pod(text)["containers"]
    assert container["command"][-3:] == [
        "cluster.grace=90.5",
        "cluster.exit_code=99",
        "run_dir=/data/team/run 1",
    ]
    assert container["image"] == "registry.example/me/train:1"
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "2", "memory": "64Gi"}}
    assert container["volumeMounts"][0]["mountPath"] == "/data/team"
    assert pod(text)["volumes"][0]["persistentVolumeClaim"] == {"claimName": "team"}
    assert pod(text)["terminationGracePeriodSeconds"] == 91
    assert job(text)["spec"]["backoffLimit"] == 20
    assert job(text)["spec"]["podFailurePolicy"]["rules"][2]["onExitCodes"]["values"] == [75, 99, 143]


def test_kubernetes_expands_no_variable_of_ours(render: Any) -> None:
    text = render("cluster=kubernetes", 'name="$(HOME)"', "run_dir=/a/b")
    assert pod(text)["containers"][0]["command"][5] == 'name="$$(HOME)"'


@pytest.mark.parametrize(("name", "label"), [("My_Run 1", "my-run-1"), ("-", "train"), ("x" * 80, "x" * 52)])
def test_a_name_that_kubernetes_takes(render: Any, name: str, label: str) -> None:
    assert job(render("cluster=kubernetes", f"name='{name}'"))["metadata"]["name"] == label


# ---- refused ----


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "cluster=auto: a job file is for cluster=slurm or cluster=kubernetes."),
        (["cluster=local"], "cluster=local: a job file is for"),
        (
            ["cluster=slurm", "render.tme=1"],
            "render.tme: unknown for cluster=slurm. Keys: partition, gres, cpus,",
        ),
        (["cluster=slurm", "render.time="], "render.time: '' is no value for a job file."),
        (["cluster=slurm", "render.notice=1m"], "render.notice: '1m' is not a whole number."),
        (["cluster=slurm", "fit.epoch=1"], "fit.epoch: unknown key"),
        (["cluster=slurm", "-m", "seed=0,1"], "no sweep: leave out -m."),
        (["cluster=kubernetes", "cluster.exit_code=3"], "cluster.exit_code: 3 also stands for an error"),
        (["cluster=kubernetes", "run_dir=~/runs"], "run_dir=~/runs: whose home would that be in a pod?"),
    ],
)
def test_refused(render: Any, arguments: list[str], said: str) -> None:
    assert said in render(*arguments, code=2)


def test_help(render: Any) -> None:
    text = render("--help")
    assert text.startswith("usage: resume render cluster=slurm|kubernetes [render.KEY=VALUE ...]")
    assert "slurm       partition, gres, cpus, mem, time, output, notice" in text


def test_no_tensorflow(python: Any) -> None:
    code = """
import sys
from resume.cli import main
try:
    main(["render", "cluster=slurm"])
except SystemExit as end:
    print(end.code, "tensorflow" in sys.modules)
"""
    assert python(code).communicate(timeout=60)[0].splitlines()[-1] == "0 False"
