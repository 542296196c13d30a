"""How a configuration is made short for a rehearsal, and what of it is overruled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST = 64  # batches of an epoch that cannot be cut without changing its order
_VALIDATION = 4  # batches of a validation that is cut
_SAVES = 3  # checkpoints an epoch


@dataclass(frozen=True)
class Plan:
    """`steps_per_epoch`, `validation_steps`: None where the configuration's own hold."""

    epochs: int
    steps_per_epoch: int | None
    every_steps: int
    validates: bool
    validation_steps: int | None = None
    steps_given: bool = False
    source: str = "data.train"
    ends: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Any], *, epochs: int, steps: int) -> Plan:
        """From what the survey found. Epochs are cut where each can be: data by epoch, arrays, sequences, streams."""
        block, own = found["block"], found["steps"]
        wanted = min(own, -(-steps // block) * block)
        free = found["takes_epoch"] or found["kind"] != "dataset" or found["steps_given"]
        cut = wanted < own and (free or own > _LONGEST)
        notes = [f"epochs are cut to {wanted} of {own} batches"] if cut else []
        if cut and not free:
            notes.append(
                "data.train takes no `epoch`: cut, its epochs follow each other as one stream, and the replay of whole "
                "epochs is not rehearsed"
            )
        long = (found["validation_batches"] or 0) > _VALIDATION and found["validation_steps"] is None
        length = wanted if cut else own
        return cls(
            epochs=epochs,
            steps_per_epoch=wanted if cut else None,
            every_steps=max(length // _SAVES // block, 1) * block,
            validates=found["validates"],
            validation_steps=_VALIDATION if long else None,
            steps_given=found["steps_given"],
            source=found["source"],
            ends=found["ends"],
            notes=tuple(notes),
        )

    def overrides(self, run: Path) -> list[str]:
        """Hydra overrides behind the user's own, which they overrule."""
        given = {
            "fit.epochs": self.epochs,
            "fit.steps_per_epoch": self.steps_per_epoch,
            "fit.validation_steps": self.validation_steps,
            "checkpoint.every_steps": self.every_steps,
        }
        return [*self.quiet(run), *(f"++{key}={value}" for key, value in given.items() if value is not None)]

    @staticmethod
    def quiet(run: Path) -> list[str]:
        """Of every attempt: its folder, bit-for-bit repetition, no scheduler that is told anything, no minutes.

        Saves are waited for: a moment to kill at is told by steps, and what is published by then must not vary.
        """
        text = str(run).replace("'", "\\'")
        return [
            f"run_dir='{text}'", "++deterministic=true", "++fit.verbose=0", "++checkpoint.every_minutes=null",
            "++checkpoint.background=false",
            "++cluster.kind=local", "++cluster.requeue=false", "++cluster.exit_code=null", "++cluster.signals=null",
            "++cluster.fruitless=null", "++cluster.wait=30",
        ]  # fmt: skip
