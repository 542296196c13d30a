"""Training runs that cannot be lost: resume Keras training with its optimizer state, and prove it.

state = resume.read("run42.h5")          a training state as plain arrays; needs no TensorFlow
model, proof = resume.load("run42.h5")   live, compiled, proven
resume.fit(model, data, run_dir="runs/a", epochs=10)   Keras's fit() that continues after any kill
resume.convert("run42.h5", "run42.keras")  another format, or Keras 3 for a source of Keras 2; read back and compared
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resume.continuity import Finding, Proof
from resume.errors import (
    ContinuityError,
    DriftError,
    MissingObjectsError,
    NoCheckpointError,
    ResumeError,
    RunInUseError,
    SourceError,
    UsageError,
)
from resume.rundir import read
from resume.state import TrainState

if TYPE_CHECKING:
    from resume.engine.convert import convert
    from resume.engine.face import fit, load

__version__ = "0.1.0"

__all__ = [
    "ContinuityError",
    "DriftError",
    "Finding",
    "MissingObjectsError",
    "NoCheckpointError",
    "Proof",
    "ResumeError",
    "RunInUseError",
    "SourceError",
    "TrainState",
    "UsageError",
    "convert",
    "fit",
    "load",
    "read",
]


def __getattr__(name: str) -> Any:
    """What imports TensorFlow, which takes seconds: only when it is asked for."""
    if name in ("fit", "load"):
        from resume.engine import face

        return getattr(face, name)
    if name == "convert":
        from resume.engine import convert as engine

        return engine.convert
    raise AttributeError(f"module 'resume' has no attribute {name!r}")
