"""A run's remote tier: its checkpoints as objects, each file by its content, each manifest last.

s3://bucket/runs/a/
    shards/<content id>                        a file of one or more checkpoints, once
    checkpoints/step-00001200/manifest.json    the very bytes of the local one: the commit marker, written last
    tenure/...                                 who writes here (resume.tenure)
    lineage.jsonl, config.yaml, logs/...       the run's other files, as they lie in the run directory
    .begun/...                                 what is on its way to one of the other names

Checkpoints that share a file by hard links, and files that happen to be equal, lie here once: unlike a disk, an object
store keeps copies of its own. resume.contents says what a content id is.

Every order is such that a kill leaves garbage and never a manifest without its files: uploaded are the files, then the
manifest; removed the manifest, then the files that no other manifest names. `sweep` removes garbage, but for the parts
of a large file whose upload was cut off: S3 shows them to nobody, and a lifecycle rule of the bucket removes them
(AbortIncompleteMultipartUpload). One process writes at a time (resume.tenure says how far that can be promised); it
alone sweeps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from resume import contents
from resume.errors import NewerSchemaError, SourceError
from resume.formats import native
from resume.objects import BEGUN, Objects
from resume.rundir import Checkpoint

_CHECKPOINTS, _SHARDS, LINEAGE = "checkpoints", "shards", "lineage.jsonl"
_NAME = re.compile(rf"^{_CHECKPOINTS}/(step-(\d{{8,}})(?:\.(\d+))?)/{re.escape(native.MANIFEST)}$")
_NOT_OURS = {
    _CHECKPOINTS,
    _SHARDS,
    "tenure",
    "lock",
    "lock.door",
}  # first parts of names: of no other machine's use
_OF_THE_LOCK = ("owner.", "heartbeat.")


class Remote:
    """The remote tier of one run. Network trouble is an OSError in plain words, unless a method says otherwise."""

    def __init__(self, url: str, **options: Any) -> None:
        """`options`: the file system's own. Raises UsageError where a package is missing, and says which."""
        self.objects = Objects(url, **options)
        self.url = self.objects.url
        self._manifests: dict[
            str, tuple[str, dict[str, Any]]
        ] = {}  # raw digest, content: as read or written last
        self._pushed: dict[str, tuple[int, int]] = {}
        self._doubted: set[str] = set()  # shards that were found damaged: not trusted to be there

    # -- what is there ------------------------------------------------------------------------------------------

    def holds(self) -> bool:
        """Whether a run has ever left anything here."""
        return any(name == LINEAGE or _NAME.match(name) for name in self.objects.sizes())

    def checkpoints(self) -> list[Checkpoint]:
        """Those with a manifest, oldest first; paths are relative to the run."""
        found = [m for name in self.objects.sizes(_CHECKPOINTS) if (m := _NAME.match(name))]
        listed = [Checkpoint(Path(_CHECKPOINTS, m[1]), int(m[2]), int(m[3] or 0)) for m in found]
        return sorted(listed, key=lambda c: c.order)

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest of a checkpoint, its own digest checked. Raises SourceError for a damaged one."""
        data = self.objects.read(_marker(name))
        digest = xxhash.xxh3_128_hexdigest(data)
        if self._manifests.get(name, ("",))[0] != digest:
            self._manifests[name] = digest, self._parsed(name, data)
        return self._manifests[name][1]

    def _remembered(self, name: str) -> dict[str, Any]:
        """As it was when this process last read or wrote it: nobody else writes."""
        return self._manifests[name][1] if name in self._manifests else self.manifest(name)

    def _parsed(self, name: str, data: bytes) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="resume-") as folder:
            (Path(folder) / native.MANIFEST).write_bytes(data)
            try:
                manifest = native.read_manifest(Path(folder))
                contents.demand_names(manifest, Path(folder) / native.MANIFEST)
                return manifest
            except (SourceError, NewerSchemaError) as error:
                raise type(error)(self._placed(str(error), Path(folder), name)) from None

    def _placed(self, sentence: str, folder: Path, name: str) -> str:
        """A sentence about a copy, said of the original."""
        return sentence.replace(str(folder), self.objects.at(f"{_CHECKPOINTS}/{name}"))

    # -- checkpoints --------------------------------------------------------------------------------------------

    def upload(self, checkpoint: Path, *, name: str = "", may: Callable[[], None] = lambda: None) -> int:
        """Bring a checkpoint here, the manifest last; how many bytes that took.

        `name`: where the folder is not called as the checkpoint is. `may`: called before each file and before the
        manifest; raises where this process has to leave it. Raises SourceError for a local file that is damaged: what
        is not whole never gets the name of what is.
        """
        name, manifest, sent = name or checkpoint.name, native.read_manifest(checkpoint), 0
        ids = contents.ids(manifest)
        there = self._whole(manifest)
        for file, shard in ids.items():
            if shard not in there:
                may()
                contents.demand_whole(checkpoint / file, manifest)
                self.objects.put(f"{_SHARDS}/{shard}", checkpoint / file)
                self._doubted.discard(shard)
                there |= {shard}
                sent += int(manifest["files"][file]["bytes"])
        self._commit(name, (checkpoint / native.MANIFEST).read_bytes(), manifest, may)
        return sent

    def _whole(self, manifest: Mapping[str, Any]) -> set[str]:
        """The content ids of a manifest that are here with all their bytes (some stores keep a half of a file)."""
        wanted = {shard: manifest["files"][file]["bytes"] for file, shard in contents.ids(manifest).items()}
        there = self.objects.sizes(_SHARDS)
        return {s for s, n in wanted.items() if there.get(f"{_SHARDS}/{s}") == n} - self._doubted

    def _commit(self, name: str, data: bytes, manifest: dict[str, Any], may: Callable[[], None]) -> None:
        """Asked for the last time when the manifest lies beside its name, where a successor removes it before all else.

        So whoever stands still here until another has taken the run over cannot give it its name any more.
        """

        def before() -> None:
            may()
            # Looked at once more: the server may have been started anew, and empty, since the first file.
            lost = set(contents.ids(manifest).values()) - self._whole(manifest)
            if lost:
                raise OSError(errno.EIO, f"{self.url}: the server has lost {len(lost)} files of {name}")

        self.objects.replace(_marker(name), data, before=before)
        self._manifests[name] = xxhash.xxh3_128_hexdigest(data), manifest

    def has(self, checkpoint: Path, *, name: str = "") -> bool:
        """Whether this very checkpoint is here whole: its manifest, and every file that it names."""
        manifest = native.read_manifest(checkpoint)
        try:
            here = self.manifest(name or checkpoint.name)
        except (FileNotFoundError, SourceError):
            return False
        return here["digest"] == manifest["digest"] and self._whole(manifest) == set(
            contents.ids(manifest).values()
        )

    def fetch(self, name: str, run: Path, *, before: Callable[[], None] = lambda: None) -> Path:
        """Bring a checkpoint into a run directory: beside its place, every digest checked, synced, renamed.

        `before`: called when all that is left is the renaming. Raises SourceError for one that is damaged here, or
        gone; nothing of it stays then.
        """
        folder = run / _CHECKPOINTS
        folder.mkdir(parents=True, exist_ok=True)
        begun = folder / f".unfinished-{uuid.uuid4().hex}"  # which rundir.sweep removes
        begun.mkdir()
        try:
            self._download(name, begun)
            before()
            begun.rename(folder / name)
        except BaseException:
            shutil.rmtree(begun, ignore_errors=True)
            raise
        native.sync_directory(folder)
        return folder / name

    def _download(self, name: str, begun: Path) -> None:
        try:
            manifest = self.manifest(name)
            for file, shard in contents.ids(manifest).items():
                self.objects.get(f"{_SHARDS}/{shard}", begun / file)
            (begun / native.MANIFEST).write_bytes(self.objects.read(_marker(name)))
        except FileNotFoundError as error:
            raise SourceError(f"{self.objects.at(f'{_CHECKPOINTS}/{name}')}: {error.strerror}.") from None
        self._demand_sound(name, begun, manifest)
        for path in begun.iterdir():
            _sync(path)
        native.sync_directory(begun)

    def copy(self, name: str, run: Path) -> bool:
        """A checkpoint as it is, damaged or not, for a look at it; what checkpoints share is fetched once.

        False where it has been retired meanwhile: nothing of it is left then.
        """
        target = run / _CHECKPOINTS / name
        target.mkdir(parents=True)
        try:
            self._copy(name, target, run / ".shards")
        except SourceError:  # which a look at the copy will find, too
            return True
        except FileNotFoundError:
            there = any(checkpoint.path.name == name for checkpoint in self.checkpoints())
            if not there:
                shutil.rmtree(target)
            return there
        return True

    def _copy(self, name: str, target: Path, shards: Path) -> None:
        shards.mkdir(exist_ok=True)
        (target / native.MANIFEST).write_bytes(self.objects.read(_marker(name)))
        for file, shard in contents.ids(self.manifest(name)).items():
            if not (shards / shard).exists():
                self.objects.get(f"{_SHARDS}/{shard}", shards / shard)
            os.link(shards / shard, target / file)

    def _demand_sound(self, name: str, begun: Path, manifest: Mapping[str, Any]) -> None:
        damage = list(native.damage(begun))
        if damage:
            ids = contents.ids(manifest)
            self._doubted |= {shard for file, shard in ids.items() if any(f"/{file}:" in d for d in damage)}
            raise SourceError(self._placed(damage[0], begun, name))

    def retire(self, names: Iterable[str]) -> None:
        """Remove checkpoints, the marker first, then what nothing names any more."""
        names = list(names)
        self.objects.remove(_marker(name) for name in names)
        for name in names:
            self._manifests.pop(name, None)
        if names:
            self.sweep()

    def sweep(self) -> int:
        """Remove files that no manifest names; how many. None where a manifest cannot be read: it may name any."""
        self.objects.remove(self.objects.sizes(BEGUN))
        there = self.objects.sizes(_SHARDS)  # listed first: what is uploaded later is not looked at
        found = [c.path.name for c in self.checkpoints()]
        try:
            named = {shard for name in found for shard in contents.ids(self._remembered(name)).values()}
        except (FileNotFoundError, SourceError):
            return 0
        garbage = [name for name in there if name.rpartition("/")[2] not in named]
        self.objects.remove(garbage)
        return len(garbage)

    # -- the run's other files ----------------------------------------------------------------------------------

    def push(self, run: Path) -> None:
        """Bring the run's other files here, those that this process has not yet brought as they are now.

        An object cannot be appended to: a log that has grown is sent whole. The lineage goes last, as it was before the
        others were looked for: it never tells of an end whose files are not here.
        """
        told = _told(run)
        for name in local_files(run):
            if name != LINEAGE:
                with contextlib.suppress(FileNotFoundError):  # removed or renamed since it was listed
                    at = (run / name).stat()
                    self._push(name, (run / name).read_bytes, (at.st_size, at.st_mtime_ns))
        if told is not None:
            self._push(LINEAGE, lambda: told, (len(told), 0))

    def _push(self, name: str, read: Callable[[], bytes], seen: tuple[int, int]) -> None:
        if self._pushed.get(name) != seen:
            self.objects.replace(name, read())
            self._pushed[name] = seen

    def forget(self) -> None:
        """Push everything again next time: the server may have been started anew, and empty."""
        self._pushed.clear()

    def files(self) -> list[str]:
        """Names of the run's other files."""
        return sorted(name for name in self.objects.sizes() if _is_file_of_run(name))

    def pull(self, run: Path, names: Iterable[str]) -> None:
        """Bring those files into a run directory, each whole or not at all, over what is there."""
        for name in names:
            target = run / name
            target.parent.mkdir(parents=True, exist_ok=True)
            begun = target.with_name(f".unfinished-{target.name}")
            self.objects.get(name, begun)
            _sync(begun)
            begun.replace(target)


def _told(run: Path) -> bytes | None:
    """The lineage, without a line that is being written."""
    if not (run / LINEAGE).is_file():
        return None
    told = (run / LINEAGE).read_bytes()
    return told[: told.rfind(b"\n") + 1]


def local_files(run: Path) -> list[str]:
    """The run's other files: all but checkpoints, locks, and what is half written."""
    found: list[str] = []
    for folder, below, files in os.walk(
        run
    ):  # which does not mind folders that vanish meanwhile, as rglob does
        here = Path(folder).relative_to(run)
        below[:] = [name for name in below if _is_file_of_run((here / name).as_posix())]
        regular = (here / name for name in files if not (run / here / name).is_symlink())
        found += (name for file in regular if _is_file_of_run(name := file.as_posix()))
    return sorted(found)


def _is_file_of_run(name: str) -> bool:
    """`name`: as a store gives it; one with an empty part, as consoles make for a folder, is nobody's file."""
    parts = name.split("/")
    hidden = any(not part or part.startswith(".") for part in parts)
    return not hidden and parts[0] not in _NOT_OURS and not name.startswith(_OF_THE_LOCK)


def _marker(name: str) -> str:
    return f"{_CHECKPOINTS}/{name}/{native.MANIFEST}"


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
