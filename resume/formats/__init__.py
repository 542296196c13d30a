"""One reader a format; each module has `holds(path)` and `read(path)`."""

from pathlib import Path
from typing import Protocol

from resume.errors import SourceError
from resume.formats import h5, keras, native
from resume.state import TrainState


class Reader(Protocol):
    def holds(self, path: Path) -> bool: ...
    def read(self, path: Path) -> TrainState: ...


READERS: dict[str, Reader] = {"native": native, "keras": keras, "h5": h5}


def read(path: Path) -> TrainState:
    """The training state in a file or checkpoint directory, whatever its name: formats are told by content.

    Raises SourceError for a path that is missing, or that holds no format known here.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file or directory.")
    for reader in READERS.values():
        if reader.holds(path):
            return reader.read(path)
    what = "directory" if path.is_dir() else "file"
    raise SourceError(
        f"{path}: this {what} is not a checkpoint that can be read (.h5 and .keras of Keras 3, own checkpoints "
        "and run directories)."
    )
