"""Everything that a user can be told, and the exit code that goes with it.

* ResumeError                 1   anything unforeseen
  x UnreachableError          1   a server that cannot be asked now: another start may reach it
  + UsageError                2   a command line, a configuration or a source that cannot be used as given
    x MissingObjectsError     2   custom objects of a source that nobody has named
    x SourceError             2   a file that is not there, is not a checkpoint, or is damaged
      . NewerSchemaError      2   a checkpoint of a later version of this package
    x DriftError              2   configuration and checkpoint disagree, and nobody said which one holds
  x ContinuityError           3   the restored state is not the saved one
  x NoCheckpointError         4   a run directory that has checkpoints, none of them whole
  x RunInUseError             5   another process trains in this run directory, or has taken it over
  x NoProgressError           6   attempt after attempt of this run ended without a new checkpoint

`resume diff` exits as diff(1) does: 0 for equal sources, 1 for different ones, 2 for trouble.

A message is one to three lines: what, where (file, path of the variable), saved -> found, what to type next.
"""

EXIT_COMPLETED = 0
EXIT_DIFFERENT = 1  # of `resume diff` only


class ResumeError(Exception):
    """Whatever this package refuses to do; shown without a traceback."""

    exit_code = 1


class UnreachableError(ResumeError):
    """A server is away, slow or refuses; nothing was begun."""


class UsageError(ResumeError):
    exit_code = 2


class MissingObjectsError(UsageError):
    """A source needs custom objects that nobody has named; `names` as the source has them."""

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


class SourceError(UsageError):
    """A source (any format) that cannot be read as a training state."""


class NewerSchemaError(SourceError):
    """A checkpoint of a later version of this package: whole, but not ours to judge, and never ours to remove."""


class DriftError(UsageError):
    """Today's configuration contradicts the checkpoint's."""


class ContinuityError(ResumeError):
    exit_code = 3


class NoCheckpointError(ResumeError):
    exit_code = 4


class RunInUseError(ResumeError):
    exit_code = 5


class NoProgressError(ResumeError):
    exit_code = 6
