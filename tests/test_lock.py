"""One process a run directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
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


def test_a_note_that_cannot_be_moved_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    held = lock.held(tmp_path)
    held.__enter__()
    monkeypatch.setattr(Path, "replace", replace)
    error = ZeroDivisionError()
    assert not held.__exit__(ZeroDivisionError, error, None)
    monkeypatch.undo()
    with lock.held(tmp_path):
        pass


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


# ---- waiting ----


def test_waits_for_the_holder_to_leave(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    with pytest.raises(RunInUseError), lock.held(tmp_path, wait=0.7):
        pass
    assert 0.7 <= time.monotonic() - began < 2
    holder.send_signal(signal.SIGALRM)  # ends it, unhandled
    with lock.held(tmp_path, wait=10):
        pass
    holder.communicate()


def test_the_job_is_named_too(tmp_path: Path) -> None:
    with (
        lock.held(tmp_path, job="12_3"),
        pytest.raises(RunInUseError, match=rf"pid {os.getpid()}, job 12_3, since 2"),
        lock.held(tmp_path),
    ):
        pass


CONTENDER = """
import os, sys, time
from pathlib import Path
from resume import lock

lock._LOOK = 0.05
run = Path(sys.argv[1])
log = os.open(run / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
(run / f"ready-{os.getpid()}").touch()
while not (run / "go").exists():
    time.sleep(0.01)
with lock.held(run, wait=60):
    os.write(log, f"in {os.getpid()}\\n".encode())
    time.sleep(0.02)
    os.write(log, f"out {os.getpid()}\\n".encode())
"""


def test_thirty_at_once_are_one_at_a_time(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]]
) -> None:
    processes = [python(CONTENDER, tmp_path) for _ in range(30)]
    while len(list(tmp_path.glob("ready-*"))) < 30 and all(process.poll() is None for process in processes):
        time.sleep(0.05)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 30, outputs
    lines = (tmp_path / "log").read_text().splitlines()
    pids = [line.removeprefix("in ") for line in lines[::2]]
    assert lines == [line for pid in pids for line in (f"in {pid}", f"out {pid}")]
    assert sorted(map(int, pids)) == sorted(process.pid for process in processes)


# ---- a holder that stands still ----

SLEEPER = """
import sys
from pathlib import Path
from resume import lock
from resume.errors import RunInUseError

lock._BEAT = 0.1
with lock.held(Path(sys.argv[1])) as claim:
    print("held", flush=True)
    while not (Path(sys.argv[1]) / "publish").exists():
        pass
    try:
        with claim.publishing():
            print("published")
    except RunInUseError as error:
        print(error)
"""


@pytest.fixture
def sleeper(tmp_path: Path, python: Callable[..., subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """Another process that holds the lock, and publishes once `publish` is there."""
    process = python(SLEEPER, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_stopped_holder_is_taken_over_and_publishes_nothing_more(
    tmp_path: Path, sleeper: subprocess.Popen[str]
) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    with pytest.raises(RunInUseError, match=f"pid {sleeper.pid}"), lock.held(tmp_path, stale=1.0):
        pass  # it may be back in a moment
    with lock.held(tmp_path, wait=10, stale=1.0) as claim:
        (tmp_path / "publish").touch()
        sleeper.send_signal(signal.SIGCONT)
        said = sleeper.communicate(timeout=30)[0]
        assert said.startswith(f"{tmp_path}: taken over by another process (host {socket.gethostname()}, pid")
        assert said.endswith("while this one stood still. This one publishes nothing more.\n")
        with claim.publishing():
            pass
        with pytest.raises(RunInUseError), lock.held(tmp_path):
            pass  # though nobody has the lock itself: the stopped process took it along when it ended


def test_a_stopped_holder_is_told_of_a_successor_that_has_ended(
    tmp_path: Path, sleeper: subprocess.Popen[str]
) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    with lock.held(tmp_path, wait=10, stale=1.0):
        pass
    (tmp_path / "publish").touch()
    sleeper.send_signal(signal.SIGCONT)
    assert f"(host {socket.gethostname()}, pid {os.getpid()}, since 2" in sleeper.communicate(timeout=30)[0]
    with lock.held(tmp_path):
        pass


def test_a_living_holder_is_not(tmp_path: Path, sleeper: subprocess.Popen[str]) -> None:
    with pytest.raises(RunInUseError), lock.held(tmp_path, wait=2.5, stale=1.0):
        pass
    (tmp_path / "publish").touch()
    assert sleeper.communicate(timeout=30)[0] == "published\n"


AT_THE_DOOR = """
import os, signal, sys
from pathlib import Path
from resume import lock

with lock.held(Path(sys.argv[1])) as claim, claim.publishing():
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_holder_that_was_stopped_while_it_published(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can publish or take over then; whoever comes is told so, and does not hang."""
    monkeypatch.setattr(lock, "_AJAR", 0.5)
    process = python(AT_THE_DOOR, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunInUseError, match=f"pid {process.pid}"), lock.held(tmp_path, stale=0.1):
        pass
    process.kill()
    process.communicate()
    with lock.held(tmp_path):
        pass


FORKED = """
import os, sys, time
from pathlib import Path
from resume import lock

with lock.held(Path(sys.argv[1])):
    if os.fork() == 0:  # a data worker, which outlives its parent
        time.sleep(3)
        os._exit(0)
    time.sleep(0.3)
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_worker_does_not_keep_the_lock_of_its_killed_parent(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]]
) -> None:
    process = python(FORKED, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    with lock.held(tmp_path, wait=1):
        pass
    assert process.communicate()[0] == ""  # not a word of what happens at a fork
