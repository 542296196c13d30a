"""A foreign HDF5 file is parsed in a process of its own before this one opens it (resume.formats.survey).

The ways that were measured (two cores, h5py 3.15): a child interpreter without site packages costs 0.1 s and 37 MB,
once a file; os.fork costs 0.01 s, but a process with TensorFlow in it has threads, and their locks with it; an alarm
in this process cannot interrupt the library's C code; limits set on this process would be the user's training's. The
structure is walked, and what is stored in pieces or compressed; not the values of arrays that lie in one stretch, so
that the size of a file of Keras's hardly matters.

Where no child can be started (no free process, no interpreter to start), the file is opened without one: no file can
bring that about.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
from multiprocessing import spawn
from pathlib import Path

from resume.errors import SourceError
from resume.formats import survey

SECONDS = 3.0  # of processor time that the library may take for one object
SPARE = 1 << 28  # bytes of memory that it may take beside four times the file's size
_WALL = 120.0  # seconds; a slow disk is no damage
_MB_PER_SECOND = 5  # at which the slowest of disks is still read

# Signals that are not about the file: whoever ends a job may send them to each of its processes.
_OUTSIDE = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGUSR1, -signal.SIGUSR2}
_KEEP = 64  # verdicts

Stamp = tuple[int, int, int, int]
_sound: dict[tuple[str, int, int, Stamp], None] = {}


def stamp(path: Path) -> Stamp:
    """What tells whether a file is still the one that was seen."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def demand(
    path: Path,
    *,
    offset: int = 0,
    size: int | None = None,
    held: bytes | None = None,
    element: str = "its HDF5 structure",
) -> Stamp:
    """Raise SourceError unless the HDF5 file at `path` (a part of it; or `held`, out of it) can be parsed safely.

    `element`: what to call it where no address in it can be named.
    Returns what the file was recognised by: asked again for a file that has not changed, it answers from memory.
    OSError as the file system has it.
    """
    seen = stamp(path)
    size = seen[2] - offset if size is None else size
    key = str(path.absolute()), offset if held is None else -1, size, seen
    if key in _sound:
        return seen
    complaint = _surveyed(path, offset, size, held, element)
    if stamp(path) != seen:
        raise SourceError(
            f"{path}: the file was written to while it was read. Try again once it is complete."
        )
    if complaint is not None:
        raise SourceError(
            f"{path}: {complaint}.\nThe file is damaged or was cut off; resume from an earlier checkpoint."
        )
    if len(_sound) >= _KEEP:
        _sound.clear()
    _sound[key] = None
    return seen


def _surveyed(path: Path, offset: int, size: int, held: bytes | None, element: str) -> str | None:
    request = {
        "path": str(path.absolute()) if held is None else None,
        "offset": offset,
        "size": size,
        "memory": SPARE,
        "seconds": SECONDS,
        "paths": _import_paths(),
    }
    wall = _WALL + size / (_MB_PER_SECOND << 20)
    for _ in range(3):
        try:
            done = _run(json.dumps(request), held, wall)
        except subprocess.TimeoutExpired:
            return f"could not be read in {wall:.0f} seconds"
        except OSError:
            return None
        if done.returncode not in _OUTSIDE:
            break
    return _verdict(done.stdout.decode("utf-8", "replace").splitlines(), done.returncode, element)


def _run(request: str, held: bytes | None, wall: float) -> subprocess.CompletedProcess[bytes]:
    executable = spawn.get_executable()
    if not executable:
        raise FileNotFoundError("no interpreter to start")
    return subprocess.run(
        [executable, "-I", "-S", str(Path(survey.__file__)), request],
        input=b"" if held is None else held,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=wall,
        check=False,
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"},
    )


def _import_paths() -> list[str]:
    """Where this process has h5py and NumPy from."""
    found = [importlib.util.find_spec(name) for name in ("h5py", "numpy")]
    places = [str(Path(spec.origin).parents[1]) for spec in found if spec is not None and spec.origin]
    return list(dict.fromkeys(places))


def _verdict(lines: list[str], code: int, element: str) -> str | None:
    """What the child has found wrong; None for a sound file, and for a child that never came to the file."""
    if survey.READY not in lines or survey.OK in lines:
        return None
    last = next((line[1:] for line in reversed(lines) if line.startswith(survey.AT)), "")
    where = last if last not in ("", "/") else element
    if lines[-1].startswith("{"):
        found = json.loads(lines[-1])
        return f"{found['address'] or element} {found['cause']}"
    if code == -signal.SIGPROF:
        return f"{where} cannot be read (the HDF5 library did not come to an end)"
    return f"{where} cannot be read (the HDF5 library crashed, {_name(code)})"


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
