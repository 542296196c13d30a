"""The run's own log, whose length every checkpoint notes."""

from __future__ import annotations

import os
from pathlib import Path

from resume import logs
from resume.engine.callbacks import OwnLog


def test_its_files_are_those_in_its_folder_now(tmp_path: Path) -> None:
    folder, said = tmp_path / "logs/resume", list[str]()
    log = OwnLog(folder, said.append)
    log.attempt(["exact"], step=0)
    (first,) = log.files()
    size = first.stat().st_size
    log.checkpoint(step=4, seconds=0.5, blocked=0.001, nbytes=7)
    assert log.files() == [first]
    assert first.stat().st_size > size
    earlier = folder / "events.out.tfevents.1.node.2.0.v2"
    earlier.touch()
    assert log.files() == logs.event_files([folder]) == sorted([first, earlier])
    log.files().clear()
    assert len(log.files()) == 2
    log.close()
    assert not said


def test_they_are_looked_for_only_where_the_folder_has_changed(tmp_path: Path) -> None:
    log = OwnLog(tmp_path, lambda line: None)
    log.attempt(["exact"], step=0)
    os.utime(tmp_path, (1e9, 1e9))
    (first,) = log.files()
    (tmp_path / "events.out.tfevents.1.node.2.0.v2").touch()
    changed = tmp_path.stat().st_mtime
    os.utime(tmp_path, (1e9, 1e9))
    assert log.files() == [first]  # the time of the folder is all that it looks at
    os.utime(tmp_path, (changed, changed))
    assert len(log.files()) == 2
    log.close()


def test_a_folder_that_is_gone_has_none(tmp_path: Path) -> None:
    log = OwnLog(tmp_path / "logs", lambda line: None)
    log.attempt(["exact"], step=0)
    assert log.files()
    (tmp_path / "logs").rename(tmp_path / "moved")
    assert log.files() == []
    log.close()
