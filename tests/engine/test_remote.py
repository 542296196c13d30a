"""The tier behind a run directory over one attempt, on a real server; whole trainings are tests/e2e's."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resume import rundir, tenure
from resume.clusters import Cause
from resume.engine import remote
from resume.engine.job import Job
from resume.errors import RunInUseError, UnreachableError
from resume.preempt import Notice
from resume.state import TrainState
from resume.storage import Remote
from tests.buckets import Server

Make = Callable[..., TrainState]


def job(url: str | None, run: Path, said: list[str], **given: Any) -> Job:
    run.mkdir(exist_ok=True)
    return Job(run_dir=run, build=lambda state: None, train=None, remote=url, say=said.append, **given)


def another(url: str, number: int) -> None:
    """Somebody on another machine has that number, and may live or not."""
    facts = {"token": "theirs", "tier": "elsewhere:/run", "host": "elsewhere", "pid": 7, "since": "today"}
    Remote(url).objects.write(f"tenure/{number:08d}", json.dumps(facts).encode())


def attempt(mine: Job, act: Callable[[remote.Tier], None]) -> None:
    with remote.tier(mine) as tier:
        tier.begun()
        act(tier)


@pytest.fixture
def url(kept: str) -> str:
    return f"{kept}/a"


def test_a_run_on_this_machine_has_nothing_behind_it(tmp_path: Path) -> None:
    with remote.tier(job(None, tmp_path, [])) as tier:
        tier.begun()
        tier.published()
        tier.demand()
    assert tier.passed == ()
    assert list(tmp_path.iterdir()) == []


def test_what_is_published_is_there_at_the_end(url: str, tmp_path: Path, make_state: Make) -> None:
    said: list[str] = []
    with remote.tier(job(url, tmp_path / "run", said)) as tier:
        tier.begun()
        rundir.publish(tmp_path / "run", make_state(3))
        tier.published()
    assert [c.step for c in Remote(url).checkpoints()] == [3]
    with remote.tier(job(url, tmp_path / "other", said)):
        assert rundir.newest_whole(tmp_path / "other")[0] is not None
    assert not any("behind" in line for line in said)


def test_a_node_that_is_gone_is_waited_for(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not said that it left; until its heartbeat is too old it may live."""
    monkeypatch.setattr(tenure, "_LOOK", 0.2)
    another(url, 1)
    said: list[str] = []
    with remote.tier(job(url, tmp_path / "run", said, stale=5.0)):  # a store may tell time in seconds
        pass
    assert said == [
        f"{url}: another process trains here (host elsewhere, pid 7, since today). "
        "Waits 15 s for it to leave or fall silent."
    ]


def test_taken_over(url: str, tmp_path: Path, make_state: Make) -> None:
    def act(tier: remote.Tier) -> None:
        another(url, 2)
        rundir.publish(tmp_path / "run", make_state(3))
        tier.published()
        for _ in range(600):
            tier.demand()
            time.sleep(0.05)

    with pytest.raises(RunInUseError, match=r"taken over by another process \(host elsewhere"):
        attempt(job(url, tmp_path / "run", []), act)
    assert Remote(url).checkpoints() == []


def test_taken_over_at_the_very_end_is_not_completed(url: str, tmp_path: Path, make_state: Make) -> None:
    def act(tier: remote.Tier) -> None:
        rundir.publish(tmp_path / "run", make_state(3))
        another(url, 2)

    with pytest.raises(RunInUseError):
        attempt(job(url, tmp_path / "run", []), act)


# What becomes of the server, and what the attempt has heard by then: the kill in 4 seconds, or nobody knows when.
@pytest.mark.parametrize(("hangs", "grace"), [(False, None), (False, 4.0), (True, None)])
def test_without_a_server_an_attempt_leaves_in_time(
    url: str,
    keeping: Server,
    tmp_path: Path,
    make_state: Make,
    monkeypatch: pytest.MonkeyPatch,
    hangs: bool,
    grace: float | None,
) -> None:
    """Of a server that hangs, requests are no errors for minutes."""
    monkeypatch.setattr(remote, "_PATIENCE", 0.5)
    monkeypatch.setattr(tenure, "_LOOK", 0.5)
    said: list[str] = []
    mine = job(url, tmp_path / "run", said)

    def act(tier: remote.Tier) -> None:
        keeping.pause() if hangs else keeping.kill()
        rundir.publish(tmp_path / "run", make_state(3))
        tier.published()
        now = time.monotonic()
        if hangs or grace is not None:
            deadline = None if grace is None else now + grace
            mine.watch.notice = Notice(signal.SIGTERM, Cause("preempted", grace), now, deadline)
        raise ValueError("mine")

    began = time.monotonic()
    with pytest.raises(ValueError, match="mine"):
        attempt(mine, act)
    assert any("behind by 1 checkpoints (step-00000003)" in line for line in said)
    assert time.monotonic() - began < 30


def test_a_server_that_cannot_be_asked_begins_nothing(keeping: Server, url: str, tmp_path: Path) -> None:
    keeping.kill()
    with (
        pytest.raises(UnreachableError, match="Nothing was begun"),
        remote.tier(job(url, tmp_path / "r", [])),
    ):
        pass
