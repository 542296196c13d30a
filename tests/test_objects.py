"""Objects behind a URL, on real servers, and what is said where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resume.errors import UsageError
from resume.objects import Objects
from resume.urls import is_remote
from tests.buckets import Server

Python = Callable[..., subprocess.Popen[str]]


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("s3://bucket/run", True),
        ("gs://bucket", True),
        ("runs/a", False),
        ("/runs/s3:/a", False),
        ("file:///runs/a", False),
        ("", False),
    ],
)
def test_is_remote(name: str, remote: bool) -> None:
    assert is_remote(name) == remote


def test_written_listed_read_and_removed(bucket: str, tmp_path: Path) -> None:
    objects = Objects(f"{bucket}/runs/a/")
    assert objects.sizes() == {}
    objects.write("a/one", b"1")
    objects.write("ab", b"22")
    (tmp_path / "three").write_bytes(b"333")
    objects.put("a/b/three", tmp_path / "three")
    Objects(f"{bucket}/runs/ab").write("other", b"")
    assert objects.sizes() == {"a/one": 1, "a/b/three": 3, "ab": 2}
    assert objects.sizes("a") == {"a/one": 1, "a/b/three": 3}
    assert objects.read("a/one") == b"1"
    objects.get("a/b/three", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"333"
    objects.remove(["a/one", "absent"])
    assert objects.sizes("a") == {"a/b/three": 3}
    with pytest.raises(FileNotFoundError):
        objects.read("a/one")
    assert objects.modified("a")["a/b/three"] > 1.7e9


def test_replaced_and_nothing_beside(bucket: str) -> None:
    objects = Objects(f"{bucket}/runs/a")
    for data in (b"first", b"", b"last"):
        objects.replace("a/one", data)
        assert objects.read("a/one") == data
    assert objects.sizes() == {"a/one": 4}
    with pytest.raises(OSError, match=r"absent/runs/\.begun/\w+: cannot be written"):
        Objects("s3://absent/runs").replace("a/one", b"")


def test_what_may_not_be_removed_is_in_its_place(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(f"{bucket}/runs/a")

    def refused(path: str) -> None:
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(objects._fs, "rm_file", refused)
    objects.replace("one", b"1")
    assert objects.read("one") == b"1"


def test_not_replaced_where_the_last_question_says_no(bucket: str) -> None:
    objects, sizes = Objects(f"{bucket}/runs/a"), []

    def before() -> None:
        sizes.append(list(objects.sizes().values()))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        objects.replace("one", b"four", before=before)
    assert sizes == [[4]]
    assert objects.sizes() == {}


def test_other_kinds_of_stores_are_used_alike(tmp_path: Path) -> None:
    for url in (
        f"{kind}/runs/{name}" for kind in ("memory:/", f"file://{tmp_path}") for name in ("a", "b=[1,2]*")
    ):
        objects = Objects(url)
        assert objects.sizes() == {}
        (tmp_path / "one").write_bytes(b"1")
        objects.put("a/one", tmp_path / "one")
        objects.write("two", b"22")
        objects.create("three", b"333")
        with pytest.raises(FileExistsError):
            objects.create("three", b"444")
        assert objects.sizes() == {"a/one": 1, "two": 2, "three": 3}
        objects.get("two", tmp_path / "two")
        assert (tmp_path / "two").read_bytes() == objects.read("two") == b"22"
        assert objects.modified("")["two"] > 1.7e9
        for data in (b"first", b"", b"last"):
            objects.replace("a/four", data)
            assert objects.read("a/four") == data
            assert ".begun" not in str(objects.sizes())
        objects.remove(["a/four"])
        objects.remove(["a/one", "a/one"])
        assert objects.sizes("a") == {}


def test_only_one_creates(bucket: str) -> None:
    def create(number: int) -> bool:
        try:
            Objects(bucket).create("token", b"%d" % number)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sum(won) == 1
    assert Objects(bucket).read("token") == b"%d" % won.index(True)
    Objects(bucket).create(
        "token", Objects(bucket).read("token")
    )  # an answer that was lost: ours, and no error


def test_a_bucket_that_is_not_there(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never taken for an empty one: that would be a silent restart."""
    moto.known(monkeypatch)
    objects = Objects("s3://no-such-bucket/a")
    with pytest.raises(OSError, match=r"^\[Errno 5\] s3://no-such-bucket/a/: cannot be listed \(.*not exist"):
        objects.sizes()
    with pytest.raises(OSError, match=r"s3://no-such-bucket/a/x: cannot be written \(.*not exist"):
        objects.write("x", b"")


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    Server().known(monkeypatch)
    with pytest.raises(OSError, match=r"s3://bucket/a/x: cannot be read \(.*[Cc]onnect") as raised:
        Objects("s3://bucket/a").read("x")
    assert not isinstance(raised.value, FileNotFoundError)


def test_without_the_packages(python: Python) -> None:
    code = """
import sys
sys.modules[sys.argv[1]] = None
from resume.objects import Objects
from resume.errors import UsageError
try:
    Objects("s3://bucket/a")
except UsageError as error:
    print(error)
"""
    assert python(code, "fsspec").communicate()[0] == (
        's3://bucket/a: needs fsspec: pip install "keras-resume[remote]"\n'
    )
    said = python(code, "s3fs").communicate()[0]
    assert said.endswith('For s3: pip install "keras-resume[remote]"\n')


def test_a_kind_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match=r"^nosuch://bucket: .*nosuch"):
        Objects("nosuch://bucket")


def test_reading_the_package_needs_no_fsspec() -> None:
    code = "import sys, resume.tiers, resume.uploading; sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
