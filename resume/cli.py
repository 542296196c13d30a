"""`python -m resume COMMAND ...`: the first word chooses; paths are shielded from Hydra's grammar."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from resume.errors import ResumeError

_COMMANDS = {
    "train": "train a run, or continue it: the same command after every kill",
    "drill": "rehearse a run: kill it on purpose, and say what does not come back",
    "list": "the checkpoints of a run",
    "inspect": "what a checkpoint or a model file holds",
    "diff": "where two of them differ: settings, position, every array",
    "convert": "write a source in another format, a model of Keras 2 as Keras 3",
    "verify": "re-read every digest of a checkpoint, or of a run and its lineage",
    "doctor": "what this machine and a configuration can promise, before a run relies on it",
    "render": "a job file for Slurm or Kubernetes that starts this run as often as it takes",
}
_HYDRA = ("train", "drill", "doctor", "render")  # commands that take overrides
_PATHS = ("ckpt", "run_dir")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its documented code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        raise SystemExit(0 if arguments else 2)
    word, rest = arguments[0], arguments[1:]
    if word not in _COMMANDS:
        print(f"resume: unknown command {word!r}\n{_usage()}", file=sys.stderr)
        raise SystemExit(2)
    try:
        command = importlib.import_module(f"resume.commands.{word}")
        sweeps = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(rest)
        code = command.run([shielded(a, sweeps=sweeps) for a in rest] if word in _HYDRA else rest)
        sys.stdout.flush()  # here, where a reader that has gone away can still be told from an error
        raise SystemExit(code)
    except ResumeError as error:
        print(f"resume: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("\nresume: interrupted; the same command continues.", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python fails to flush once more at its end
        raise SystemExit(128 + signal.SIGPIPE) from None  # never 0: nobody knows what was left undone


def shielded(argument: str, *, sweeps: bool = False) -> str:
    """Quote an argument's value where it is a path, so that Hydra takes `=`, `,` or brackets in it as they are.

    Left alone are null, an interpolation, what is quoted already and, where Hydra `sweeps`, a list of paths.
    """
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in _PATHS or value in ("", "null") or "${" in value:
        return argument
    quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    if (quoted or (sweeps and "," in value)) and not Path(value).exists():
        return argument
    # Hydra takes backslashes as they are, but for those before a quote, the closing one included.
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", value).replace("'", "\\'")
    return f"{key}='{escaped}'"


def _usage() -> str:
    lines = [f"  {word:<8} {what}" for word, what in _COMMANDS.items()]
    return "usage: python -m resume COMMAND [arguments]   (--help after a command says more)\n\n" + "\n".join(
        lines
    )
