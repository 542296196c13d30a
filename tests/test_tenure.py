"""One writer of a remote run, as far as an object store can promise it."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resume import tenure
from resume.errors import RunInUseError, UnreachableError
from resume.objects import Objects
from tests.buckets import Server

HERE, THERE = Path("here"), Path("there")


@pytest.fixture(autouse=True)
def _disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_second_process_is_refused_and_told_who(kept: str) -> None:
    objects = Objects(kept)
    with tenure.held(objects, tier=HERE, job="17"):
        with pytest.raises(RunInUseError) as raised, tenure.held(objects, tier=THERE):
            pass
        assert str(raised.value).startswith(f"{kept}: another process trains here (host ")
        assert ", job 17, since " in str(raised.value)
        assert str(raised.value).endswith("Wait for it (cluster.wait=SECONDS), or stop it.")
        assert raised.value.exit_code == 5
    with tenure.held(objects, tier=THERE) as second:
        assert second.number == 2
    with tenure.held(objects, tier=THERE) as third:
        assert objects.sizes("tenure").keys() == {second.name, third.name}


def test_of_many_at_once_one_begins(bucket: str) -> None:
    together, won, refused = threading.Barrier(6), [], threading.Semaphore(0)

    def begin(number: int) -> None:
        objects = Objects(bucket)
        together.wait()
        try:
            with tenure.held(objects, tier=Path(f"{number}")) as mine:
                won.append(number)
                assert all(refused.acquire(timeout=30) for _ in range(5))
                mine.demand()
        except RunInUseError:
            refused.release()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(begin, range(6)))
    assert len(won) == 1


def test_waited_for(kept: str) -> None:
    objects = Objects(kept)
    with tenure.held(objects, tier=HERE):
        waiting = threading.Thread(target=lambda: _begin(kept, wait=30), daemon=True)
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
    waiting.join(20)
    assert not waiting.is_alive()
    assert json.loads(objects.read("tenure/00000002"))["ended"] is True


def _begin(bucket: str, *, wait: float) -> None:
    with tenure.held(Objects(bucket), tier=THERE, wait=wait):
        pass


def test_who_is_silent_is_taken_over_and_learns_of_it(bucket: str) -> None:
    objects = Objects(bucket)
    with tenure.held(objects, tier=HERE, stale=3600) as first:  # its next heartbeat is twenty minutes away
        first.demand()
        with pytest.raises(RunInUseError), tenure.held(objects, tier=THERE, stale=3600):
            pass
        time.sleep(3.1)
        with tenure.held(objects, tier=THERE, stale=2) as second:
            second.demand()
            with pytest.raises(
                RunInUseError, match=r"taken over by another process \(host .*uploads nothing more"
            ):
                first.demand()
    with tenure.held(objects, tier=THERE) as third:  # the first's last word was about the first alone
        assert third.number == 3


def test_a_heartbeat_keeps_it(kept: str) -> None:
    objects = Objects(kept)
    with tenure.held(objects, tier=HERE, stale=6):
        time.sleep(8)
        with pytest.raises(RunInUseError), tenure.held(objects, tier=THERE, stale=6):
            pass


def test_after_a_kill_the_same_place_begins_at_once(kept: str) -> None:
    """Whoever holds the local tier's lock knows that who wrote from there before is gone."""
    objects = Objects(kept)
    killed = tenure.held(objects, tier=HERE)
    first = killed.__enter__()
    with tenure.held(objects, tier=HERE) as second:
        second.demand()
        with pytest.raises(RunInUseError):
            first.demand()
    killed.__exit__(None, None, None)


def test_a_server_that_has_forgotten_everything(kept: str) -> None:
    objects = Objects(kept)
    with tenure.held(objects, tier=HERE) as mine:
        objects.remove(objects.sizes("tenure"))
        mine.demand()
        assert list(objects.sizes("tenure")) == [mine.name]
        with pytest.raises(RunInUseError), tenure.held(objects, tier=THERE):
            pass


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    Server().known(monkeypatch)
    away = tenure.held(Objects("s3://bucket/a"), tier=HERE)
    with (
        pytest.raises(
            UnreachableError, match=r"^s3://bucket/a/tenure: cannot be listed \((.|\n)*Nothing was begun"
        ),
        away,
    ):
        pass


def test_another_disk_at_the_same_path_is_another_tier(kept: str) -> None:
    """Containers that share a host's name."""
    objects = Objects(kept)
    with tenure.held(objects, tier=HERE) as first:
        HERE.rename("elsewhere")
        with (
            pytest.raises(RunInUseError, match="another process trains here"),
            tenure.held(objects, tier=HERE),
        ):
            pass
        first.demand()
        shutil.rmtree(HERE)
        Path("elsewhere").rename(HERE)
        with tenure.held(objects, tier=HERE) as second:  # whose lock is ours by now
            second.demand()


def test_a_heartbeat_that_was_cut_off_is_no_takeover(kept: str) -> None:
    objects = Objects(kept)
    with tenure.held(objects, tier=HERE) as mine:
        objects.write(mine.name, b"")
        mine.demand()
        assert json.loads(objects.read(mine.name))["token"] == mine.facts["token"]


def test_a_server_that_hangs_keeps_nobody(
    kept: str, keeping: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenure, "_LOOK", 0.5)
    with tenure.held(Objects(kept), tier=HERE):
        keeping.pause()
        began = time.monotonic()
    assert time.monotonic() - began < 10
    keeping.go_on()


def test_what_a_killed_process_asked_the_time_with(kept: str, tmp_path: Path) -> None:
    objects = Objects(kept)
    for name in ("now-old", "now-new"):
        objects.write(f"tenure/{name}", b"")
    (old,) = (tmp_path / "kept").rglob("now-old")
    os.utime(old, (time.time() - 4000,) * 2)
    with tenure.held(objects, tier=HERE) as mine:
        assert objects.sizes("tenure").keys() == {mine.name, "tenure/now-new"}
