"""Leave in time: a signal sets a flag; the main thread saves at the next step boundary; a second thread keeps watch.

Python runs a handler in the main thread and between two bytecodes: inside a long step it has to wait. So the handler
here does nothing, and a thread reads the pipe into which the interpreter's own C handler writes each signal at once
(signal.set_wakeup_fd). That thread knows the deadline, and when the step boundary would come too late it leaves with
what is published already, by os._exit: nothing that is published can be harmed by that.

    starting    import, restore, before the first step: nothing is trained, so nothing is saved; the thread leaves, but
                for Ctrl-C in a process of the user's own, where the main thread raises KeyboardInterrupt
    training    the main thread has until shortly before the deadline
    leaving     the main thread is on its way out; the same watch is kept
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from resume import clusters, notices
from resume.clusters import Cause, Cluster

STARTING, TRAINING, LEAVING = "starting", "training", "leaving"
_RESERVE = 1.0  # seconds before the deadline at which the thread leaves, for what is left to do
_FIRST_SAVE = 2.0  # seconds that a save is taken to need before one has been seen
_EVERY = 5.0  # seconds between questions to a cloud
_TELLING = 6.0  # seconds for the cluster to tell the cause
_SLACK = 1.5  # times the longest save seen, that the next may need

Result = TypeVar("Result")
Handler = Callable[[int, FrameType | None], Any]


class Preempted(BaseException):
    """Raised in the main thread at a step boundary, once there is nothing left to save."""


@dataclass(frozen=True)
class Notice:
    """`signal`: None for a cloud's notice. `deadline`: of the kill, by the monotonic clock; None where nobody knows."""

    signal: signal.Signals | None
    cause: Cause
    since: float
    deadline: float | None

    def __str__(self) -> str:
        return f"{self.cause.reason} ({self.signal.name if self.signal is not None else 'a notice of the cloud'})"


def _say(line: str) -> None:
    """A line in one piece, at once: two threads speak, and one of them may be about to leave."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


current: Watch | None = None  # of this process: signals belong to a process


class Watch:
    """Signals of one process. Use as a context in the main thread; elsewhere it hears nothing."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        say: Callable[[str], None] = _say,
        leave: Callable[[int], Any] = os._exit,
        guest: bool = False,
    ) -> None:
        """`guest`: in a process that is the user's, a notebook's, say: Ctrl-C does not end it."""
        self.cluster, self.say, self._exit, self.guest = cluster, say, leave, guest
        self.phase = STARTING
        self.notice: Notice | None = None
        self.longest_save = 0.0
        self.at_exit: Callable[[str], None] = lambda reason: None  # what the thread notes before it leaves
        self._earlier: dict[signal.Signals, Any] = {}
        self._done = threading.Event()
        self._told = threading.Event()  # the cause of the notice is known, and said
        self._voice = threading.Lock()  # whoever has left the watch hears nothing more from its threads
        self._asks = False
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1
        self._mask = threading.local()  # of the thread that forks

    # -- hearing ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Watch:
        global current
        current = self
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        for number in self.cluster.signals:
            self._earlier[number] = signal.signal(number, _flag_only)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.cluster.signals)  # a launcher's mask is inherited
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._forked)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="resume-preempt", daemon=True).start()
        self._ask_clouds()
        return self

    def become(self, cluster: Cluster) -> None:
        """Other signals than those that were listened to until now; a notice that has come stays one."""
        self.cluster = cluster
        if self._pipe is None:
            return
        for number in set(self._earlier) - set(cluster.signals):
            signal.signal(number, _given_back(self._earlier.pop(number)))
        for number in set(cluster.signals) - set(self._earlier):
            self._earlier[number] = signal.signal(number, _flag_only)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, cluster.signals)
        self._ask_clouds()

    def __exit__(self, *_: object) -> None:
        with self._voice if self._pipe is not None else contextlib.nullcontext():
            self._done.set()
        pipe = self._pipe
        self._let_go()
        if pipe is not None:
            with contextlib.suppress(OSError):
                os.write(pipe[1], b"\0")  # the thread's end of the matter, which closes what it reads from
            os.close(pipe[1])

    def _hold(self) -> None:
        """Before a fork. A signal that finds the child while it still has our handler would be lost there: it waits."""
        if self._pipe is not None:
            self._mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, set(self._earlier))

    def _release(self) -> None:
        before = self._mask.__dict__.pop("before", None)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _forked(self) -> None:
        """In the child, whose signals (Pool.terminate sends SIGTERM) are its own, and none of ours."""
        self._let_go()
        self._release()

    def _let_go(self) -> None:
        """Everything as it was before."""
        global current
        current = None
        if self._pipe is None:
            return
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._earlier.items():
            if signal.getsignal(number) is _flag_only:
                signal.signal(number, _given_back(handler))
        self._pipe = None

    def _listen(self) -> None:
        assert self._pipe is not None
        read, _ = self._pipe
        while not self._done.is_set():
            for number in os.read(read, 64):
                self._hand_on(number)
                if number in self._earlier and self.notice is None:
                    self._heard(signal.Signals(number))
        os.close(read)

    def _hand_on(self, number: int) -> None:
        """To whoever listened before us."""
        if self._wakeup >= 0 and number:
            with contextlib.suppress(OSError):
                os.write(self._wakeup, bytes([number]))

    def _heard(self, number: signal.Signals) -> None:
        """The flag first: asking the cluster for the cause takes its time."""
        now = time.monotonic()
        self.notice = Notice(
            number, Cause("preempted", self.cluster.grace), now, _after(now, self.cluster.grace)
        )
        cause = clusters.cause(self.cluster, number)
        self.notice = Notice(number, cause, now, _after(now, cause.seconds))
        self._keep_watch(self.notice)

    def _ask_clouds(self) -> None:
        if self.cluster.notices and not self._asks:
            self._asks = True
            threading.Thread(target=self._ask, name="resume-notices", daemon=True).start()

    def _ask(self) -> None:
        while self.notice is None and not self._done.wait(_EVERY):
            for cloud in self.cluster.notices:
                cause = notices.asked(cloud, address=self.cluster.notice_address)
                if cause is not None and self.notice is None:
                    now = time.monotonic()
                    self.notice = Notice(None, cause, now, _after(now, cause.seconds))
                    self._keep_watch(self.notice)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _keep_watch(self, notice: Notice) -> None:
        left = "" if notice.deadline is None else f", {notice.cause.seconds:.0f} s left"
        if self.phase == STARTING:
            self._told.set()
            if not self.raises(notice.signal):
                self._leave("nothing was trained yet")
            return
        try:
            self._speak(f"{notice}{left}: saving after this step")
        finally:
            # Not before: a main thread that leaves while this one writes aborts the interpreter (exit code 134).
            self._told.set()
        wait = None if notice.deadline is None else max(notice.deadline - _RESERVE - time.monotonic(), 0.0)
        if not self._done.wait(wait):
            self._leave("the step did not end in time; what is published already is kept")

    def raises(self, number: int | None) -> bool:
        """Whether the main thread's handler raises KeyboardInterrupt, as nothing is being saved."""
        return self.guest and number == signal.SIGINT and self.phase == STARTING

    def _speak(self, line: str) -> None:
        """Not beside a main thread that is through: it may print, or end the interpreter, which aborts (134) then."""
        with self._voice:
            if not self._done.is_set():
                self.say(line)

    def _leave(self, why: str) -> None:
        """From the thread, while the main thread is somewhere that cannot be waited for."""
        notice = self.notice
        assert notice is not None
        if self._done.is_set():
            return  # the main thread is through, with an exit code of its own
        with contextlib.suppress(Exception):
            self._speak(f"{notice}: {why}")
            self.at_exit(f"{notice}: {why}")
        code = self.hand_over()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        self._exit(code)

    # -- the main thread -------------------------------------------------------------------------------------------

    def saved(self, seconds: float) -> None:
        self.longest_save = max(self.longest_save, seconds)

    def time_to_save(self) -> bool:
        """Whether a save would end before the deadline, by what saves have taken here."""
        if self.notice is None or self.notice.deadline is None:
            return True
        return time.monotonic() + needed(self.longest_save) < self.notice.deadline

    def told(self) -> Notice:
        """The notice, once the cluster has told its cause, or has had the time to."""
        self._told.wait(_TELLING)
        assert self.notice is not None
        return self.notice

    def hand_over(self) -> int:
        """The earlier handler's turn, then the cluster's part. Returns the exit code; does not return from parking."""
        notice = self.told()
        earlier = self._earlier.get(notice.signal) if notice.signal is not None else None
        if notice.signal is not None and callable(earlier) and earlier is not signal.default_int_handler:
            self._their_turn(earlier, notice.signal)
        if notice.cause.reason == "interrupted":
            return 128 + signal.SIGINT
        if self.cluster.requeue and notice.cause.again and self.cluster.job is not None:
            refused = clusters.requeue(self.cluster.job)
            if refused is not None:
                self._park(f"job {self.cluster.job} is not requeued ({refused})")
        return self.cluster.exit_code

    def _their_turn(self, earlier: Handler, number: signal.Signals) -> None:
        """Whatever it raises, it is this process that leaves, with its own code."""
        try:
            earlier(number, None)
        except SystemExit:
            pass
        except Exception as error:
            self.say(f"the earlier handler of {number.name} failed ({type(error).__name__}: {error})")

    def _park(self, why: str) -> None:
        """Slurm starts a killed job again, and not one that has left by itself."""
        self.say(f"{why}: waiting to be killed")
        sys.stdout.flush()
        while True:
            time.sleep(60)


def obeyed(watch: Watch, work: Callable[[], Result]) -> Result:
    """What `work` returns; SystemExit with the cluster's code where it left in time, after Ctrl-C KeyboardInterrupt."""
    try:
        return work()
    except Preempted as left:
        watch.say(f"{left}: left in time; the same command continues.")
        code = watch.hand_over()
        if watch.notice is not None and watch.notice.signal == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(code) from None


@contextlib.contextmanager
def watching(cluster: Cluster) -> Iterator[Watch]:
    """The watch of this process, from now on for this cluster; a new one where there is none yet."""
    if current is not None:
        current.become(cluster)
        yield current
        return
    with Watch(cluster) as watch:
        yield watch


def needed(longest_save: float) -> float:
    """Seconds before the kill at which a save must begin, where saves took so long here; 0.0 where none was seen."""
    return (longest_save * _SLACK or _FIRST_SAVE) + _RESERVE


def _after(now: float, seconds: float | None) -> float | None:
    return None if seconds is None else now + seconds


def _given_back(handler: Any) -> Any:
    """None stands for a handler that was not Python's."""
    return handler if handler is not None else signal.SIG_DFL


def _flag_only(number: int, frame: FrameType | None) -> None:
    """The thread has heard it already. Raising here would cut a save in half."""
    if current is not None and current.raises(number):
        raise KeyboardInterrupt
