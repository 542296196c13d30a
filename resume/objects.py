"""Objects behind a URL (s3://, gs://, ...): read, written, listed and removed by name, through fsspec.

fsspec and the package for the URL's kind are optional: `pip install "keras-resume[remote]"`. Whatever a library raises
for a server that is away, slow or refuses comes out as an OSError in plain words; a name that is not there is
FileNotFoundError, a name that is taken FileExistsError.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from resume.errors import ResumeError, UsageError

_PATIENT = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
BEGUN = ".begun"  # where a process that was killed may have left something
_AT_ONCE = 4  # parts of 50 MB that are on their way at a time, and in memory


class Objects:
    """Everything below one URL."""

    def __init__(self, url: str, **options: Any) -> None:
        """`options`: the file system's own, over those of fsspec's configuration (FSSPEC_S3_ENDPOINT_URL, ...)."""
        self.url = url.rstrip("/")
        self._fs, self._root = _opened(self.url, options)
        self.heard = time.monotonic()  # when the store last answered, or took a part of a large file

    def at(self, name: str) -> str:
        return f"{self.url}/{name}"

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes by name of everything below a folder, at any depth; empty where nothing is."""
        return {name: int(facts["size"]) for name, facts in self._found(folder).items()}

    def modified(self, folder: str) -> dict[str, float]:
        """When each was last written, in seconds, by the store's clock; 0 where the store does not tell."""
        return {name: _time(facts) for name, facts in self._found(folder).items()}

    def read(self, name: str) -> bytes:
        with self._plainly("read", name):
            data: bytes = self._fs.cat_file(self._path(name))
            return data

    def write(self, name: str, data: bytes) -> None:
        """Over what was there. Whole where the store keeps to its protocol; not all do when a sender is killed."""
        with self._plainly("written", name, writes=True):
            self._fs.pipe_file(self._path(name), data)

    def replace(self, name: str, data: bytes, *, before: Callable[[], None] = lambda: None) -> None:
        """The same, whole or not at all on any store: sent beside, and moved by the store itself.

        S3 refuses a body that ends early. Some that are like it keep what came, be it nothing, and so do file systems.
        `before`: called when all that is left is the moving; nothing is written where it raises.
        """
        begun = f"{BEGUN}/{uuid.uuid4().hex}"
        self.write(begun, data)
        try:
            before()
        except BaseException:
            self._drop(begun)
            raise
        with self._plainly("written", name, writes=True):
            self._move(self._path(begun), self._path(name))
        self._drop(begun)

    def _drop(self, begun: str) -> None:
        """It has been moved away, or nobody will look at it: what remains is swept."""
        with contextlib.suppress(Exception):
            self._fs.rm_file(self._path(begun))

    def _move(self, source: str, target: str) -> None:
        if _renames(self._fs):
            self._fs.mv(source, target)
        else:
            self._fs.cp_file(source, target)  # within the store: no bytes pass through here

    def create(self, name: str, data: bytes) -> None:
        """Raises FileExistsError where the name is taken. `data` must be like nobody else's.

        The store decides (If-None-Match) where it can, else who wrote last. Read back in any case: an answer that was
        lost looks like a name that is taken, and some stores do not hear the condition.
        """
        with contextlib.suppress(Exception):  # whatever it was, reading it back tells what has become of it
            self._fs.pipe_file(self._path(name), data, mode="create")
        try:
            found = self.read(name)
        except FileNotFoundError:
            self.write(name, data)
            found = self.read(name)
        if found != data:
            raise FileExistsError(errno.EEXIST, f"{self.at(name)}: another process was first")

    def put(self, name: str, file: Path) -> None:
        """The bytes of a file; nobody sees a part of them."""
        from fsspec.callbacks import Callback

        parts = Callback(hooks={"heard": lambda *_, **__: self._hear()})
        with self._plainly("written", name, writes=True):
            self._fs.put_file(str(file), self._path(name), callback=parts)

    def get(self, name: str, file: Path) -> None:
        with self._plainly("read", name):
            self._fs.get_file(self._path(name), str(file))

    def remove(self, names: Iterable[str]) -> None:
        """Those that are not there any more are no error."""
        for name in names:
            with self._plainly("removed", name), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def _found(self, folder: str) -> dict[str, Mapping[str, Any]]:
        with self._plainly("listed", folder, writes=True):
            found: dict[str, Any] = self._fs.find(self._path(folder), detail=True)
        start = f"{self._root}/"
        inside = {path: facts for path, facts in found.items() if path.startswith(start)}
        return {path[len(start) :]: facts for path, facts in inside.items()}

    def _hear(self) -> None:
        self.heard = time.monotonic()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @contextlib.contextmanager
    def _plainly(self, done: str, name: str, *, writes: bool = False) -> Iterator[None]:
        """`writes`: a name that is not there needs no other before it, so it is the bucket that is missing."""
        try:
            yield
            self._hear()
        except FileNotFoundError as error:
            if writes:
                raise OSError(errno.EIO, f"{self.at(name)}: cannot be {done} ({_words(error)})") from error
            raise FileNotFoundError(errno.ENOENT, f"{self.at(name)} is not there") from error
        except ResumeError:
            raise
        except Exception as error:  # botocore's, aiohttp's and Google's have no ancestor in common
            raise OSError(errno.EIO, f"{self.at(name)}: cannot be {done} ({_words(error)})") from error


def _opened(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError:
        raise UsageError(f'{url}: needs fsspec: pip install "keras-resume[remote]"') from None
    for library in ("aiobotocore", "botocore"):  # tell at INFO where each found its credentials
        if logging.getLogger(library).level == logging.NOTSET:
            logging.getLogger(library).setLevel(logging.WARNING)
    scheme = url.partition("://")[0]
    chosen = {**_defaults(scheme, fsspec.config.conf.get(scheme, {})), **options}
    try:
        fs, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **chosen)
    except ImportError as error:
        raise UsageError(f'{url}: {error}. For s3: pip install "keras-resume[remote]"') from None
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from None
    return fs, root.rstrip("/")


def _defaults(scheme: str, configured: Mapping[str, Any]) -> dict[str, Any]:
    """Where nobody has configured it: a server that does not answer is found out in minutes, not in hours."""
    if scheme in ("file", "local"):
        return {"auto_mkdir": True}
    if scheme not in ("s3", "s3a"):
        return {}
    config = {**_PATIENT, **configured.get("config_kwargs", {})}
    return {"max_concurrency": configured.get("max_concurrency", _AT_ONCE), "config_kwargs": config}


def _renames(fs: Any) -> bool:
    """Whether it has a way of its own to move. The one that all inherit copies, and takes names for patterns."""
    from fsspec import AbstractFileSystem

    return not fs.async_impl and type(fs).mv is not AbstractFileSystem.mv


def _time(facts: Mapping[str, Any]) -> float:
    found = facts.get("LastModified", facts.get("mtime", facts.get("created", 0)))
    return float(found.timestamp() if hasattr(found, "timestamp") else found)


def _words(error: Exception) -> str:
    return f"{getattr(error, 'strerror', None) or error or type(error).__name__}".strip()
