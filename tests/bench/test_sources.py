"""What scripts/bench/sources measures, on a few artifacts: our promises, and that its judgement can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
Import = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def cases(imported: Import) -> ModuleType:
    return imported("cases")


@pytest.fixture(scope="module")
def trials(cases: ModuleType, imported: Import) -> ModuleType:  # which imports cases
    return imported("trials")


def ran(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCH / "sources"), *arguments], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# ---- the truth ----


def test_all_artifacts_are_there(cases: ModuleType) -> None:
    found = list(cases.artifacts())
    assert len(found) == 92
    assert sum(artifact.full for artifact in found) == 89
    assert {a.id for a in found if not a.full} == {
        "o18_e215_mlp_adam/weights.h5", "o19_e215_mlp_legacy_adam/model.keras", "o31_e215_mlp_adam_noopt/model.h5",
    }  # fmt: skip
    assert len(list(cases.damaged())) == 6


def test_names_of_the_truth(cases: ModuleType) -> None:
    def names(run: str) -> set[str]:
        return set(cases.Case(cases.FIXTURES / run).state())

    assert {"model/dense/kernel", "model/dense_1/bias", "optimizer/velocity/dense_2/kernel"} <= names(
        "o01_e115s_mlp_adam"
    )
    assert {"model/lstm/lstm_cell/recurrent_kernel", "optimizer/velocity/emb/embeddings"} <= names(
        "o03_e115_embed_lstm_rmsprop"
    )
    assert {"model/encoder/enc_bn/moving_mean", "optimizer/norm/encoder/enc_a/kernel"} <= names(
        "o23_e215_nested_adamax"
    )
    assert "optimizer/accumulated_delta_var/tower/kernel" in names("o10_e210_shared_adadelta")


# ---- the judgement ----


def test_read_finds_a_wrong_bit_and_a_missing_array(
    cases: ModuleType, trials: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = next(a for a in cases.artifacts() if a.id == "o45_k315_mlp_adam_control/model.keras")
    assert trials.read(artifact)["ok"]
    true = cases.Case.state

    def spoilt(self: Any, *, optimizer: bool = True) -> dict[str, Any]:
        state: dict[str, Any] = true(self, optimizer=optimizer)
        name = "optimizer/velocity/dense/bias"
        state[name] = np.nextafter(state[name], 1)
        return state | {"optimizer/velocity/other/kernel": np.zeros(3, "float32")}

    monkeypatch.setattr(cases.Case, "state", spoilt)
    found = trials.read(artifact)
    assert not found["ok"]
    assert found["lost"] == ["optimizer/velocity/dense/bias", "optimizer/velocity/other/kernel"]


def test_read_counts_what_should_not_be_there(
    cases: ModuleType, trials: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = next(a for a in cases.artifacts() if a.id == "o45_k315_mlp_adam_control/model.keras")
    true = cases.Case.state
    monkeypatch.setattr(cases.Case, "state", lambda self, optimizer=True: true(self, optimizer=False))
    found = trials.read(artifact)
    assert not found["ok"]
    assert len(found["extra"]) == 12


def test_apart(trials: ModuleType) -> None:
    zeros = np.zeros(3, "float32")
    assert trials.apart(zeros, zeros) == 0
    assert trials.apart(np.asarray([0, 0.5, 0], "float32"), zeros) == 0.5
    assert trials.apart(np.asarray([0, np.nan, 0], "float32"), zeros) == np.inf
    assert trials.apart(zeros, np.zeros(2)) == np.inf


# ---- the table ----


def test_every_artifact_is_read_bit_for_bit() -> None:
    found = json.loads(ran("--columns", "read", "--json"))
    assert len(found["results"]["read"]) == 92
    assert {id_: r for id_, r in found["results"]["read"].items() if not r.get("ok")} == {}


def test_one_row_a_format_and_generation() -> None:
    lines = ran("--columns", "read,inspect", "--only", "o45").splitlines()
    assert [line.split(" | ")[:5] for line in lines[2:6]] == [
        ["| keras", "3", "1", "1", "1/1"],
        ["| h5", "3", "1", "1", "1/1"],
        ["| weights_h5", "3", "1", "1", "1/1"],
        ["| all", "", "3", "3", "3/3"],
    ]


@pytest.mark.slow
def test_continued_and_moved_beside_plain_keras() -> None:
    """One run of each generation; its peers are those whose weaknesses we want to hear of when they are gone."""
    only = "o09_e210_frozen_nadam/model.h5,o18_e215_mlp_adam/saved_model,o45_k315_mlp_adam_control/model.h5"
    found = json.loads(ran("--only", only, "--columns", "continued,moved,keras,tf_keras", "--json"))
    results = found["results"]
    for column in ("continued", "moved"):
        for id_, result in results[column].items():
            assert result.get("intact"), (column, id_, result)
            assert result["within"], (column, id_, result)
    assert results["continued"]["o18_e215_mlp_adam/saved_model"]["largest"] <= 2e-6
    assert results["continued"]["o45_k315_mlp_adam_control/model.h5"]["largest"] == 0
    assert "error" in results["keras"]["o45_k315_mlp_adam_control/model.h5"]
    lost = results["tf_keras"]["o18_e215_mlp_adam/saved_model"]
    assert lost["iterations"] == [7, 0]
    assert not lost["intact"]


@pytest.mark.slow
def test_every_damaged_file_is_refused(cases: ModuleType, imported: Callable[[str], ModuleType]) -> None:
    sources = imported("sources")
    found = sources.trial("refused", list(cases.damaged()), cases.FIXTURES)
    assert {id_: r for id_, r in found.items() if not r.get("ok")} == {}
    assert len(found) == 6
    assert "iteration" in found["on6_h5_iteration_zeroed/model.h5"]["said"]
    assert "NaN" in found["on5_h5_nan_slot/model.h5"]["said"]


def test_a_file_that_takes_its_process_down_loses_only_itself(
    imported: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    sources = imported("sources")
    worker = tmp_path / "trials.py"
    worker.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    if line.strip() == 'bad':\n"
        "        os._exit(9)\n"
        "    print(json.dumps({'id': line.strip(), 'ok': True}), flush=True)\n"
    )
    sources.HERE = tmp_path
    found = sources.survivors("read", ["one", "bad", "two"], tmp_path, {})
    assert found["one"]["ok"]
    assert found["two"]["ok"]
    assert found["bad"]["error"] == "its process died"
