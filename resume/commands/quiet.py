"""Importing TensorFlow without its remarks about drivers that this machine does not have."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

# Said by TensorFlow's C++ side at every start on a machine without a GPU, whatever TF_CPP_MIN_LOG_LEVEL says.
_REMARKS = (
    "absl::InitializeLog",
    "cudart_stub",
    "cuInit",
    "cuda_diagnostics",
    "computation_placer",
    "cpu_feature_guard",
    "oneDNN custom operations",
)


@contextlib.contextmanager
def standard_error() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and pass on all but the known remarks at the end."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not any(remark in line for remark in _REMARKS):
                    print(line, file=sys.stderr)
