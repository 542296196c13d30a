"""The far side of resume.engine.drill.stable: `python -m resume.commands.stable`, a request a line, a fork a request.

An attempt is what `resume train` does, with its own composition, exit codes and signals; only the tracing is added.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from resume.errors import ResumeError

_EVERY_ATTEMPT = (
    "tensorflow",
    "tensorboard.backend.event_processing.event_accumulator",
    "resume.commands.train",
    "resume.engine.launch",
    "resume.engine.drill.ends",
    "resume.engine.drill.survey",
    "resume.engine.drill.trace",
)


def main() -> None:
    """Answers {"pid": n} when a task has begun and {"code": n} when it has ended."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            _child(request)
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"code": code}), file=answers, flush=True)


def preload() -> None:
    """Import what every attempt imports. Nothing of TensorFlow's runtime is started: a fork could not use it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in _EVERY_ATTEMPT:
        importlib.import_module(name)


def _child(request: dict[str, Any]) -> NoReturn:
    """Do one task in this forked process, its output in a file, and leave with its exit code."""
    handle = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (handle, 1), (handle, 2)):
        os.dup2(source, target)
    code = 1
    try:
        code = _TASKS[request["task"]](request)
    except ResumeError as error:
        print(f"resume: {error}", file=sys.stderr)
        code = error.exit_code
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train(request: dict[str, Any]) -> int:
    from resume.commands import train
    from resume.engine import loop
    from resume.engine.drill import trace

    file = Path(request["trace"])
    return train.run(request["arguments"], act=lambda job: loop.train(trace.traced(job, file)))


def _survey(request: dict[str, Any]) -> int:
    from resume.commands import train
    from resume.engine.drill import survey

    file = Path(request["found"])
    return train.run(request["arguments"], act=lambda job: survey.survey(job, file))


def _compare(request: dict[str, Any]) -> int:
    from resume.engine.drill import ends

    ends.compared(Path(request["whole"]), Path(request["broken"]), Path(request["found"]))
    return 0


_TASKS = {"train": _train, "survey": _survey, "compare": _compare}


if __name__ == "__main__":
    main()
