"""A foreign HDF5 file meets the library in another process first; whatever happens there is a message here."""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing import spawn
from pathlib import Path

import h5py
import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import quarantine, survey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a model's.h5"
    with h5py.File(path, "w") as file:
        file["group/array"] = np.arange(4.0)
    return path


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Puts other code in the place of the survey."""

    def become(code: str) -> None:
        other = tmp_path / "other.py"
        other.write_text(f"import os, signal, sys\n{code}\n")
        monkeypatch.setattr(survey, "__file__", str(other))

    return become


def test_a_sound_file_is_asked_about_once(path: Path, child: object) -> None:
    seen = quarantine.demand(path)
    child("raise SystemExit(1)")  # type: ignore[operator]
    assert quarantine.demand(path) == seen
    os.utime(path, (1, 1))
    assert quarantine.demand(path) != seen


def test_part_of_a_file_and_bytes_in_memory(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    around = tmp_path / "around"
    around.write_bytes(b"x" * 100 + data + b"y" * 100)
    quarantine.demand(around, offset=100, size=len(data))
    quarantine.demand(around, held=data)
    with pytest.raises(SourceError, match=r"around: its HDF5 structure cannot be read"):
        quarantine.demand(around, offset=99, size=len(data))


def test_a_link_is_named_and_its_target_stays_closed(path: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for ever
    with h5py.File(path, "r+") as file:
        file["group/x"] = h5py.ExternalLink(str(pipe), "/x")
    with pytest.raises(SourceError, match=r"a model's.h5: group/x is a link to elsewhere") as caught:
        quarantine.demand(path)
    assert len(str(caught.value).splitlines()) == 2


ENDS = {
    "loops": (
        "signal.setitimer(signal.ITIMER_PROF, 0.2)\nos.write(1, b'ready\\n@group/x\\n')\nwhile True: pass",
        "group/x cannot be read (the HDF5 library did not come to an end)",
    ),
    "crashes": (
        "os.write(1, b'ready\\n@/\\n')\nos.kill(os.getpid(), signal.SIGSEGV)",
        "its HDF5 structure cannot be read (the HDF5 library crashed, SIGSEGV)",
    ),
    "leaves": ("os.write(1, b'ready\\n')\nos._exit(7)", "(the HDF5 library crashed, exit status 7)"),
}


@pytest.mark.parametrize("end", ENDS)
def test_ends_of_the_child(path: Path, child: object, end: str) -> None:
    code, message = ENDS[end]
    child(code)  # type: ignore[operator]
    with pytest.raises(SourceError) as caught:
        quarantine.demand(path)
    assert message in str(caught.value)


def test_a_signal_to_the_whole_job_is_no_damage(path: Path, child: object, tmp_path: Path) -> None:
    """Schedulers send theirs to every process of a job."""
    once = tmp_path / "once"
    child(  # type: ignore[operator]
        f"if not os.path.exists({str(once)!r}):\n"
        f"    open({str(once)!r}, 'w')\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.write(1, b'ready\\nok\\n')"
    )
    quarantine.demand(path)
    assert once.exists()


@pytest.mark.parametrize("executable", [None, "/no/such/python", "/bin/false"])
def test_without_a_child_the_file_is_still_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", None)
    monkeypatch.setattr(spawn, "_python_exe", executable)  # set_executable takes None only in later versions
    quarantine.demand(path)


def test_a_file_that_grows_meanwhile(path: Path, child: object) -> None:
    child(f"open({str(path)!r}, 'ab').write(b'x')\nos.write(1, b'ready\\nok\\n')")  # type: ignore[operator]
    with pytest.raises(SourceError, match="was written to while it was read"):
        quarantine.demand(path)


def test_from_another_thread(path: Path) -> None:
    thread = threading.Thread(target=quarantine.demand, args=[path])
    thread.start()
    thread.join(30)
    assert any(str(path) == key[0] for key in quarantine._sound)


def test_a_zeroed_block_ends_in_a_message_soon(tmp_path: Path) -> None:
    """Whatever the block hit; in some places HDF5 loops for ever."""
    whole = tmp_path / "whole.h5"
    with h5py.File(whole, "w") as file:
        for n in range(40):
            file[f"layer_{n}/kernel"] = np.ones((8, 8), "f4")
            file[f"layer_{n}"].attrs["weight_names"] = [b"kernel"]
    data = whole.read_bytes()
    for at in range(0, 8192, 512):
        damaged = tmp_path / f"{at}.h5"
        damaged.write_bytes(data[:at] + bytes(4096) + data[at + 4096 :])
        started = time.monotonic()
        with pytest.raises(SourceError, match=rf"{at}\.h5: "):
            quarantine.demand(damaged)
        assert time.monotonic() - started < quarantine.SECONDS + 5
