"""Run `resume` command lines, a process each, TensorFlow imported once: JSON in, JSON out.

    echo '[{"folder": ".", "arguments": ["train", "fit.epochs=1"]}]' | python tests/e2e/batch.py

Prints a list of {"code": exit code, "output": what it printed}. `"python": "code"` instead of `arguments` runs that.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import processes


def run(case: dict[str, Any], log: Path) -> dict[str, Any]:
    log.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        os.chdir(case["folder"])
        sys.path.insert(0, ".")
        if "python" in case:
            processes.child(lambda: exec(case["python"], {"__name__": "__main__"}), log)
        processes.child(lambda: processes.command(case["arguments"]), log)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"code": code, "output": log.read_text() if log.exists() else ""}


if __name__ == "__main__":
    processes.preload()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps([run(case, Path(scratch) / "log") for case in json.load(sys.stdin)]))
