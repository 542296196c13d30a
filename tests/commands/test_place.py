"""Commands on a URL: what they print is said of the URL, and never of the copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from resume import contents, rundir
from resume.commands import diff, inspect, verify
from resume.commands import list as list_command
from resume.commands.place import Place, opened
from resume.errors import SourceError
from resume.state import TrainState
from resume.storage import Remote

Make = Callable[..., TrainState]


@pytest.fixture
def url(kept: str, tmp_path: Path, make_state: Make) -> str:
    """Steps 1 (whole) and 2 (a byte of it is another)."""
    remote = Remote(f"{kept}/runs/a")
    for step in (1, 2):
        remote.upload(rundir.publish(tmp_path / "run", make_state(step)).path)
    shard = contents.ids(remote.manifest("step-00000002"))["state.safetensors"]
    data = bytearray(remote.objects.read(f"shards/{shard}"))
    data[-1] ^= 1
    remote.objects.write(f"shards/{shard}", bytes(data))
    return remote.url


def test_a_path_is_what_it_is(tmp_path: Path) -> None:
    with opened(str(tmp_path)) as place:
        assert place.path == tmp_path
        assert place.shown(tmp_path / "a") == f"{tmp_path}/a"


def test_list(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_command.run([url, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["path"], row["whole"]) for row in rows] == [
        (f"{url}/checkpoints/step-00000001", True),
        (f"{url}/checkpoints/step-00000002", False),
    ]


def test_verify(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.run([f"{url}/"]) == 3
    out = capsys.readouterr().out
    assert out.startswith(f"  {url}/checkpoints/step-00000002: ")
    assert f"\n{url}: NOT continuous" in out
    assert "/tmp" not in out.replace(url, "")


def test_inspect_takes_the_newest_whole_one(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.run([url, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == f"{url}/checkpoints/step-00000001"
    assert facts["iterations"] == 1


def test_diff(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diff.run([f"{url}/checkpoints/step-00000001", str(tmp_path / "run")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"A {url}/checkpoints/step-00000001: native")
    assert lines[1].startswith(f"B {tmp_path}/run/checkpoints/step-00000002")


def test_an_error_is_one_of_the_url(url: str) -> None:
    def demand(place: Place) -> None:
        raise SourceError(f"{place.path}/checkpoints: damaged.")

    with pytest.raises(SourceError, match=rf"^{url}/checkpoints: damaged\."), opened(url) as place:
        demand(place)
