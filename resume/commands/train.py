"""`resume train`: one attempt of a run, from a Hydra configuration. The same command again continues it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from resume import clusters, lineage, preempt, rundir, signalpath, tiers, urls
from resume.commands import composition, quiet
from resume.errors import EXIT_COMPLETED, ResumeError, UsageError
from resume.preempt import Watch
from resume.settings import ClusterSettings, Settings, config_dir, validate

if TYPE_CHECKING:
    from resume.engine.job import Job

Act = Callable[["Job"], object]


def run(arguments: Sequence[str], *, act: Act | None = None) -> int:
    """Compose and train. `act`: what is done with the job instead of training it."""
    line = composition.completed(arguments)
    _refuse_namesakes(line)
    with Watch(clusters.of(ClusterSettings())):  # until the configuration is known, what the environment says
        composition.compose(line, task if act is None else lambda cfg: task(cfg, act=act))
    return EXIT_COMPLETED


def _refuse_namesakes(arguments: Sequence[str]) -> None:
    """A file of the user's with the name of a shipped one: Hydra would silently take the shipped one."""
    folders = [b for a, b in itertools.pairwise(arguments) if a in ("--config-dir", "-cd")]
    folders += [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    for group, _, choice in (a.lstrip("+").partition("=") for a in arguments):
        for folder in folders:
            mine, shipped = Path(folder) / group / f"{choice}.yaml", config_dir() / group / f"{choice}.yaml"
            if mine.is_file() and shipped.is_file() and not mine.samefile(shipped):
                raise UsageError(
                    f"{mine}: there is a shipped {group} called {choice} too. Give yours another name."
                )


def task(cfg: DictConfig, *, act: Act | None = None) -> None:
    """The job itself; importable by name, since Hydra's launchers pickle it by reference."""
    try:
        settings = validate(cfg)
        place, remote = urls.placed(settings.run_dir)
        settings = replace(settings, run_dir=remote or str(place))
        done = _done(place, remote, epochs=settings.fit.epochs)
        if done is not None:
            print(f"run {settings.run_dir}: {done}.")
            return
        _trained(settings, record=OmegaConf.to_yaml(OmegaConf.create(asdict(settings))), act=act)
    except ResumeError as error:
        print(f"resume: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _done(place: Path, remote: str | None, *, epochs: int) -> str | None:
    """A sentence when the run is finished. One whose last checkpoint is damaged is not: it goes on from the one before.

    (Of a run behind a URL only the manifests are looked at.) Raises NoCheckpointError where none is whole.
    """
    if remote:
        return tiers.completed(remote, epochs=epochs)
    done = lineage.completed(place, epochs=epochs)
    return None if done is None or rundir.newest_whole(place)[1] else done


def _trained(settings: Settings, *, record: str, act: Act | None) -> None:
    """Under the watch of this process, or under one of its own where a launcher called the task."""
    cluster = clusters.of(settings.cluster)
    if obstacle := signalpath.obstacle(cluster.kind):
        print(f"warning: {obstacle}", file=sys.stderr)
    with preempt.watching(cluster) as watch:
        preempt.obeyed(watch, lambda: train(settings, record=record, watch=watch, act=act))


def train(settings: Settings, *, record: str, watch: Watch, act: Act | None = None) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet.standard_error():
        from resume.engine import devices, launch  # here, so that --help and usage errors need no TensorFlow

        devices.discover()
    launch.run(settings, record=record, watch=watch, act=act)
