"""Who may write to a remote run: as good as an object store allows, which has no locks.

Each attempt takes the next number, `tenure/00000003`, an object that is created and never overwritten by others: two
that start at once cannot both have it where the store knows conditional writes (If-None-Match: S3, GCS, MinIO). The
highest number is the run's writer. It repeats its object as a heartbeat, and asks for the highest number before each
manifest: a process that wakes up after its successor began uploads nothing more.

Best effort, and this is what is missing: between that question and the manifest a successor may come. Both then have
written, each whole files under their content's names; the next attempt finds what is whole, and takes the newest.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resume import lock
from resume.errors import RunInUseError, UnreachableError
from resume.objects import Objects

FOLDER = "tenure"
_BEATS = 3  # heartbeats in the time after which a holder counts as gone; each is a request that costs
_IDENTITY = ".tier"
_LEFT = 3600.0  # seconds after which what a killed process has asked the time with is garbage
_LOOK = 5.0  # seconds between looks while waiting


@dataclass
class Tenure:
    """The right to write to a remote run, until somebody takes the next number."""

    objects: Objects
    facts: Mapping[str, Any]
    number: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return _named(self.number)

    def demand(self) -> None:
        """Raises RunInUseError where another process has taken the run over."""
        newest = _newest(self.objects)
        if newest < self.number:  # a server that was started anew, and empty
            self.objects.create(self.name, json.dumps(self.facts).encode())
            newest = self.number
        facts = _facts(self.objects, newest)
        if not facts and newest == self.number:  # a heartbeat that was cut off, and kept like that
            self._say()
        elif facts.get("token") != self.facts["token"]:
            raise RunInUseError(
                f"{self.objects.url}: taken over by another process ({lock.named(facts)}). This one uploads nothing "
                "more; what it has published here on this machine stays as it is."
            )

    def _say(self, **more: Any) -> None:
        self.objects.write(self.name, json.dumps({**self.facts, **more}).encode())

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            with contextlib.suppress(OSError):  # a server that is away is the uploads' to speak of
                self._say()
        with contextlib.suppress(OSError):  # else the next one waits until this counts as gone
            self._say(ended=True)


@contextlib.contextmanager
def held(
    objects: Objects, *, tier: Path, wait: float = 0.0, stale: float = 60.0, job: str | None = None
) -> Iterator[Tenure]:
    """Be the writer of a remote run. For the holder of the local tier's lock, at `tier`.

    Raises RunInUseError, naming the holder, where a process that lives has it after `wait` seconds. One that has not
    been heard of for `stale` seconds counts as gone, and so does one that wrote from this very local tier: its lock
    is ours by now. Raises UnreachableError where the server cannot be asked.
    """
    tenure = Tenure(objects, _own_facts(tier, job))
    try:
        _take(tenure, wait=wait, stale=stale)
    except OSError as error:
        raise UnreachableError(
            f"{error.strerror or error}\nNothing was begun. Repeat the command once the server can be reached."
        ) from error
    beats = threading.Thread(target=tenure._beat, args=(stale / _BEATS,), name="resume-tenure", daemon=True)
    beats.start()
    try:
        yield tenure
    finally:
        tenure._ended.set()
        beats.join(_LOOK)  # its last word; a server that hangs keeps nobody here


def _own_facts(tier: Path, job: str | None) -> dict[str, Any]:
    where = f"{socket.gethostname()}:{tier.absolute()}:{_identity(tier)}"
    return {"token": uuid.uuid4().hex, "tier": where, "host": socket.gethostname(), "pid": os.getpid(), "job": job,
            "since": time.strftime("%F %T")}  # fmt: skip


def _identity(tier: Path) -> str:
    """Of this local tier: containers that share a host's name may each have a disk of their own at the same path."""
    file = tier / _IDENTITY
    if not file.is_file() or not file.stat().st_size:
        tier.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex)
    return file.read_text()


def _take(tenure: Tenure, *, wait: float, stale: float) -> None:
    give_up = time.monotonic() + wait
    objects = tenure.objects
    while True:
        newest = _newest(objects)
        if _is_free(objects, newest, tenure.facts, stale=stale):
            tenure.number = newest + 1
            with contextlib.suppress(FileExistsError):  # another was first: look at it
                objects.create(tenure.name, json.dumps(tenure.facts).encode())
                objects.remove(_named(n) for n in _numbers(objects) if n < newest)
                _sweep(objects, tenure.name)
                return
        elif time.monotonic() >= give_up:
            raise RunInUseError(
                f"{objects.url}: another process trains here ({lock.named(_facts(objects, newest))}). Wait for it "
                "(cluster.wait=SECONDS), or stop it."
            )
        time.sleep(min(_LOOK, max(give_up - time.monotonic(), 0.01)))


def _is_free(objects: Objects, newest: int, own: Mapping[str, Any], *, stale: float) -> bool:
    if newest == 0:
        return True
    facts = _facts(objects, newest)
    return bool(facts.get("ended")) or facts.get("tier") == own["tier"] or _silence(objects, newest) > stale


def _silence(objects: Objects, number: int) -> float:
    """Seconds since a heartbeat, by the store's own clock."""
    probe = f"{FOLDER}/now-{uuid.uuid4().hex}"
    objects.write(probe, b"")
    try:
        times = objects.modified(FOLDER)
        return times[probe] - times.get(_named(number), times[probe])
    finally:
        objects.remove([probe])


def _sweep(objects: Objects, own: str) -> None:
    times = objects.modified(FOLDER)
    probes = (name for name in times if not name.rpartition("/")[2].isdecimal())
    objects.remove(name for name in probes if times.get(own, 0) - times[name] > _LEFT)


def _newest(objects: Objects) -> int:
    return max(_numbers(objects), default=0)


def _numbers(objects: Objects) -> list[int]:
    last = (name.rpartition("/")[2] for name in objects.sizes(FOLDER))
    return [int(name) for name in last if name.isdecimal()]


def _named(number: int) -> str:
    return f"{FOLDER}/{number:08d}"


def _facts(objects: Objects, number: int) -> dict[str, Any]:
    try:
        facts = json.loads(objects.read(_named(number)))
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
