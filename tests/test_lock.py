"""One process a run directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resume import lock
from resume.errors import RunInUseError

HOLDER = """
import sys, time
from pathlib import Path
from resume import lock

with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, python: Callable[..., subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = python(HOLDER, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_is_there(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    try:
        with pytest.raises(RunInUseError) as raised, lock.held(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert str(raised.value).startswith(
        f"{tmp_path}: another process trains here (host {socket.gethostname()}, pid {holder.pid}, since 2"
    )
    assert str(raised.value).endswith("). Wait for it (cluster.wait=SECONDS), or stop it.")
    assert raised.value.exit_code == 5


def test_a_killed_holder_frees_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert f'"pid": {holder.pid}' in (tmp_path / "owner.json").read_text()  # it had no time to tidy up
    with lock.held(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / "owner.json").read_text()


def test_held_once_in_one_process_too(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        with pytest.raises(RunInUseError, match=f"pid {os.getpid()}, since"), lock.held(tmp_path):
            pass
        assert (tmp_path / "owner.json").is_file()  # the refused one has not taken the note away
    with lock.held(tmp_path):
        pass


def test_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path):
        raise ZeroDivisionError
    with lock.held(tmp_path):
        pass
    assert not (tmp_path / "owner.json").exists()


def test_the_lock_file_stays(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        inode = (tmp_path / "lock").stat().st_ino
    assert (tmp_path / "lock").stat().st_ino == inode


@pytest.mark.parametrize("note", [None, "", "{", '{"pid": 1}', "[1]"])
def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path, note: str | None) -> None:
    with lock.held(tmp_path):
        (tmp_path / "owner.json").unlink() if note is None else (tmp_path / "owner.json").write_text(note)
        with pytest.raises(RunInUseError, match="it has not said who it is"), lock.held(tmp_path):
            pass
