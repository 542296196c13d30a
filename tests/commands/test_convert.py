"""`resume convert`: what it says, as lines and as one JSON object, and what it wants typed instead."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resume.commands import convert
from resume.errors import ContinuityError, UsageError

Captured = pytest.CaptureFixture[str]

FIXTURES = Path(__file__).parents[1] / "fixtures"
LSTM = FIXTURES / "o03_e115_embed_lstm_rmsprop/model.h5"
CUSTOM = FIXTURES / "o30_e215_custom_unreg_legacy_adam/model.h5"


def test_all_that_there_is_to_say(tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "a.keras"
    assert convert.run([str(LSTM), str(target)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:5] == [
        f"{LSTM} -> {target} (keras, keras)",
        "continuity: partial (14 arrays re-read and bit-equal, 6 of them slot variables)",
        "optimizer iterations: 7 saved -> 7 restored",
        "  seeds/lstm/lstm_cell/seed: not in the source, started fresh: None -> int64[2]",
        "written and read back: 14 arrays bit-equal, 6 of them slot variables",
    ]
    assert out[5] == "in Keras 3 this model does not continue bit for bit as it did:"
    assert out[6].startswith("  hard_sigmoid (lstm): was max(0, min(1, 0.2x + 0.5))")
    assert out[-1] == "not held by this format: seeds"


def test_what_is_left_behind_is_said_once_a_reason(tmp_path: Path, capsys: Captured) -> None:
    source = FIXTURES / "o13_e212_mlp_named_adam_amsgrad/model.h5"
    assert convert.run([str(source), str(tmp_path / "a.keras"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == []
    assert found["slots"] == 18
    assert list(convert._by_reason({"a": "why", "b": "why", "c": "why", "d": "why", "e": "other"})) == [
        "a, b, c and 1 more: why",
        "e: other",
    ]


def test_custom_objects_are_asked_for_in_the_words_of_this_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        convert.run([str(CUSTOM), str(tmp_path / "a.keras")])
    assert str(raised.value).splitlines() == [
        f"{CUSTOM}: needs custom objects that nothing names. Add:",
        "  --custom PlainScale=YOUR.MODULE:PlainScale",
        "  --custom plain_loss=YOUR.MODULE:plain_loss",
        "  --custom plain_mae=YOUR.MODULE:plain_mae",
    ]


def test_named_they_are_imported(tmp_path: Path) -> None:
    """In a process of its own, whose working directory is where the user's modules are."""
    named = [("PlainScale", "custom_objects:PlainScale"), ("plain_loss", "custom_objects.plain_loss"),
             ("plain_mae", "custom_objects:plain_mae")]  # fmt: skip
    options = [part for name, path in named for part in ("--custom", f"{name}={path}")]
    command = [sys.executable, "-m", "resume", "convert", str(CUSTOM), str(tmp_path / "a.keras"), *options]
    done = subprocess.run(command, cwd=FIXTURES, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continuity: exact" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--custom", "Gate"], "--custom Gate: NAME=MODULE:OBJECT is expected"),
        (["--custom", "Gate=no_such_module:Gate"], "--custom Gate: no_such_module:Gate: No module named"),
        (["--custom", "Gate=json:Gate"], "--custom Gate: json:Gate: module 'json' has no attribute 'Gate'"),
        (["--model", "json:__name__"], "--model: json:__name__: no function"),
    ],
)
def test_a_typing_error(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        convert.run([str(LSTM), str(tmp_path / "a.keras"), *options])
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_optimizer_is_accepted_by_name(tmp_path: Path, capsys: Captured) -> None:
    source, target = str(FIXTURES / "o31_e215_mlp_adam_noopt/model.h5"), str(tmp_path / "a.keras")
    with pytest.raises(ContinuityError, match="--accept optimizer"):
        convert.run([source, target])
    assert convert.run([source, target, "--accept", "optimizer,seeds"]) == 0
    assert "0 of them slot variables" in capsys.readouterr().out


def test_help_needs_no_tensorflow() -> None:
    code = (
        "import sys\n"
        "from resume.commands import convert\n"
        "try: convert.run(['--help'])\n"
        "except SystemExit: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "NAME.keras, NAME.h5, or any other name for a directory" in " ".join(done.stdout.split())
