"""A run's remote tier, on real servers: whole or not at all, each file once, garbage at worst."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from resume import contents, lineage, rundir
from resume.errors import NewerSchemaError, SourceError
from resume.formats import native
from resume.state import TrainState
from resume.storage import Remote, local_files
from tests.buckets import Cutting, Server

Make = Callable[..., TrainState]


def names(remote: Remote) -> list[str]:
    return [c.path.name for c in remote.checkpoints()]


def shards(remote: Remote) -> set[str]:
    return {name.rpartition("/")[2] for name in remote.objects.sizes("shards")}


def halves(remote: Remote) -> list[str]:
    return list(remote.objects.sizes(".begun"))


def sharing(run: Path, donor: Path, state: TrainState) -> Path:
    """A checkpoint with a file more, a hard link to a file of an earlier one, as frozen arrays are shared."""
    path = rundir.publish(run, state).path
    manifest = native.read_manifest(path)
    given = native.read_manifest(donor)
    os.link(donor / "state.safetensors", path / "still.safetensors")
    manifest["files"]["still.safetensors"] = given["files"]["state.safetensors"]
    manifest["arrays"] |= {
        f"still/{name}": {**facts, "file": "still.safetensors"} for name, facts in given["arrays"].items()
    }
    del manifest["digest"]
    manifest["digest"] = native._hex(native._canonical_json(manifest))
    (path / "manifest.json").write_bytes(native._file_json(manifest))
    assert list(native.damage(path)) == []
    return path


# ---- there and back ----


def test_fetched_as_it_was(bucket: str, tmp_path: Path, make_state: Make) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    path = rundir.publish(here, make_state(7)).path
    remote = Remote(f"{bucket}/runs/a")
    assert not remote.holds()
    sent = remote.upload(path)
    assert sent == sum(file.stat().st_size for file in path.iterdir() if file.name != "manifest.json")
    assert remote.holds()
    assert [(c.step, c.ordinal, str(c.path)) for c in remote.checkpoints()] == [
        (7, 0, "checkpoints/step-00000007")
    ]
    fetched = Remote(f"{bucket}/runs/a").fetch("step-00000007", there)
    assert fetched == there / "checkpoints/step-00000007"
    assert {f.name: f.read_bytes() for f in fetched.iterdir()} == {
        f.name: f.read_bytes() for f in path.iterdir()
    }
    assert [p.name for p in fetched.parent.iterdir()] == ["step-00000007"]


def test_the_marker_is_written_last_and_after_a_question(
    bucket: str, tmp_path: Path, make_state: Make
) -> None:
    remote = Remote(bucket)
    seen = []
    remote.upload(
        rundir.publish(tmp_path, make_state(1)).path,
        may=lambda: seen.append((len(shards(remote)), names(remote))),
    )
    assert seen == [(0, []), (1, []), (2, [])]  # the last time with the manifest beside its name
    assert names(remote) == ["step-00000001"]


def test_who_may_not_go_on_leaves_no_marker(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote, asked = Remote(bucket), iter([None, None, RuntimeError("leave")])

    def may() -> None:
        if (error := next(asked)) is not None:
            raise error

    with pytest.raises(RuntimeError, match="leave"):
        remote.upload(rundir.publish(tmp_path, make_state(1)).path, may=may)
    assert (names(remote), len(shards(remote))) == ([], 2)
    assert remote.sweep() == 2
    assert shards(remote) == set()


def test_who_stood_still_before_the_marker_comes_too_late(
    bucket: str, tmp_path: Path, make_state: Make
) -> None:
    """Another has taken the run over meanwhile, swept, and published the same step."""
    one, other = (
        rundir.publish(tmp_path / n, make_state(1, epoch=e)).path for n, e in (("one", 1), ("other", 2))
    )
    successor, asked = Remote(bucket), []

    def may() -> None:
        asked.append(1)
        if len(asked) == 3:
            successor.sweep()
            successor.upload(other)

    with pytest.raises(OSError, match=r"manifest\.json: cannot be written"):
        Remote(bucket).upload(one, may=may)
    assert len(asked) == 3
    assert successor.has(other)
    successor.fetch("step-00000001", tmp_path / "there")


def test_listed_by_step(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote = Remote(bucket)
    for step, epoch in ((10, 1), (100_000_000, 1), (9, 1), (9, 2)):
        remote.upload(rundir.publish(tmp_path, make_state(step, epoch=epoch)).path)
    assert names(remote) == ["step-00000009", "step-00000009.1", "step-00000010", "step-100000000"]


def test_a_newer_schema_is_refused_by_name(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote = Remote(bucket)
    remote.upload(rundir.publish(tmp_path, make_state(1)).path)
    remote.objects.write(
        "checkpoints/step-00000002/manifest.json", json.dumps({"schema": 99, "digest": ""}).encode()
    )
    with pytest.raises(
        NewerSchemaError, match=f"^{bucket}/checkpoints/step-00000002: written with .* schema 99"
    ):
        remote.fetch("step-00000002", tmp_path / "there")
    assert remote.sweep() == 0


# ---- shared files ----


def test_a_shared_file_lies_there_once_and_as_long_as_it_is_named(
    bucket: str, tmp_path: Path, make_state: Make
) -> None:
    remote = Remote(bucket)
    first = rundir.publish(tmp_path, make_state(1)).path
    second = sharing(tmp_path, first, make_state(2))
    third = sharing(tmp_path, first, make_state(3))
    assert remote.upload(first) > 0
    still = (first / "state.safetensors").stat().st_size
    assert remote.upload(second) == (second / "state.safetensors").stat().st_size
    remote.upload(third)
    data = {contents.ids(native.read_manifest(p))["state.safetensors"] for p in (first, second, third)}
    model = contents.ids(native.read_manifest(first))["model.json"]
    assert shards(remote) == {*data, model}
    remote.retire(["step-00000001"])
    assert shards(remote) == {*data, model}
    remote.retire(["step-00000002"])
    assert len(shards(remote)) == 3
    fetched = remote.fetch("step-00000003", tmp_path / "there")
    assert (fetched / "still.safetensors").stat().st_size == still
    remote.retire(["step-00000003"])
    assert (names(remote), shards(remote)) == ([], set())


def test_killed_between_marker_and_files(bucket: str, tmp_path: Path, make_state: Make) -> None:
    """Garbage stays, which the next sweep removes; what others name stays for good."""
    remote = Remote(bucket)
    for step in (1, 2):
        remote.upload(rundir.publish(tmp_path, make_state(step)).path)
    remote.objects.remove(["checkpoints/step-00000001/manifest.json"])
    later = Remote(bucket)
    assert later.sweep() == 1
    later.fetch("step-00000002", tmp_path / "there")
    assert later.sweep() == 0


# ---- damage ----


def test_a_damaged_file_is_found_and_sent_again(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote, path = Remote(bucket), rundir.publish(tmp_path / "here", make_state(1)).path
    remote.upload(path)
    shard = f"shards/{contents.ids(native.read_manifest(path))['state.safetensors']}"
    data = bytearray(remote.objects.read(shard))
    data[-1] ^= 1
    remote.objects.write(shard, bytes(data))
    with pytest.raises(SourceError) as raised:
        remote.fetch("step-00000001", tmp_path / "there")
    assert str(raised.value) == (
        f"{bucket}/checkpoints/step-00000001/state.safetensors: optimizer/learning_rate is damaged, "
        "its digest does not match."
    )
    assert list((tmp_path / "there/checkpoints").iterdir()) == []
    assert not remote.has(path)
    assert remote.upload(path) == len(data)
    assert remote.has(path)
    remote.fetch("step-00000001", tmp_path / "there")


def test_a_missing_file_and_a_damaged_marker(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote, path = Remote(bucket), rundir.publish(tmp_path / "here", make_state(1)).path
    remote.upload(path)
    shard = f"shards/{contents.ids(native.read_manifest(path))['model.json']}"
    remote.objects.remove([shard])
    with pytest.raises(SourceError, match=rf"^{bucket}/checkpoints/step-00000001: .*{shard} is not there\.$"):
        remote.fetch("step-00000001", tmp_path / "there")
    assert not remote.has(path)
    assert remote.upload(path) == (path / "model.json").stat().st_size
    remote.objects.write("checkpoints/step-00000001/manifest.json", b"{")
    with pytest.raises(SourceError, match=rf"^{bucket}/checkpoints/step-00000001/manifest\.json: damaged"):
        remote.fetch("step-00000001", tmp_path / "there")
    assert not remote.has(path)


def test_a_half_of_a_file_is_sent_again(bucket: str, tmp_path: Path, make_state: Make) -> None:
    """Stores that are folders may keep one; S3 does not."""
    remote, path = Remote(bucket), rundir.publish(tmp_path, make_state(1)).path
    shard = f"shards/{contents.ids(native.read_manifest(path))['state.safetensors']}"
    remote.objects.write(shard, (path / "state.safetensors").read_bytes()[:100])
    remote.upload(path)
    assert remote.objects.read(shard) == (path / "state.safetensors").read_bytes()


@pytest.mark.parametrize("body", [0, 700])
def test_what_was_cut_off_has_no_name(
    keeping: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_state: Make, body: int
) -> None:
    """Cut in the middle of each request, to a store that keeps what came: nothing is there that is not whole."""
    keeping.known(monkeypatch)
    run, bucket, seen = tmp_path / "run", keeping.make("cut"), []
    path = rundir.publish(run, make_state(1)).path
    lineage.append(run, "started", pid=1, padding="." * 1000)
    for puts in range(20):
        remote, way = Remote(f"{bucket}/{puts}"), Cutting(keeping, puts=puts, body=body)
        alone = {"retries": {"max_attempts": 0}}  # nobody is there any more
        there = Remote(remote.url, client_kwargs={"endpoint_url": way.address}, config_kwargs=alone)
        there.objects._fs.retries = 1
        with contextlib.suppress(OSError):
            there.push(run)
            there.upload(path)
        way.close()
        for name in names(remote):
            assert remote.has(path, name=name)
        for name in remote.files():
            assert remote.objects.read(name) == (run / name).read_bytes()
        seen.append((len(remote.files()), len(shards(remote)), len(names(remote)), len(halves(remote))))
        if not way.cut:
            break
    # the lineage beside, moved; two files; the manifest beside, moved; all through
    assert seen == [
        (0, 0, 0, 1),
        (1, 0, 0, 1),
        (1, 1, 0, 0),
        (1, 2, 0, 0),
        (1, 2, 0, 1),
        (1, 2, 1, 1),
        (1, 2, 1, 0),
    ]
    again = Remote(f"{bucket}/4")
    again.sweep()
    assert halves(again) == []


def test_a_damaged_local_file_never_gets_the_name_of_a_whole_one(
    bucket: str, tmp_path: Path, make_state: Make
) -> None:
    remote, path = Remote(bucket), rundir.publish(tmp_path, make_state(1)).path
    data = bytearray((path / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "state.safetensors").write_bytes(data)
    with pytest.raises(SourceError, match=r"state\.safetensors: damaged, bytes \d+ to \d+"):
        remote.upload(path)
    assert (names(remote), shards(remote)) == ([], set())


def test_a_file_outside_the_checkpoint(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote, path = Remote(bucket), rundir.publish(tmp_path / "here", make_state(1)).path
    remote.upload(path)
    manifest = native.read_manifest(path)
    manifest["files"]["../../escaped"] = manifest["files"].pop("model.json")
    del manifest["digest"]
    manifest["digest"] = native._hex(native._canonical_json(manifest))
    remote.objects.write("checkpoints/step-00000001/manifest.json", native._file_json(manifest))
    with pytest.raises(SourceError, match=r"\.\./\.\./escaped is outside this checkpoint"):
        remote.fetch("step-00000001", tmp_path / "there")
    assert not (tmp_path / "there/escaped").exists()


def test_a_digest_that_is_a_path(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote, path = Remote(bucket), rundir.publish(tmp_path / "here", make_state(1)).path
    remote.upload(path)
    manifest = native.read_manifest(path)
    manifest["files"]["model.json"]["digest"] = str(tmp_path / "escaped")
    del manifest["digest"]
    manifest["digest"] = native._hex(native._canonical_json(manifest))
    remote.objects.write("checkpoints/step-00000001/manifest.json", native._file_json(manifest))
    with pytest.raises(
        SourceError, match=rf"^{bucket}/checkpoints/step-00000001/manifest.json: .* no digest of model"
    ):
        remote.fetch("step-00000001", tmp_path / "there")
    assert remote.copy("step-00000001", tmp_path / "copy")
    assert [p.name for p in (tmp_path / "copy/checkpoints/step-00000001").iterdir()] == ["manifest.json"]


def test_names_that_are_nobodys_file(moto: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A double slash, and the folders that consoles make."""
    moto.known(monkeypatch)
    remote = Remote(f"{moto.make('nobodys')}/runs/a")
    remote.objects.write("log.csv", b"1")
    for key in ("runs/a/", "runs/a/logs/", f"runs/a/{tmp_path}/escaped", "runs/a/../escaped"):
        remote.objects._fs.call_s3("put_object", Bucket="nobodys", Key=key, Body=b"")
    assert any("escaped" in name for name in remote.objects.sizes())
    assert remote.files() == ["log.csv"]


def test_retired_while_it_is_copied(
    bucket: str, tmp_path: Path, make_state: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(bucket)
    remote.upload(rundir.publish(tmp_path / "here", make_state(1)).path)
    get = remote.objects.get

    def late(name: str, file: Path) -> None:
        Remote(bucket).retire(["step-00000001"])
        get(name, file)

    monkeypatch.setattr(remote.objects, "get", late)
    assert not remote.copy("step-00000001", tmp_path / "copy")
    assert not (tmp_path / "copy/checkpoints/step-00000001").exists()


def test_listed_while_checkpoints_are_published(tmp_path: Path) -> None:
    ended = threading.Event()

    def publish() -> None:
        while not ended.is_set():
            begun = tmp_path / "checkpoints" / f".unfinished-{uuid.uuid4().hex}"
            begun.mkdir(parents=True)
            begun.rename(tmp_path / "checkpoints/step-00000001")
            (tmp_path / "checkpoints/step-00000001").rmdir()

    thread = threading.Thread(target=publish)
    thread.start()
    (tmp_path / "log.csv").touch()
    found = [local_files(tmp_path) for _ in range(2000)]
    ended.set()
    thread.join()
    assert found == [["log.csv"]] * 2000


def test_a_server_that_forgets_in_between(forgetful: Server, tmp_path: Path, make_state: Make) -> None:
    """Started anew, and empty, between the files and the marker: no marker then."""
    forgetful.start()
    remote = Remote(forgetful.make("bucket"))
    asked = []

    def restart() -> None:
        asked.append(1)
        if len(asked) == 3:
            forgetful.kill()
            forgetful.start()
            forgetful.make("bucket")

    path = rundir.publish(tmp_path, make_state(1)).path
    with pytest.raises(OSError, match="the server has lost 2 files of step-00000001"):
        remote.upload(path, may=restart)
    assert names(remote) == []
    remote.upload(path)
    assert names(remote) == ["step-00000001"]


# ---- the run's other files ----


def test_the_other_files(bucket: str, tmp_path: Path, make_state: Make) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    rundir.publish(here, make_state(1))
    lineage.append(here, "start", attempt=1)
    events = here / "logs/train/events.out.tfevents.1.node.2.0.v2"
    events.parent.mkdir(parents=True)
    events.write_bytes(b"events")
    (here / "config.yaml").write_text("seed: 0\n")
    (here / "log.csv").write_text("epoch\n")
    for own in ("lock", "lock.door", "owner.json", "owner.json.1", "heartbeat.json", ".now-1", "logs/.tmp"):
        (here / own).touch()
    expected = ["config.yaml", "lineage.jsonl", "log.csv", f"logs/train/{events.name}"]
    assert local_files(here) == expected
    remote = Remote(bucket)
    remote.push(here)
    remote.upload(here / "checkpoints/step-00000001")
    assert remote.files() == expected
    (there / "logs").mkdir(parents=True)
    (there / "log.csv").write_text("older")
    remote.pull(there, remote.files())
    assert local_files(there) == expected
    assert all((there / name).read_bytes() == (here / name).read_bytes() for name in expected)


def test_only_what_has_changed_is_pushed(bucket: str, tmp_path: Path) -> None:
    remote = Remote(bucket)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("1")
    remote.push(tmp_path)
    remote.objects.write("a.csv", b"as it was")
    (tmp_path / "b.csv").write_text("12")
    remote.push(tmp_path)
    assert (remote.objects.read("a.csv"), remote.objects.read("b.csv")) == (b"as it was", b"12")
    remote.forget()
    remote.push(tmp_path)
    assert remote.objects.read("a.csv") == b"1"


def test_a_line_that_is_being_written_is_not_pushed(kept: str, tmp_path: Path) -> None:
    remote = Remote(f"{kept}/a")
    for written, told in (("", b""), ("one\ntw", b"one\n"), ("one\ntwo\n", b"one\ntwo\n")):
        (tmp_path / "lineage.jsonl").write_text(written)
        remote.push(tmp_path)
        assert remote.objects.read("lineage.jsonl") == told


def test_leftovers_of_a_fetch_are_swept(bucket: str, tmp_path: Path, make_state: Make) -> None:
    remote = Remote(bucket)
    remote.upload(rundir.publish(tmp_path / "here", make_state(1)).path)
    left = []

    def look() -> None:
        left.extend((tmp_path / "there/checkpoints").iterdir())
        rundir.sweep(tmp_path / "there")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.fetch("step-00000001", tmp_path / "there", before=look)
    assert len(left) == 1
    assert not left[0].exists()


def test_the_lineage_goes_last_and_as_it_was_before_the_others(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not tell of an end whose files are not there."""
    remote, written = Remote(f"{kept}/a"), []
    run = tmp_path / "run"
    run.mkdir()
    for name in ("lineage.jsonl", "log.csv", "zlast.csv"):
        (run / name).write_text("first\n")
    replace = remote.objects.replace

    def noting(name: str, data: bytes) -> None:
        written.append((name, data))
        (run / "lineage.jsonl").write_text("first\nend\n")
        replace(name, data)

    monkeypatch.setattr(remote.objects, "replace", noting)
    remote.push(run)
    assert [name for name, _ in written] == ["log.csv", "zlast.csv", "lineage.jsonl"]
    assert written[-1][1] == b"first\n"
    remote.push(run)
    assert written[3:] == [("lineage.jsonl", b"first\nend\n")]
