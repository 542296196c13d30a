"""The configuration that the overrides of `resume train` compose, for commands that only look at it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from hydra import main as hydra_main
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from resume.commands import train
from resume.errors import UsageError
from resume.settings import Settings, config_dir, unknown_key, validate

_SILENT = ("hydra/job_logging=none", "hydra/hydra_logging=none")  # they log to stdout, where the answer goes
_SWEEPS = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def settings(overrides: Sequence[str]) -> Settings | None:
    """As `train` would have them; None where Hydra was only asked to show something (`--cfg job`).

    Raises UsageError for what cannot be composed, and for a sweep.
    """
    if not set(_SWEEPS).isdisjoint(overrides):
        raise UsageError("this looks at one configuration, no sweep: leave out -m.")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise to us, do not print and exit with 1
    sys.argv = [sys.argv[0], *train.completed(overrides), *_SILENT]
    found: list[Settings] = []

    def task(cfg: DictConfig) -> None:
        found.append(validate(cfg))

    try:
        hydra_main(version_base="1.3", config_path=str(config_dir()), config_name="train")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        unknown = re.search(r"Could not override '([\w.]+)'", str(error))
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        raise UsageError(unknown_key(unknown[1]) if unknown else "\n".join(lines[:4])) from error
    return found[0] if found else None
