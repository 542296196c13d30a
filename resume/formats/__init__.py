"""One reader a format; each module has `holds(path)` and `read(path)`."""

from pathlib import Path
from typing import Protocol

from resume.errors import SourceError
from resume.formats import backup, h5, keras, native, savedmodel, soundness, tfcheckpoint, weights
from resume.formats.hdf5 import starts_with
from resume.state import TrainState


class Reader(Protocol):
    def holds(self, path: Path) -> bool: ...
    def read(self, path: Path) -> TrainState: ...


# In the order in which they are asked: a backup of Keras 2 is a directory with a TensorFlow checkpoint inside, a file
# of weights is an HDF5 file.
READERS: dict[str, Reader] = {
    "native": native,
    "keras": keras,
    "weights_h5": weights,
    "h5": h5,
    "savedmodel": savedmodel,
    "backup": backup,
    "tf_checkpoint": tfcheckpoint,
}


def read(path: Path) -> TrainState:
    """The training state in a file or checkpoint directory, whatever its name: formats are told by content.

    Raises SourceError for a path that is missing, or that holds no format known here.
    """
    _demand_fetched(path)
    for reader in READERS.values():
        if reader.holds(path):
            return soundness.check(reader.read(path))
    if not path.exists():
        raise SourceError(f"{path}: no such file or directory.")
    what = "directory" if path.is_dir() else "file"
    raise SourceError(
        f"{path}: this {what} is not a checkpoint that can be read (.h5, .keras, .weights.h5, SavedModel, TensorFlow "
        "checkpoint, BackupAndRestore, own checkpoints and run directories)."
    )


_POINTER = b"version https://git-lfs.github.com/spec/"


def _demand_fetched(path: Path) -> None:
    """Raise SourceError for what Git LFS leaves in the place of a file that was not fetched (git-lfs, docs/spec.md)."""
    inside = ("saved_model.pb", "keras_metadata.pb", "variables/variables.index")
    files = [path, path.with_name(f"{path.name}.index"), *(path / name for name in inside)]
    for file in files:
        if file.is_file() and starts_with(file, _POINTER):
            raise SourceError(
                f"{file}: a pointer of Git LFS in the place of the file. Fetch it: git lfs pull"
            )
