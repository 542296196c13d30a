"""Publishing beside the training: a snapshot is taken at a step boundary, one thread writes it while steps go on.

At most one snapshot is in flight. What the thread could not do reaches the main thread at the next step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from resume import lineage
from resume.engine import devices, snapshot
from resume.engine.callbacks import OwnLog
from resume.engine.job import Job
from resume.engine.remote import Tier
from resume.engine.snapshot import References
from resume.errors import ContinuityError, ResumeError, RunInUseError
from resume.filesystem import size
from resume.formats.shard import Buffers
from resume.rundir import Directory, Published
from resume.state import TrainState

_SPARE = 1.05  # times the state, that must be free on the device
_WAITING = 0.6  # of the state that may wait for the disk: what updates copy beside it is to find room, too
# Seconds until the main thread computes again, outside the interpreter: both would want that until then.
_HEAD_START = 0.002
_LONG = 1.0  # seconds of waiting that are worth a word


@dataclass(frozen=True)
class Saved:
    """`seconds`: from the step boundary until it was published; `blocked`: how long the training stood still."""

    step: int
    seconds: float
    blocked: float
    nbytes: int
    trouble: str | None = None  # in noting it or in retiring others


class Saver:
    """Publishes an attempt's checkpoints. Everything here is the main thread's but `_publish`."""

    def __init__(
        self,
        job: Job,
        directory: Directory,
        tier: Tier,
        *,
        attempt: int,
        newest: int,
        own_log: OwnLog,
        beside: bool,
        nbytes: int,
    ) -> None:
        """`beside`: write while the training goes on. `nbytes`: of a checkpoint."""
        self.job, self.directory, self.tier, self.attempt = job, directory, tier, attempt
        self.own_log, self.beside = own_log, beside
        self._on_gpu = devices.free_memory() is not None
        if beside and not self._on_gpu:
            # An update that finds a reference copies into fresh memory, which costs more than all else here: so an
            # array seldom waits for the disk. A GPU copies on its own, at its own speed.
            directory.buffers = Buffers.holding(int(nbytes * _WAITING))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="resume-save")
        self._flight: Future[Saved] | None = None
        self._step = newest  # of the newest checkpoint, or of the snapshot in flight
        self._failure: ResumeError | None = None
        self._ending = False  # there is no next one
        self._said: set[str] = set()

    def save(self, take: Callable[[], TrainState], *, must: bool = True) -> bool:
        """Take a snapshot and have it published; False where an earlier one is still being written, unless it `must`.

        Raises ResumeError for what became of the earlier one.
        """
        started = time.perf_counter()
        busy = self._flight is not None and not self._flight.done()
        if busy and self.job.when_busy == "skip" and not must:
            self._once(
                "the schedule is faster than the disk: checkpoints wait for the one before (when_busy=skip)"
            )
            return False
        self.collect(wait=True)
        if busy and time.perf_counter() - started > _LONG:
            self._once(
                "the schedule is faster than the disk: the training waits for it (checkpoint.when_busy=wait)"
            )
        state = take()
        self._go_on_to(state.iterations or 0)
        self._make_room(state)
        blocked = time.perf_counter() - started
        self._flight = self._pool.submit(self._publish, state, started, blocked)
        if not self.beside:
            self.collect(wait=True)
        return True

    def _go_on_to(self, step: int) -> None:
        """The newest checkpoint is the one with the highest step: a step that goes back would never be found again."""
        if step < self._step:
            raise ContinuityError(
                f"{self.directory.path}: the optimizer's iterations went back, {self._step} -> {step}: it was made "
                "anew, by model.compile() in a callback or as a fresh one. Nothing of that is published. Compile once, "
                f"or begin another run from this one: run_dir=ANOTHER +ckpt={self.directory.path}"
            )
        self._step = step

    def _make_room(self, state: TrainState) -> None:
        """Where the device has no room for a second copy of the state, it is copied to the host here and now."""
        free = devices.free_memory() if self._on_gpu else None
        if free is not None and free < state.nbytes * _SPARE and isinstance(state.arrays, References):
            self._once(
                f"checkpoints are copied from the GPU while the training waits: {size(free)} are free there"
            )
            state.arrays.bring_all()

    def _publish(self, state: TrainState, started: float, blocked: float) -> Saved:
        if self.beside:
            time.sleep(_HEAD_START)
        state = snapshot.settled(state)
        step = state.iterations or 0

        def note(published: Published) -> None:
            lineage.reconcile(self.job.run_dir, but=published.path)  # what could not be noted in its time
            seconds = time.perf_counter() - started
            lineage.published(
                self.job.run_dir, published.path, attempt=self.attempt, seconds=seconds,
                blocked=blocked if self.beside else seconds, bytes=published.nbytes,
            )  # fmt: skip

        published = self.directory.publish(state, note=note)
        self.tier.published()
        seconds = time.perf_counter() - started
        saved = Saved(step, seconds, blocked if self.beside else seconds, published.nbytes, published.trouble)
        self.own_log.checkpoint(step=step, seconds=seconds, blocked=saved.blocked, nbytes=published.nbytes)
        self.directory.buffers.spare()
        return saved

    def collect(self, *, wait: bool = False) -> None:
        """What became of the snapshot in flight, if that is known; with `wait`, once it is.

        Raises ResumeError for one that could not be published, RunInUseError where another process has the run now.
        """
        self.tier.demand()
        flight = self._flight
        if flight is None or not (wait or flight.done()):
            return
        self._flight = None
        # Not result(), whose traceback would hold this frame, and this frame the flight with all its arrays.
        error = flight.exception()
        if isinstance(error, OSError):
            self._failed(error)
            return
        saved = flight.result()
        self._failure = None
        if saved.trouble is not None:
            self.job.say(
                f"step {saved.step} is published, but what comes after that failed ({saved.trouble})"
            )
        self.job.watch.saved(saved.seconds)

    def _failed(self, error: OSError) -> None:
        failure = ResumeError(
            f"{self.directory.path}: step {self._step} could not be published ({error.strerror or error}). "
            "Earlier checkpoints are as they were: make room or repair it, then repeat the command."
        )
        if self.job.on_failure == "stop" or self._ending:
            self._failure = None  # of an earlier one, which was said
            raise failure from error
        self.job.say(
            f"{failure}\nThe training goes on (checkpoint.on_failure=warn), and tries again when the next is due."
        )
        self._failure = failure

    def finish(self) -> None:
        """Wait for the snapshot in flight. Raises ResumeError where the last one was not published."""
        self._ending = True
        self.collect(wait=True)
        self._pool.shutdown()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def abandon(self) -> None:
        """After an error of the training, which is what has to be told: what is in flight is still written.

        Raises RunInUseError where another process has the run now.
        """
        try:
            self.finish()
        except RunInUseError:
            raise
        except Exception as error:
            self.job.say(str(error))

    def _once(self, line: str) -> None:
        if line not in self._said:
            self.job.say(line)
            self._said.add(line)
