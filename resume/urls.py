"""Run directories behind a URL: how one is told from a path, and where its tier on this machine lies."""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from resume.errors import UsageError


def is_remote(name: str) -> bool:
    """Whether this names a place behind a URL, and not a file or folder."""
    scheme, found, _ = name.partition("://")
    return bool(found) and scheme.isalnum() and scheme != "file"


def local_tier(url: str, *, within: str | Path | None = None) -> Path:
    """The run directory on this machine: named after the run, and a digest of its URL.

    In `within`, else in $TMPDIR, which clusters point at the node's own disk, else in the user's cache.
    """
    url = url.rstrip("/")
    scratch = os.environ.get("TMPDIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(within).expanduser() if within else (Path(scratch) if scratch else cache) / "keras-resume"
    return folder / f"{url.rpartition('/')[2]}-{xxhash.xxh3_64_hexdigest(url.encode())}"


def placed(run_dir: str, *, local: str | Path | None = None) -> tuple[Path, str | None]:
    """The run directory on this machine, and the URL of the tier behind it where it has one.

    Raises UsageError for a URL that names nothing.
    """
    if is_remote(run_dir):
        if not run_dir.partition("://")[2].strip("/"):  # s3://$BUCKET, where that is not set
            raise UsageError(f"{run_dir}: names no bucket. A run behind a URL is run_dir=s3://BUCKET/PATH")
        return local_tier(run_dir, within=local), run_dir.rstrip("/")
    return Path(run_dir).expanduser(), None


def absolute(name: str) -> str:
    """As the lineage names a source: a URL as it is."""
    return name if is_remote(name) else str(Path(name).expanduser().absolute())
