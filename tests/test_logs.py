"""Appended files, cut to the length that the checkpoint knew; nobody else's are touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume import logs


def events(folder: Path, host: str, pid: int, content: bytes = b"events", time: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"events.out.tfevents.{time}.{host}.{pid}.0.v2"
    file.write_bytes(content)
    return file


def test_event_files_are_found_once_and_in_order(tmp_path: Path) -> None:
    b = events(tmp_path / "logs/b", "node", 1)
    a = events(tmp_path / "logs/a/train", "node", 1)
    (tmp_path / "logs/a/notes.txt").touch()
    folders = [tmp_path / "logs", tmp_path / "logs/b", tmp_path / "absent"]
    assert logs.event_files(folders) == [a, b]


def test_sizes_are_relative_so_that_a_run_can_move(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "elsewhere.csv"
    outside.write_bytes(b"12345")
    inside = events(run / "logs", "node", 1, b"123")
    assert logs.sizes(run, [inside, outside, tmp_path / "absent"]) == {
        f"logs/{inside.name}": 3,
        str(outside): 5,
        str(tmp_path / "absent"): 0,  # so that what a killed attempt begins there is cut
    }


def test_cut_to_the_recorded_length(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.csv").write_bytes(b"epoch\n0\n1\n")
    (tmp_path / "outside.csv").write_bytes(b"0123456789")
    (run / "short.csv").write_bytes(b"01")
    recorded = {"log.csv": 8, str(tmp_path / "outside.csv"): 4, "short.csv": 4, "gone.csv": 7}
    logs.rewind(run, recorded, folders=[], writers=[])
    assert (run / "log.csv").read_bytes() == b"epoch\n0\n"
    assert (tmp_path / "outside.csv").read_bytes() == b"0123"
    assert (run / "short.csv").read_bytes() == b"01"
    assert not (run / "gone.csv").exists()


def test_only_event_files_of_our_own_attempts_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    recorded = events(folder, "node", 10, b"before and after", time=1)
    later = events(folder, "node", 10, time=2)
    second = events(folder / "validation", "node", 11)
    kept = [
        events(folder, "other", 10),  # same process id, another machine
        events(folder, "node", 101),
        events(folder, "node", 1),
        events(folder, "my-node", 10),
        events(folder, "node.example", 10),
        events(tmp_path / "unasked", "node", 10),
    ]
    (folder / "model.node.10.txt").write_text("not an event file")
    logs.rewind(
        tmp_path, logs.sizes(tmp_path, [recorded]) | {f"logs/{recorded.name}": 6}, folders=[folder],
        writers=[("node", 10), ("node", 11)],
    )  # fmt: skip
    assert recorded.read_bytes() == b"before"
    assert (later.exists(), second.exists()) == (False, False)
    assert [file.name for file in kept if not file.exists()] == []
    assert (folder / "model.node.10.txt").exists()


def test_without_writers_nothing_is_removed(tmp_path: Path) -> None:
    file = events(tmp_path / "logs", "node", 10)
    logs.rewind(tmp_path, {}, folders=[tmp_path / "logs"], writers=[])
    assert file.exists()


def test_a_relative_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = events(Path("run/logs"), "node", 10, b"12345678")
    recorded = logs.sizes(Path("run"), [file])
    assert recorded == {f"logs/{file.name}": 8}
    with file.open("ab") as stream:
        stream.write(b"9")
    logs.rewind(Path("run"), recorded, folders=[tmp_path / "run/logs"], writers=[("node", 10)])
    assert file.stat().st_size == 8
