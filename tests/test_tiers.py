"""Two tiers, one run: which of both goes on, and what becomes of the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resume import contents, lineage, rundir, tiers, urls
from resume.errors import NoCheckpointError, SourceError, UnreachableError, UsageError
from resume.state import TrainState
from resume.storage import Remote
from tests.buckets import Server

Make = Callable[..., TrainState]


def begin(run: Path, attempt: int, *, pid: int) -> None:
    run.mkdir(parents=True, exist_ok=True)
    newest = rundir.newest_whole(run)[0]
    facts = lineage.identity(run, newest.path, rundir.native.read_manifest(newest.path)) if newest else {}
    verdict = "exact" if newest else "fresh"
    lineage.append(run, "start", attempt=attempt, pid=pid, host="node", verdict=verdict, **{"from": facts})


def publish(run: Path, state: TrainState, *, attempt: int = 1) -> Path:
    path = rundir.publish(run, state).path
    lineage.published(run, path, attempt=attempt)
    return path


def upload(remote: Remote, path: Path) -> None:
    remote.push(path.parent.parent)
    remote.upload(path)


def names(run: Path) -> list[str]:
    return [c.path.name for c in rundir.checkpoints(run)]


def spoil(remote: Remote, name: str) -> None:
    """Flip a bit of the largest file."""
    shards = [f"shards/{shard}" for shard in contents.ids(remote.manifest(name)).values()]
    shard = max(shards, key=lambda shard: len(remote.objects.read(shard)))
    data = bytearray(remote.objects.read(shard))
    data[-1] ^= 1
    remote.objects.write(shard, bytes(data))


# ---- the place ----


def test_the_local_tier_has_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = urls.local_tier("s3://bucket/runs/a", within=tmp_path)
    assert one.parent == tmp_path
    assert one.name.startswith("a-")
    assert one == urls.local_tier("s3://bucket/runs/a/", within=tmp_path)
    assert one.name != urls.local_tier("s3://other/runs/a", within=tmp_path).name
    monkeypatch.setenv("TMPDIR", "/scratch")
    assert urls.local_tier("s3://bucket/runs/a") == Path("/scratch/keras-resume", one.name)
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert urls.local_tier("s3://bucket/runs/a") == Path("/cache/keras-resume", one.name)


def test_a_url_that_names_nothing() -> None:
    for url in ("s3://", "s3:///", "gs://"):
        with pytest.raises(UsageError, match="names no bucket"):
            urls.placed(url)


# ---- which tier goes on ----


def test_nothing_anywhere_is_a_fresh_start(kept: str, tmp_path: Path) -> None:
    assert tiers.bring(Remote(kept), tmp_path) == []
    assert rundir.newest_whole(tmp_path) == (None, [])


def test_a_lost_machine(kept: str, tmp_path: Path, make_state: Make) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    begin(here, 1, pid=1)
    (here / "logs").mkdir()
    (here / "logs/events.out.tfevents.1.node.1.0").write_bytes(b"events")
    for step in (1, 2):
        upload(Remote(kept), publish(here, make_state(step)))
    assert tiers.bring(Remote(kept), there) == []
    assert names(there) == ["step-00000002"]
    assert rundir.read(there).arrays["model/dense/kernel"][0, 0] == 2
    assert (there / "logs/events.out.tfevents.1.node.1.0").read_bytes() == b"events"
    assert lineage.read(there) == lineage.read(here)
    begin(there, 2, pid=2)
    assert lineage.breaks(there) == []


def test_the_same_machine_fetches_nothing(kept: str, tmp_path: Path, make_state: Make) -> None:
    run, remote = tmp_path / "run", Remote(kept)
    begin(run, 1, pid=1)
    upload(remote, publish(run, make_state(1)))
    publish(run, make_state(2))
    before = lineage.read(run)
    assert tiers.bring(Remote(kept), run) == []
    assert names(run) == ["step-00000001", "step-00000002"]
    assert lineage.read(run) == before
    assert not (run / "lineage.aside.jsonl").exists()


def test_a_run_that_went_on_elsewhere(kept: str, tmp_path: Path, make_state: Make) -> None:
    """This machine comes back with a checkpoint that nobody else has seen."""
    here, there, remote = tmp_path / "here", tmp_path / "there", Remote(kept)
    begin(here, 1, pid=1)
    upload(remote, publish(here, make_state(1)))
    publish(here, make_state(3))  # and killed before it was uploaded
    tiers.bring(Remote(kept), there)
    begin(there, 2, pid=2)
    for step in (2, 4):
        upload(remote, publish(there, make_state(step, epoch=7), attempt=2))
    begin(here, 2, pid=3)  # begun and killed without a checkpoint
    events = [here / f"logs/events.out.tfevents.9.node.{pid}.0" for pid in (1, 3)]
    (here / "logs").mkdir()
    for file in events:
        file.write_bytes(b"")
    assert tiers.bring(Remote(kept), here) == []
    assert names(here) == ["step-00000001", "step-00000004"]
    assert lineage.read(here) == lineage.read(there)
    assert [file.exists() for file in events] == [True, False]
    aside = (here / "lineage.aside.jsonl").read_text()
    assert ('"step": 3' in aside, '"pid": 3' in aside, '"step": 1,' in aside) == (True, True, False)
    begin(here, 3, pid=4)
    lineage.reconcile(here)
    assert lineage.breaks(here) == []


def test_killed_in_the_middle_of_a_fetch(
    kept: str, tmp_path: Path, make_state: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever call: the next start fetches the same."""
    here, there = tmp_path / "here", tmp_path / "there"
    begin(here, 1, pid=1)
    upload(Remote(kept), publish(here, make_state(1)))
    for name in ("sync_directory", "damage"):
        with monkeypatch.context() as patched:
            patched.setattr(rundir.native, name, _killed)
            with pytest.raises(KeyboardInterrupt):
                tiers.bring(Remote(kept), there)
        assert names(there) == []
    assert tiers.bring(Remote(kept), there) == []
    assert names(there) == ["step-00000001"]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


# ---- damage ----


def test_a_damaged_newest_is_passed_over(kept: str, tmp_path: Path, make_state: Make) -> None:
    here, there, remote = tmp_path / "here", tmp_path / "there", Remote(kept)
    begin(here, 1, pid=1)
    for step in (1, 2, 3):
        upload(remote, publish(here, make_state(step)))
    spoil(remote, "step-00000003")
    passed = tiers.bring(Remote(kept), there)
    assert passed == [
        f"{kept}/checkpoints/step-00000003/state.safetensors: optimizer/learning_rate is damaged, "
        "its digest does not match."
    ]
    assert names(there) == ["step-00000002"]
    assert {c.path.name for c in remote.checkpoints()} == {f"step-0000000{n}" for n in (1, 2, 3)}


def test_none_of_them_whole_is_an_error_and_never_a_restart(
    kept: str, tmp_path: Path, make_state: Make
) -> None:
    here, there, remote = tmp_path / "here", tmp_path / "there", Remote(kept)
    begin(here, 1, pid=1)
    upload(remote, publish(here, make_state(1)))
    spoil(remote, "step-00000001")
    with pytest.raises(
        NoCheckpointError, match=rf"^{kept}: none of its 1 checkpoints is whole; the newest: "
    ):
        tiers.bring(Remote(kept), there)
    assert tiers.bring(Remote(kept), here) == []  # the local one is whole


def test_a_damaged_local_one_is_replaced(kept: str, tmp_path: Path, make_state: Make) -> None:
    run, remote = tmp_path / "run", Remote(kept)
    begin(run, 1, pid=1)
    path = publish(run, make_state(1))
    upload(remote, path)
    data = bytearray((path / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "state.safetensors").write_bytes(data)
    assert tiers.bring(Remote(kept), run) == []
    assert [c.damage() for c in rundir.checkpoints(run)] == [[]]


def test_what_was_published_and_never_uploaded_is_said(kept: str, tmp_path: Path, make_state: Make) -> None:
    here, there, remote = tmp_path / "here", tmp_path / "there", Remote(kept)
    begin(here, 1, pid=1)
    upload(remote, publish(here, make_state(1)))
    publish(here, make_state(2))
    remote.push(here)
    passed = tiers.bring(Remote(kept), there)
    assert passed == [
        f"{kept}/checkpoints/step-00000002: published on the machine that trained it, and never uploaded."
    ]


def test_attempts_without_a_checkpoint_are_attempts_too(kept: str, tmp_path: Path) -> None:
    begin(tmp_path / "here", 1, pid=1)
    Remote(kept).push(tmp_path / "here")
    assert tiers.bring(Remote(kept), tmp_path / "there") == []
    assert lineage.read(tmp_path / "there") == lineage.read(tmp_path / "here")


def test_a_server_that_is_away_is_never_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Server().known(monkeypatch)
    with pytest.raises(
        UnreachableError, match=r"^s3://bucket/a/checkpoints: cannot be listed \((.|\n)*nothing was begun"
    ):
        tiers.bring(Remote("s3://bucket/a"), tmp_path)


# ---- for a look ----


def test_a_copy_for_a_look(kept: str, tmp_path: Path, make_state: Make) -> None:
    here, url, remote = tmp_path / "here", f"{kept}/runs/a", Remote(f"{kept}/runs/a")
    begin(here, 1, pid=1)
    for step in (1, 2, 3):
        upload(remote, publish(here, make_state(step)))
    spoil(remote, "step-00000003")
    with tiers.local_copy(url) as run:
        assert run.name == "a"
        assert names(run) == [f"step-0000000{n}" for n in (1, 2, 3)]
        assert [bool(c.damage()) for c in rundir.checkpoints(run)] == [False, False, True]
        assert lineage.read(run) == lineage.read(here)
        assert rundir.read(run).iterations == 2
    assert not run.exists()
    with tiers.local_copy(url, newest=True) as run:
        assert names(run) == ["step-00000002", "step-00000003"]
    with tiers.local_copy(f"{url}/checkpoints/step-00000001/") as path:
        assert rundir.read(path).iterations == 1
    with tiers.local_copy(str(here)) as path:
        assert path == here


def test_nothing_to_look_at(kept: str, moto: Server) -> None:
    with pytest.raises(SourceError, match=rf"^{kept}/a: not a run"), tiers.local_copy(f"{kept}/a"):
        pass
    with (
        pytest.raises(SourceError, match=r"a: no checkpoint step-1\."),
        tiers.local_copy(f"{kept}/a/checkpoints/step-1"),
    ):
        pass
    with (
        pytest.raises(UnreachableError, match="cannot be listed"),
        tiers.local_copy("s3://no-such-bucket-here/a"),
    ):
        pass


def test_a_run_may_lie_below_checkpoints(kept: str, tmp_path: Path, make_state: Make) -> None:
    url = f"{kept}/checkpoints/a"
    upload(Remote(url), publish(tmp_path, make_state(1)))
    with tiers.local_copy(url) as run:
        assert names(run) == ["step-00000001"]
    with tiers.local_copy(f"{url}/checkpoints/step-00000001") as path:
        assert rundir.read(path).iterations == 1


def test_all_retired_while_they_are_copied(
    kept: str, tmp_path: Path, make_state: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(Remote(kept), publish(tmp_path, make_state(1)))
    copy = Remote.copy

    def late(self: Remote, name: str, run: Path) -> bool:
        Remote(kept).retire([name])
        return copy(self, name, run)

    monkeypatch.setattr(Remote, "copy", late)
    for url in (kept, f"{kept}/checkpoints/step-00000001"):
        with pytest.raises(SourceError, match="retired what was being copied"), tiers.local_copy(url):
            pass
        upload(Remote(kept), tmp_path / "checkpoints/step-00000001")


# ---- lineages that part ----


def test_what_another_machine_lost_is_told_wherever_the_run_goes_on(
    kept: str, tmp_path: Path, make_state: Make
) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    begin(first, 1, pid=1)
    upload(Remote(kept), publish(first, make_state(1)))
    tiers.bring(Remote(kept), second)
    begin(second, 2, pid=2)
    publish(second, make_state(2), attempt=2)
    Remote(kept).push(second)  # its lineage arrives, its checkpoint does not, and it is gone
    lineage.append(first, "start", attempt=2, pid=3, host="node", verdict="exact")  # and ended at once
    lost = f"{kept}/checkpoints/step-00000002: published on the machine that trained it, and never uploaded."
    for run in (third, first):
        assert tiers.bring(Remote(kept), run) == [lost]
        assert lineage.read(run) == lineage.read(second)
    assert [r["pid"] for r in tiers._records((first / "lineage.aside.jsonl").read_bytes().splitlines())] == [
        3
    ]


def test_who_goes_on_from_his_own_hears_of_the_other(kept: str, tmp_path: Path, make_state: Make) -> None:
    """Both have a step 20, each of its own."""
    first, second = tmp_path / "first", tmp_path / "second"
    begin(first, 1, pid=1)
    upload(Remote(kept), publish(first, make_state(10)))
    publish(first, make_state(20))
    tiers.bring(Remote(kept), second)
    begin(second, 2, pid=2)
    upload(Remote(kept), publish(second, make_state(20, epoch=5), attempt=2))
    assert tiers.bring(Remote(kept), first) == [
        f"{kept}/checkpoints/step-00000020: of another machine, which had not seen step-00000020 of this one."
    ]
    assert names(first) == ["step-00000010", "step-00000020"]
    assert len(lineage.read(first)) == 3
    assert len((first / "lineage.aside.jsonl").read_bytes().splitlines()) == 2


# ---- completed ----


def test_completed_is_what_the_remote_tier_says(kept: str, tmp_path: Path, make_state: Make) -> None:
    run, remote = tmp_path / "run", Remote(f"{kept}/a")
    assert tiers.completed(remote.url, epochs=2) is None
    begin(run, attempt=1, pid=1)
    path = publish(run, make_state(4))
    lineage.append(run, "end", attempt=1, reason="completed", step=4, epoch=2, stopped=False)
    remote.push(run)
    assert tiers.completed(remote.url, epochs=2) is None  # its last checkpoint is not there yet
    remote.upload(path)
    assert str(tiers.completed(remote.url, epochs=2)).startswith("finished already, 2 epochs, step 4")
    assert tiers.completed(remote.url, epochs=3) is None
