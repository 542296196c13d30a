"""A callback that notes every step, and slows a training down for as long as a file is there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras


class Pace(keras.callbacks.Callback):
    """`folder`: holds `steps.txt`, and `slow` while each step is to last so many seconds."""

    def __init__(self, folder: str, seconds: float = 0.2) -> None:
        super().__init__()
        self.folder, self.seconds = folder, seconds

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        with (Path(self.folder) / "steps.txt").open("a") as file:
            file.write(f"{int(self.model.optimizer.iterations)}\n")
        if (Path(self.folder) / "slow").exists():
            time.sleep(self.seconds)

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing of it belongs to the run."""
