"""Saved on two devices, resumed on one, and back: the same arrays, the same proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resume import lineage, rundir


@pytest.mark.slow
def test_two_devices_one_device_and_back(tmp_path: Path, batch: Any) -> None:
    def attempt(epochs: int, *devices: str) -> dict[str, Any]:
        arguments = ["train", f"run_dir={tmp_path}/run", f"fit.epochs={epochs}", *devices]
        return {
            "folder": tmp_path,
            "arguments": [*arguments, "model=digits_cnn", "data.train.batch_size=256"],
        }

    done = batch([attempt(1, "devices=two_cpus"), attempt(2, "devices=cpu"), attempt(3, "devices=two_cpus")])
    assert [d.code for d in done] == [0, 0, 0], done[-1].output
    assert "devices: 2 logical CPU devices, mirrored" in done[0].output
    assert "devices: CPU" in done[1].output
    assert "another number of devices" in done[1].output
    starts = lineage.attempts(lineage.read(tmp_path / "run"))
    assert [s["verdict"] for s in starts] == ["fresh", "exact", "exact"]
    assert [s["iterations_restored"] for s in starts[1:]] == [6, 12]
    assert lineage.breaks(tmp_path / "run") == []
    assert rundir.read(tmp_path / "run").iterations == 18
