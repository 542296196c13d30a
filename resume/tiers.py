"""A run in two tiers: which of both an attempt continues, and a look at the remote one.

The newest whole checkpoint of both wins, and with it its lineage and its logs: a run that went on elsewhere is brought
here, and what this machine has beyond the place where it left off is not of the run any more. A server that cannot be
reached is an error and never a silent restart: whether the run went on elsewhere cannot be known then.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from resume import lineage, logs, rundir, urls
from resume.errors import NewerSchemaError, NoCheckpointError, SourceError, UnreachableError
from resume.formats import native
from resume.rundir import Checkpoint
from resume.storage import Remote

_ASIDE = "lineage.aside.jsonl"  # lines of attempts that the run did not go on from


def bring(remote: Remote, run: Path) -> list[str]:
    """Make the local tier hold what the attempt continues; a sentence for each newer checkpoint that was passed over.

    For the holder of the run's lock. Whatever kills this, the next call begins again; the checkpoint that wins gets
    its name last. Raises UnreachableError where the server cannot be asked, NoCheckpointError where neither tier has a
    whole checkpoint, and one of them a damaged one.
    """
    try:
        return _brought(remote, run)
    except OSError as error:
        raise UnreachableError(
            f"{error.strerror or error}\nWhether the run went on elsewhere cannot be known, so nothing was begun. "
            "Repeat the command once the server can be reached."
        ) from error


def _brought(remote: Remote, run: Path) -> list[str]:
    ours = _newest_whole(run)
    passed: list[str] = []
    for checkpoint in reversed(remote.checkpoints()):
        if ours is not None and checkpoint.order <= ours.order:
            break
        try:
            path = remote.fetch(
                checkpoint.path.name, run, before=partial(_hand_over, remote, run, checkpoint)
            )
        except NewerSchemaError:
            raise  # whole, and not to be passed over
        except SourceError as error:
            passed.append(str(error))
        else:
            return passed + _never_uploaded(remote, run, path)
    if passed and ours is None:
        raise NoCheckpointError(
            f"{remote.url}: none of its {len(passed)} checkpoints is whole; the newest: {passed[0]}\n"
            "Nothing was changed. Restore one of them from a backup, or start anew in another run_dir."
        )
    if ours is not None:
        passed += _went_on_elsewhere(remote, run, ours)
    elif set(_lines(remote)) - set(_own_lines(run)):
        _take_over_files(remote, run)  # attempts that published nothing are attempts, too
    return passed


def _went_on_elsewhere(remote: Remote, run: Path, ours: Checkpoint) -> list[str]:
    """What the remote lineage tells beyond this machine's, where it is ours that is continued."""
    theirs, mine = _lines(remote), _own_lines(run)
    if set(theirs) <= set(mine):
        return []
    published = [r for r in _records(theirs) if r["event"] == "checkpoint"]
    if _digest(ours) in {r["digest"] for r in published}:  # it went on from this very checkpoint
        _take_over(remote, run)
        return _never_uploaded(remote, run, ours.path)
    _set_aside(run, theirs, beyond=mine)
    parted = [r for r in published if r["digest"] not in {own.get("digest") for own in _records(mine)}]
    return [
        f"{remote.url}/{r['path']}: of another machine, which had not seen {ours.path.name} of this one."
        for r in parted
    ]


def _newest_whole(run: Path) -> Checkpoint | None:
    try:
        return rundir.newest_whole(run)[0]
    except NoCheckpointError:
        return None


def _hand_over(remote: Remote, run: Path, chosen: Checkpoint) -> None:
    """The run becomes that of the remote tier, but for the chosen checkpoint, which is whole beside its place."""
    known = {r.get("digest") for r in _records(_lines(remote)) if r["event"] == "checkpoint"}
    _take_over(remote, run)
    for checkpoint in rundir.checkpoints(run):
        digest = _digest(checkpoint)
        in_its_place = checkpoint.path == run / chosen.path  # and damaged, else it would have been chosen
        if in_its_place or (digest is not None and digest not in known):
            rundir.retire(checkpoint)


def _take_over(remote: Remote, run: Path) -> None:
    """Lineage and logs become those of the remote tier; what attempts have logged of which it knows nothing goes."""
    attempts = {(r.get("time"), r.get("pid")) for r in lineage.attempts(_records(_lines(remote)))}
    mine = lineage.attempts(lineage.read(run))
    strangers = [r for r in mine if (r.get("time"), r.get("pid")) not in attempts]
    writers = [(str(r["host"]), int(r["pid"])) for r in strangers]
    logs.rewind(run, {}, folders=[run / "logs"], writers=writers)
    _take_over_files(remote, run)


def _take_over_files(remote: Remote, run: Path) -> None:
    """The lineage last: until it is here, all of this is repeated."""
    run.mkdir(parents=True, exist_ok=True)
    _set_aside(run, _own_lines(run), beyond=_lines(remote))
    remote.pull(run, sorted(remote.files(), key=lambda name: name == lineage.FILE))


def _digest(checkpoint: Checkpoint) -> str | None:
    try:
        return str(native.read_manifest(checkpoint.path)["digest"])
    except SourceError:
        return None


def _never_uploaded(remote: Remote, run: Path, fetched: Path) -> list[str]:
    """What the lineage tells of after the fetched checkpoint: published elsewhere, and lost with that machine."""
    digest = native.read_manifest(fetched)["digest"]
    published = [r for r in lineage.read(run) if r["event"] == "checkpoint"]
    places = [n for n, r in enumerate(published) if r["digest"] == digest]
    later = published[places[-1] + 1 :] if places else []
    digests = {str(c.path): _manifest_digest(remote, c) for c in remote.checkpoints()}
    damaged = {path for path, digest in digests.items() if digest is None}  # which was said
    return [
        f"{remote.url}/{r['path']}: published on the machine that trained it, and never uploaded."
        for r in later
        if r["digest"] not in digests.values() and r["path"] not in damaged
    ]


def _manifest_digest(remote: Remote, checkpoint: Checkpoint) -> str | None:
    try:
        return str(remote.manifest(checkpoint.path.name)["digest"])
    except (SourceError, FileNotFoundError):
        return None


# -- lineages that part -------------------------------------------------------------------------------------------


def _lines(remote: Remote) -> list[bytes]:
    try:
        return remote.objects.read(lineage.FILE).splitlines()
    except FileNotFoundError:
        return []


def _own_lines(run: Path) -> list[bytes]:
    file = run / lineage.FILE
    return file.read_bytes().splitlines() if file.is_file() else []


def _records(lines: Sequence[bytes]) -> list[lineage.Record]:
    with _written(lines) as folder:
        return lineage.read(folder)


@contextlib.contextmanager
def _written(lines: Sequence[bytes]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        (Path(folder) / lineage.FILE).write_bytes(b"\n".join(lines))
        yield Path(folder)


def _set_aside(run: Path, lines: Sequence[bytes], *, beyond: Sequence[bytes]) -> None:
    """Keep the lines that the run's lineage will not have, each once."""
    file = run / _ASIDE
    kept = set(file.read_bytes().splitlines()) if file.is_file() else set()
    lost = [line for line in lines if line not in {*beyond, *kept}]
    if lost:
        with file.open("ab") as stream:
            stream.writelines(line + b"\n" for line in lost)


def completed(url: str, *, epochs: int) -> str | None:
    """As `lineage.completed`, by the remote tier alone: what lies on one machine only is not finished.

    Raises UnreachableError where the server cannot be asked.
    """
    try:
        remote = Remote(url)
        lines = _lines(remote)
        there = {str(c.path) for c in remote.checkpoints()}
    except OSError as error:
        raise UnreachableError(
            f"{error.strerror or error}\nNothing was begun. Repeat the command once the server can be reached."
        ) from error
    published = [str(r["path"]) for r in _records(lines) if r["event"] == "checkpoint"]
    with _written(lines) as folder:
        return lineage.completed(folder, epochs=epochs) if there.issuperset(published[-1:]) else None


# -- for a look ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def local_copy(name: str, *, newest: bool = False) -> Iterator[Path]:
    """A place to read: a path as it is; of a URL, a copy in a temporary folder, for as long as the context lasts.

    The URL of a run gives a run directory with its lineage and all its checkpoints (`newest`: the newest alone, else
    one that is damaged as well as it can be had), that of a checkpoint a checkpoint.
    """
    if not urls.is_remote(name):
        yield Path(name)
        return
    url, last = _run_and_checkpoint(name.rstrip("/"))
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        run = Path(folder) / url.rpartition("/")[2]
        run.mkdir()
        try:
            place = _copied(Remote(url), run, last, newest=newest)
        except OSError as error:
            raise UnreachableError(f"{error.strerror or error}") from error
        yield place


def _run_and_checkpoint(url: str) -> tuple[str, str]:
    """The URL of the run, and the name of its checkpoint where it is the URL of one."""
    run, _, last = url.rpartition("/checkpoints/")
    return (run, last) if run and last.startswith("step-") else (url, "")


def _copied(remote: Remote, run: Path, last: str, *, newest: bool) -> Path:
    found = [c for c in remote.checkpoints() if not last or c.path.name == last]
    if not found and (last or not remote.holds()):
        what = f"no checkpoint {last}" if last else "not a run (no checkpoints and no lineage.jsonl)"
        raise SourceError(f"{remote.url}: {what}.")
    if not last:
        remote.pull(run, [name for name in remote.files() if name == lineage.FILE])
        (run / "checkpoints").mkdir()
    copied = 0
    for checkpoint in reversed(found):
        there = remote.copy(checkpoint.path.name, run)
        copied += there
        if there and newest and not Checkpoint(run / checkpoint.path, *checkpoint.order).damage():
            break
    if found and not copied:
        raise SourceError(
            f"{remote.url}: its training has retired what was being copied. Repeat the command."
        )
    return run / found[0].path if last else run
