"""Many drills in one go, on the same two stables: JSON in, JSON out.

    echo '{"unseeded": ["data.train._target_=faults.unseeded"]}' | python tests/e2e/drills.py

A list overrides the experiment `plain` (tests/e2e/drills), which has no fault; an object is a drill's own arguments.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from resume.engine.drill.rehearsal import Drill, rehearse, stables
from resume.engine.drill.stable import Stable

HERE = Path(__file__).parent


def run(case: Any, folder: Path, ready: list[Stable]) -> dict[str, Any]:
    if isinstance(case, dict):
        return rehearse(Drill(tuple(case.pop("arguments")), folder, **case), ready).json()
    arguments = ("--config-dir", str(HERE / "drills"), "+experiment=plain", *case)
    return rehearse(Drill(arguments, folder, epochs=2, steps=6, kills=2), ready).json()


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    cases = json.load(sys.stdin)
    found = {}
    with tempfile.TemporaryDirectory() as scratch, stables(Path(scratch)) as ready:
        for name, case in cases.items():
            folder = Path(scratch) / name
            folder.mkdir()
            found[name] = run(case, folder, ready)
    print(json.dumps(found))
