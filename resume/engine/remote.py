"""The tier behind a run directory, over one attempt: taken, brought here, followed, and waited for at the end.

A run on this machine alone has one too, which does nothing: the engine's line is the same for both.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

from resume import tenure, tiers
from resume.engine.job import Job
from resume.errors import RunInUseError
from resume.storage import Remote
from resume.tenure import Tenure
from resume.uploading import Uploader

_PATIENCE = 30.0  # seconds in which a server that is away may come back, where nobody knows how long there is
_RESERVE = 2.0  # seconds before the kill: the watch leaves one second before it (resume.preempt)
_LATE = 10.0  # seconds in which a holder that is stale must be seen to be


class Tier:
    """Of a run that lies on this machine alone."""

    passed: tuple[str, ...] = ()  # a sentence for each newer checkpoint there that was not taken

    def begun(self) -> None:
        """The attempt is noted in the lineage; its first step comes next."""

    def published(self) -> None:
        """A checkpoint is in the run directory. Returns at once."""

    def demand(self) -> None:
        """Raises RunInUseError where another process has taken the run over."""


class Behind(Tier):
    """Of a run behind a URL: what is published here goes there, by a thread that the training never waits for."""

    def __init__(self, job: Job, remote: Remote, held: Tenure, passed: list[str]) -> None:
        self._job, self._remote, self.passed = job, remote, tuple(passed)
        self._uploads = Uploader(
            remote, job.run_dir, retention=job.retention, demand=held.demand, say=job.say
        )
        self._begun = False

    def begun(self) -> None:
        try:
            self._remote.sweep()
        except OSError as error:  # garbage costs money and harms nobody
            self._job.say(f"what killed attempts left is not removed now: {error.strerror or error}")
        self._uploads.start()
        self._begun = True

    def published(self) -> None:
        self._uploads.published()

    def demand(self) -> None:
        if self._uploads.lost is not None:
            raise self._uploads.lost

    def finish(self, *, completed: bool) -> None:
        """Wait for the last uploads: of a completed run as long as it takes, else as long as there is time.

        Raises RunInUseError where a completed run has turned out to be another's.
        """
        if not self._begun:
            return
        since = time.monotonic()
        if names := self._uploads.behind:
            self._job.say(f"{self._remote.url}: waits for the upload of {', '.join(names)}")
        behind = self._uploads.finish(None, given_up=lambda: self._too_late(since, completed=completed))
        if completed:
            self.demand()
        if behind is not None and self._uploads.lost is None:
            self._job.say(behind)

    def _too_late(self, since: float, *, completed: bool) -> bool:
        notice, now = self._job.watch.notice, time.monotonic()
        if notice is not None and notice.deadline is not None:
            return now > notice.deadline - _RESERVE
        if notice is None and completed:
            return False
        hurried = notice is not None and notice.signal == signal.SIGINT
        late = now > max(since, notice.since if notice is not None else since) + _PATIENCE
        silent = now > self._remote.objects.heard + _PATIENCE  # it hangs, which is no error for minutes
        return late and (hurried or silent or self._uploads.troubled)


@contextlib.contextmanager
def tier(job: Job) -> Iterator[Tier]:
    """For the holder of the run's lock. Brings here what the attempt continues.

    Raises RunInUseError where another process writes there, UnreachableError where the server cannot be asked.
    """
    if job.remote is None:
        yield Tier()
        return
    remote = Remote(job.remote)
    with _held(job, remote) as held:
        behind = Behind(job, remote, held, tiers.bring(remote, job.run_dir))
        try:
            yield behind
        except BaseException:
            behind.finish(completed=False)
            raise
        behind.finish(completed=True)


@contextlib.contextmanager
def _held(job: Job, remote: Remote) -> Iterator[Tenure]:
    """A node that is gone has not said so: its successor is not turned away before that is known."""
    with contextlib.ExitStack() as stack:

        def enter(wait: float) -> Tenure:
            context = tenure.held(
                remote.objects, tier=job.run_dir, wait=wait, stale=job.stale, job=job.watch.cluster.job
            )
            return stack.enter_context(context)

        try:
            held = enter(0.0)
        except RunInUseError as error:
            wait = max(job.wait, job.stale + _LATE)
            job.say(
                f"{str(error).partition(' Wait for it')[0]} Waits {wait:.0f} s for it to leave or fall silent."
            )
            held = enter(wait)
        yield held
