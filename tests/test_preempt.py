"""Real signals to a real process: a flag and a deadline, and the exit code that its cluster understands."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resume.clusters import Cause, Cluster
from resume.preempt import Notice, Watch, needed

Start = Callable[..., subprocess.Popen[str]]

# `settings` and `body` come as arguments; the body runs while the watch is kept, after `before`.
CHILD = """
import os, signal, sys, threading, time
from resume import clusters, preempt
from resume.settings import ClusterSettings

settings, before, body = sys.argv[1:]
exec(before)
with preempt.Watch(clusters.of(ClusterSettings(**eval(settings)))) as watch:
    watch.phase = preempt.TRAINING
    exec(body)
"""
READY = "print('ready', flush=True)\n"
STEPS = READY + "while watch.notice is None: time.sleep(0.01)\n"
LEAVE = STEPS + "sys.exit(watch.hand_over())\n"


@pytest.fixture
def child(python: Start) -> Iterator[Start]:
    """A process that keeps watch, once it is ready."""
    started = []

    def start(body: str, *, before: str = "", **settings: Any) -> subprocess.Popen[str]:
        started.append(process := python(CHILD, settings or {"kind": "local"}, before, body))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out = process.communicate(timeout=30)[0]
    return process.returncode, out


# ---- a flag, and nothing else ----


def test_the_step_in_progress_is_not_disturbed(child: Start) -> None:
    body = READY + (
        "slept = time.monotonic(); time.sleep(1); slept = time.monotonic() - slept\n"
        "print(slept >= 1, watch.notice.cause.reason, watch.notice.signal.name)\n"
    )
    process = child(body)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    code, out = ended(process)
    assert (code, out.splitlines()[-1]) == (0, "True preempted SIGTERM")
    assert out.splitlines()[0] == "preempted (SIGTERM): saving after this step"


def test_a_second_signal_changes_nothing(child: Start) -> None:
    body = (
        STEPS
        + "first = watch.notice; time.sleep(1); print(watch.notice is first); sys.exit(watch.hand_over())"
    )
    process = child(body)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)
    for again in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(again)
    code, out = ended(process)
    assert code == 75
    assert out.splitlines()[0] == "preempted (SIGUSR1): saving after this step"
    assert len(out.splitlines()) == 2


def test_signals_that_the_launcher_has_blocked(child: Start) -> None:
    process = child(LEAVE, before="signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 75


def test_a_worker_that_is_terminated_is_no_preemption(child: Start) -> None:
    """A forked process shares the pipe, and inherits the handlers: it has to let go of both."""
    body = (
        "import multiprocessing\n"
        "pool = multiprocessing.get_context('fork').Pool(2); pool.map(abs, range(4)); pool.terminate(); pool.join()\n"
        "time.sleep(0.3); print(watch.notice, flush=True)\n"
    )
    process = child(body + LEAVE, before=READY)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    code, out = ended(process)
    assert (code, out.splitlines()[:2]) == (75, ["None", "ready"])


def test_a_worker_that_is_terminated_as_it_is_born_ends(child: Start) -> None:
    """Its signal may find it before it has let go of our handler."""
    body = (
        "ends = []\n"
        "for _ in range(300):\n"
        "    pid = os.fork()\n"
        "    if pid == 0: time.sleep(5); os._exit(0)\n"
        "    os.kill(pid, signal.SIGTERM)\n"
        "    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "print(set(ends), watch.notice, flush=True)\n"
    )
    code, out = ended(child(body, before=READY))
    assert (code, out) == (0, "{-15} None\n")


# ---- the deadline ----

STUCK = {
    "a loop of sleeps": "while True: time.sleep(0.5)",
    "one long sleep": "time.sleep(60)",
    "a matrix product": "import numpy; a = numpy.ones((9000, 9000), 'f'); print('ready', flush=True); a @ a @ a @ a",
    "a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
}


@pytest.mark.parametrize("what", STUCK)
def test_the_thread_leaves_where_the_main_thread_cannot(child: Start, what: str) -> None:
    told = "watch.at_exit = lambda reason: print('noted:', reason, flush=True)\n"
    body = told + (STUCK[what] if "ready" in STUCK[what] else READY + STUCK[what])
    process = child(body, kind="local", grace=2.0)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code, out = ended(process)
    assert code == 75
    assert 0.7 < time.monotonic() - began < 2.0
    assert out.splitlines() == [
        "preempted (SIGTERM), 2 s left: saving after this step",
        "preempted (SIGTERM): the step did not end in time; what is published already is kept",
        "noted: preempted (SIGTERM): the step did not end in time; what is published already is kept",
    ]


def test_before_the_first_step_there_is_nothing_to_wait_for(child: Start) -> None:
    process = child("watch.phase = preempt.STARTING\n" + READY + "time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert ended(process) == (75, "preempted (SIGTERM): nothing was trained yet\n")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("left", "longest", "expected"),
    [(None, 99.0, True), (10.0, 2.0, True), (3.5, 2.0, False), (2.5, 0.0, False)],
)
def test_time_to_save(left: float | None, longest: float, expected: bool) -> None:
    watch = Watch(Cluster("local", (), 75))
    assert watch.time_to_save()  # nobody is in a hurry
    now = time.monotonic()
    watch.notice = Notice(signal.SIGTERM, Cause("preempted", left), now, None if left is None else now + left)
    watch.saved(longest)
    watch.saved(longest / 2)
    assert watch.time_to_save() is expected
    assert needed(longest) > longest


# ---- what others had installed ----


def test_the_earlier_handler_has_its_turn(child: Start) -> None:
    process = child(
        LEAVE, before="signal.signal(signal.SIGTERM, lambda n, f: print('theirs', n, f, flush=True))"
    )
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (75, "preempted (SIGTERM): saving after this step\ntheirs 15 None\n")


@pytest.mark.parametrize(
    ("raised", "said"), [("SystemExit(1)", ""), ("OSError('no queue')", "(OSError: no queue)")]
)
def test_an_earlier_handler_that_raises(child: Start, raised: str, said: str) -> None:
    process = child(LEAVE, before=f"def theirs(n, f): raise {raised}\nsignal.signal(signal.SIGTERM, theirs)")
    process.send_signal(signal.SIGTERM)
    code, out = ended(process)
    assert code == 75
    assert said in out
    assert "Traceback" not in out


def test_everything_is_given_back(python: Start) -> None:
    code = """
import os, signal
from resume import clusters, preempt
from resume.settings import ClusterSettings

read, write = os.pipe()
os.set_blocking(write, False)
theirs = lambda n, f: None
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs in the background
signal.signal(signal.SIGUSR1, theirs)
signal.set_wakeup_fd(write)
with preempt.Watch(clusters.of(ClusterSettings())) as watch:
    assert preempt.current is watch
    watch.phase = preempt.TRAINING
    assert signal.getsignal(signal.SIGUSR1) is not theirs
    signal.raise_signal(signal.SIGUSR1)
    handed_on = os.read(read, 1)
assert preempt.current is None
print(handed_on, signal.getsignal(signal.SIGUSR1) is theirs, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
      signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.set_wakeup_fd(-1) == write)
"""
    out = python(code.replace("ClusterSettings()", "ClusterSettings(kind='local')")).communicate(timeout=30)[
        0
    ]
    assert out.splitlines()[-1] == r"b'\n' True True True True"


def test_whoever_is_through_is_not_ended(python: Start) -> None:
    """The cause was asked for while the main thread failed on its own."""
    code = """
import signal, threading
from resume import clusters, preempt
from resume.settings import ClusterSettings

asked, answer, codes = threading.Event(), threading.Event(), []
def cause(cluster, number):
    asked.set()
    answer.wait()
    return clusters.Cause("preempted", 30.0)
preempt.clusters.cause, known = cause, preempt.clusters.cause
with preempt.Watch(clusters.of(ClusterSettings(kind="local")), leave=codes.append) as watch:
    signal.raise_signal(signal.SIGTERM)
    asked.wait()
answer.set()
for thread in threading.enumerate():
    if thread.name == "resume-preempt":
        thread.join()
print(codes, watch.phase)
"""
    assert python(code).communicate(timeout=30)[0] == "[] starting\n"


def test_other_signals_from_now_on(child: Start) -> None:
    become = "watch.become(clusters.of(ClusterSettings(kind='local', signals=['HUP'], exit_code=9)))\n"
    process = child(become + LEAVE)
    process.send_signal(signal.SIGHUP)
    assert ended(process)[0] == 9
    process = child(become + LEAVE)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == -15


def test_outside_the_main_thread_nothing_is_heard(python: Start) -> None:
    code = """
import signal, threading
from resume import clusters, preempt
from resume.settings import ClusterSettings

def elsewhere():
    with preempt.Watch(clusters.of(ClusterSettings(kind="local"))):
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)

thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
"""
    assert python(code).communicate(timeout=30)[0] == "True\n"


# ---- what each cluster is told ----


def test_nobody_leaves_while_the_thread_speaks(child: Start) -> None:
    """An interpreter that ends while another thread writes to its output aborts."""
    body = "said = []\nwatch.say = lambda line: (time.sleep(0.5), said.append(line))\n" + STEPS
    process = child(body + "watch.hand_over()\nprint(len(said))\n")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "1\n")


@pytest.mark.parametrize(
    ("settings", "number", "code"),
    [
        ({"kind": "local"}, signal.SIGTERM, 75),
        ({"kind": "local"}, signal.SIGINT, 130),
        ({"kind": "local", "exit_code": 99}, signal.SIGUSR2, 99),
        ({"kind": "kubernetes"}, signal.SIGTERM, 143),
        ({"kind": "slurm", "requeue": False}, signal.SIGUSR2, 75),
        ({"kind": "slurm"}, signal.SIGTERM, 75),  # not in a job: nothing to requeue
    ],
)
def test_exit_codes(child: Start, settings: dict[str, Any], number: signal.Signals, code: int) -> None:
    process = child(LEAVE, before="os.environ.pop('SLURM_JOB_ID', None)", **settings)
    process.send_signal(number)
    assert ended(process)[0] == code


SCONTROL = """#!/bin/sh
[ "$1" != show ] || {{ echo "JobState=RUNNING Restarts=0 PreemptTime=None EndTime=Unknown"; exit 0; }}
echo "$*" >> {log}
echo "{said}" >&2
exit {code}
"""


@pytest.fixture
def scontrol(tmp_path: Path) -> Callable[[str, int], str]:
    """Stands in for a Slurm that refuses; what it is asked is in `asked`. A real one: tests/e2e/test_slurm.py."""

    def made(said: str, code: int) -> str:
        file = tmp_path / "scontrol"
        file.write_text(SCONTROL.format(log=tmp_path / "asked", said=said, code=code))
        file.chmod(0o755)
        return f"os.environ.update(PATH='{tmp_path}:' + os.environ['PATH'], SLURM_JOB_ID='7')\n"

    return made


def test_parked_where_slurm_refuses_to_requeue(
    child: Start, scontrol: Callable[[str, int], str], tmp_path: Path
) -> None:
    """Slurm starts again what it has killed, and not what has left by itself."""
    process = child(LEAVE, before=scontrol("Requested operation is presently disabled", 1), kind="slurm")
    process.send_signal(signal.SIGUSR2)
    assert process.stdout is not None
    assert process.stdout.readline() == "signalled (SIGUSR2): saving after this step\n"
    said = "job 7 is not requeued (Requested operation is presently disabled): waiting to be killed\n"
    assert process.stdout.readline() == said
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.kill()
    assert ended(process)[0] == -9
    assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_requeued_already(child: Start, scontrol: Callable[[str, int], str]) -> None:
    process = child(LEAVE, before=scontrol("Job is pending execution for job 7", 1), kind="slurm")
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 75
