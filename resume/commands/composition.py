"""The configuration that the command line of `resume train` composes: to train with it, or only to look at it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence

from hydra import main as hydra_main
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from resume.errors import UsageError
from resume.settings import Settings, config_dir, unknown_key, validate

_SILENT = ("hydra/job_logging=none", "hydra/hydra_logging=none")  # they log to stdout, where the answer goes
_SWEEPS = ("-m", "--multirun", "hydra.mode=MULTIRUN")
_SHOWN = 4  # lines of what Hydra says


def settings(overrides: Sequence[str]) -> Settings | None:
    """As `train` would have them; None where Hydra was only asked to show something (`--cfg job`).

    Raises UsageError for what cannot be composed, and for a sweep.
    """
    if not set(_SWEEPS).isdisjoint(overrides):
        raise UsageError("this looks at one configuration, no sweep: leave out -m.")
    found: list[Settings] = []
    compose([*completed(overrides), *_SILENT], lambda cfg: found.append(validate(cfg)))
    return found[0] if found else None


def compose(arguments: Sequence[str], task: Callable[[DictConfig], None]) -> None:
    """Hand the task what a whole command line composes; of a sweep, each configuration.

    Hydra's own errors become UsageErrors; anything unforeseen keeps its traceback.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise to us, do not print and exit with 1
    sys.argv = [sys.argv[0], *arguments]
    try:
        hydra_main(version_base="1.3", config_path=str(config_dir()), config_name="train")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        unknown = re.search(r"Could not override '([\w.]+)'", str(error))
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        raise UsageError(unknown_key(unknown[1]) if unknown else "\n".join(lines[:_SHOWN])) from error


def completed(arguments: Sequence[str]) -> list[str]:
    """The command line with the shipped default for what it does not name: nothing where an experiment or a whole
    configuration is chosen, the data alone where the model comes from a checkpoint."""
    out = ["+" + a if a.startswith("experiment=") else a for a in arguments]
    named = {_named(a) for a in arguments if "=" in a}
    if "experiment" in named or any(a.startswith(("--config-name", "-cn")) for a in arguments):
        return out
    wanted = (
        {"data": "digits"}
        if "ckpt" in named
        else {"model": "digits_mlp", "optimizer": "adam", "data": "digits"}
    )
    return [*out, *(f"{group}={choice}" for group, choice in wanted.items() if group not in named)]


def _named(argument: str) -> str:
    """The group that an override chooses: by its name, or by the `_target_` of a node of the user's own."""
    key = argument.split("=", 1)[0].lstrip("+~").split("@", 1)[0]
    return key.split(".", 1)[0] if key.endswith("._target_") else key
