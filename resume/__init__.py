"""Training runs that cannot be lost: resume Keras training with its optimizer state, and prove it.

state = resume.read("run42.h5")          a training state as plain arrays; needs no TensorFlow
model, proof = resume.load("run42.h5")   live, compiled, proven
resume.fit(model, data, run_dir="runs/a", epochs=10)   Keras's fit() that continues after any kill
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resume.continuity import Finding, Proof
from resume.errors import (
    ContinuityError,
    DriftError,
    NoCheckpointError,
    ResumeError,
    RunInUseError,
    SourceError,
    UsageError,
)
from resume.rundir import read
from resume.state import TrainState

if TYPE_CHECKING:
    from resume.engine.face import fit, load

__version__ = "0.1.0"

__all__ = [
    "ContinuityError",
    "DriftError",
    "Finding",
    "NoCheckpointError",
    "Proof",
    "ResumeError",
    "RunInUseError",
    "SourceError",
    "TrainState",
    "UsageError",
    "fit",
    "load",
    "read",
]


def __getattr__(name: str) -> Any:
    """`fit` and `load` import TensorFlow, which takes seconds: only when they are asked for."""
    if name in ("fit", "load"):
        from resume.engine import face

        return getattr(face, name)
    raise AttributeError(f"module 'resume' has no attribute {name!r}")
