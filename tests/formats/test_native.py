"""Our own checkpoints: every dtype there and back, readable by others, every flipped byte found."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import xxhash

from resume import formats
from resume.errors import SourceError
from resume.formats import native
from resume.state import Arrays, TrainState

Make = Callable[..., TrainState]

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "bfloat16",
]  # fmt: skip
SHAPES = [(), (1,), (0,), (3, 0, 2), (2, 3, 5)]


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits at all, NaN payloads included; a bool has but two."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    bits = np.random.default_rng(0).bytes(kind.itemsize * math.prod(shape))
    array = np.frombuffer(bits, np.uint8).copy()
    return (array % 2 if dtype == "bool" else array).view(kind).reshape(shape)


@pytest.fixture
def checkpoint(tmp_path: Path, make_state: Make) -> Path:
    return written(tmp_path, make_state(7))


def written(folder: Path, state: TrainState) -> Path:
    path = folder / "step-00000007"
    path.mkdir()
    native.write(path, state)
    return path


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and give it a digest that holds, as another writer would."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    del manifest["digest"]
    edit(manifest)
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    manifest["digest"] = xxhash.xxh3_128_hexdigest(text.encode())
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1))


# ---- there and back ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_round_trip_of_every_dtype(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array, odd = values(dtype, shape), values("uint8", (3,))  # three bytes: what follows is not aligned
    arrays = Arrays.of({"model/a": odd, "model/b": array, "model/c": array})
    path = written(tmp_path, TrainState(format="native", path=Path(), arrays=arrays))
    state = native.read(path)
    assert dict(state.specs) == dict(arrays.specs)
    for name in ("model/b", "model/c"):
        back = state.arrays[name]
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tobytes() == array.tobytes()
    assert list(native.damage(path)) == []


def test_any_memory_layout(tmp_path: Path) -> None:
    grid = np.arange(24, dtype="float32").reshape(4, 6)
    arrays = Arrays.of(
        {"t": grid.T, "s": grid[::2, ::-3], "f": np.asfortranarray(grid), "b": grid.astype(">f4")}
    )
    state = native.read(written(tmp_path, TrainState(format="native", path=Path(), arrays=arrays)))
    assert state.arrays["t"].tolist() == grid.T.tolist()
    assert state.arrays["s"].tolist() == grid[::2, ::-3].tolist()
    assert state.arrays["f"].tolist() == state.arrays["b"].tolist() == grid.tolist()


def test_everything_else_makes_the_round_trip(tmp_path: Path, make_state: Make) -> None:
    facts: dict[str, Any] = {
        "compile_config": {"loss": "mse", "weights": (1.0, float("inf"))},
        "progress": {"position": {"epoch": 1}, "rng": {"$array": "rng/0"}},
        "raw_names": {"model/dense/kernel": "sequential/dense/kernel"},
    }
    state = make_state(7, **facts)
    back = native.read(written(tmp_path, state))
    for name in ("model_config", "optimizer", "keras_version", "epoch", "batch", *facts):
        assert getattr(back, name) == getattr(state, name), name
    assert (back.format, back.iterations, back.notes) == ("native", 7, ())


def test_a_state_without_anything(tmp_path: Path) -> None:
    path = written(tmp_path, TrainState(format="native", path=Path(), arrays=Arrays.of({})))
    state = native.read(path)
    assert (dict(state.arrays), state.model_config, state.optimizer, state.iterations) == (
        {},
        None,
        None,
        None,
    )
    assert list(native.damage(path)) == []


def test_third_party_readers(tmp_path: Path) -> None:
    arrays = {f"{dtype}/{shape}": values(dtype, shape) for dtype in DTYPES for shape in SHAPES}
    path = written(tmp_path, TrainState(format="native", path=Path(), arrays=Arrays.of(arrays)))
    file = path / "state.safetensors"
    with safetensors.safe_open(file, framework="numpy") as opened:
        assert set(opened.keys()) == set(arrays)
    found = safetensors.numpy.load_file(file)
    for name, array in arrays.items():
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].dtype == array.dtype, name


def test_arrays_lie_in_the_order_of_a_backward_pass(
    tmp_path: Path, make_state: Callable[..., TrainState]
) -> None:
    """The last layer first, with its slots; what belongs to no variable of the model comes last."""
    arrays = {
        name: np.zeros(2, "float32")
        for layer in ("a", "inner/b", "c")
        for name in (
            f"beside/critic/velocity/{layer}",
            f"optimizer/m/{layer}",
            f"model/{layer}",
            f"states/{layer}",
        )
    }
    path = tmp_path / "step-00000001"
    path.mkdir()
    native.write(path, make_state(1, extra=arrays))
    data = (path / "state.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    names = sorted(header, key=lambda name: header[name]["data_offsets"])
    kinds = ("beside/critic/velocity", "optimizer/m", "model", "states")
    assert names[:12] == [f"{kind}/{layer}" for layer in ("c", "inner/b", "a") for kind in kinds]
    assert names[12:14] == ["model/dense/bias", "optimizer/momentum/dense/bias"]
    assert set(names[-2:]) == {"optimizer/iteration", "optimizer/learning_rate"}
    assert list(native.read(path).specs) == list(make_state(1, extra=arrays).specs)


def test_the_data_begins_on_a_cache_line(checkpoint: Path) -> None:
    data = (checkpoint / "state.safetensors").read_bytes()
    assert (8 + int.from_bytes(data[:8], "little")) % 64 == 0


def test_formats_read_it_by_its_manifest(checkpoint: Path) -> None:
    assert formats.read(checkpoint).format == "native"


def test_nothing_is_overwritten(checkpoint: Path, make_state: Make) -> None:
    with pytest.raises(FileExistsError):
        native.write(checkpoint, make_state(8))
    assert list(native.damage(checkpoint)) == []


# ---- damage ----


@pytest.mark.parametrize("name", ["manifest.json", "model.json", "state.safetensors"])
def test_every_flipped_byte_is_found(checkpoint: Path, name: str) -> None:
    """Whichever bit: in the data, in the header, in JSON that would parse to the same values."""
    file = checkpoint / name
    whole = file.read_bytes()
    missed = []
    with file.open("r+b", buffering=0) as stream:
        for place, byte in enumerate(whole):
            for flipped in {byte ^ 1 << place % 8, byte ^ 0x20}:
                stream.seek(place)
                stream.write(bytes([flipped]))
                if not list(native.damage(checkpoint)):
                    missed.append((place, byte, flipped))
            stream.seek(place)
            stream.write(bytes([byte]))
    assert missed == []
    assert list(native.damage(checkpoint)) == []


def test_json_that_means_the_same_is_damage_too(checkpoint: Path) -> None:
    file = checkpoint / "manifest.json"
    text = file.read_text()
    assert "1e-07" in text
    file.write_text(text.replace("1e-07", "1E-07"))
    assert list(native.damage(checkpoint)) == [f"{file}: damaged, it does not match its own digest."]


@pytest.mark.parametrize("name", ["model.json", "state.safetensors"])
def test_missing_file(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    assert next(native.damage(checkpoint)) == f"{checkpoint / name}: missing."


def test_no_manifest_no_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()
    assert not native.holds(checkpoint)
    said = f"{checkpoint}: no manifest.json, so this is not a whole checkpoint."
    assert list(native.damage(checkpoint)) == [said]
    with pytest.raises(SourceError) as raised:
        native.read(checkpoint)
    assert str(raised.value) == said
    assert list(native.damage(checkpoint / "absent"))


def test_short_files(checkpoint: Path) -> None:
    for name in ("manifest.json", "model.json", "state.safetensors"):
        file = checkpoint / name
        whole = file.read_bytes()
        for size in {0, 7, len(whole) // 2, len(whole) - 1}:
            os.truncate(file, size)
            assert list(native.damage(checkpoint)), (name, size)
            file.write_bytes(whole)
    file = checkpoint / "state.safetensors"
    saved = file.stat().st_size
    os.truncate(file, saved - 4)
    assert list(native.damage(checkpoint)) == [
        f"{file}: {saved} bytes saved -> {saved - 4} found.",
        f"{file}: optimizer/learning_rate is cut off, 1 elements saved -> 0 found.",
    ]


def test_a_longer_file(checkpoint: Path) -> None:
    with (checkpoint / "state.safetensors").open("ab") as stream:
        stream.write(b"\0")
    assert len(list(native.damage(checkpoint))) == 1


def test_arrays_are_checked_as_they_are_read(checkpoint: Path) -> None:
    state = native.read(checkpoint)
    file = checkpoint / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert state.arrays["model/dense/bias"].tolist() == [0, 0]
    with pytest.raises(SourceError) as raised:
        state.arrays["optimizer/learning_rate"]
    assert str(raised.value) == f"{file}: optimizer/learning_rate is damaged, its digest does not match."
    file.unlink()
    with pytest.raises(
        SourceError, match=r"model/dense/bias cannot be read \(No such file or directory\)\.$"
    ):
        state.arrays["model/dense/bias"]


def test_the_models_config_is_checked(checkpoint: Path) -> None:
    (checkpoint / "model.json").write_text("{}")
    with pytest.raises(SourceError, match=r"model\.json: damaged, its digest does not match\.$"):
        native.read(checkpoint)
    (checkpoint / "model.json").unlink()
    with pytest.raises(SourceError, match=r"model\.json: cannot be read \(No such file or directory\)\.$"):
        native.read(checkpoint)


def test_a_newer_schema_is_refused_by_name(checkpoint: Path) -> None:
    edited(checkpoint, lambda manifest: manifest.update(schema=2))
    with pytest.raises(SourceError) as raised:
        native.read(checkpoint)
    assert str(raised.value) == (
        f"{checkpoint}: written with checkpoint schema 2, this version reads up to 1. Install a newer keras-resume."
    )


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"digest": "x"}', '{"digest": 1, "schema": "x"}', "\ufeff{"]
)
def test_a_manifest_that_is_none(checkpoint: Path, text: str) -> None:
    (checkpoint / "manifest.json").write_text(text)
    with pytest.raises(SourceError, match=r"manifest\.json: damaged, it cannot be parsed \("):
        native.read(checkpoint)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": ["x"]}, "invalid literal for int() with base 10: 'x'"),
        ({"shape": None}, "'NoneType' object is not iterable"),
        ({"dtype": "object"}, "model/dense/kernel: object[3, 2] at 528"),
        ({"shape": [-1]}, "model/dense/kernel: float32[-1] at 528"),
        ({"offset": -8}, "model/dense/kernel: float32[3, 2] at -8"),
        ({"file": "../other/state.safetensors"}, "../other/state.safetensors is outside this checkpoint"),
        ({"file": "/dev/zero"}, "model/dense/kernel: /dev/zero is outside this checkpoint"),
    ],
)
def test_a_manifest_with_another_writers_mistakes(
    checkpoint: Path, change: dict[str, Any], said: str
) -> None:
    """Even where its digest holds, no type and no path out of a file is followed."""
    edited(checkpoint, lambda manifest: manifest["arrays"]["model/dense/kernel"].update(change))
    with pytest.raises(SourceError) as raised:
        native.read(checkpoint)
    assert "manifest.json: the list of arrays is malformed (" in str(raised.value)
    assert said in str(raised.value)
    assert said in list(native.damage(checkpoint))[-1]


def test_memory_that_is_given_is_filled(checkpoint: Path, make_state: Callable[..., TrainState]) -> None:
    arrays, saved = native.read(checkpoint).arrays, make_state(7).arrays
    renamed = arrays.renamed({"other": "model/dense/kernel"})
    assert (arrays.fills, renamed.fills) == (True, True)
    assert (saved.fills, saved.renamed({}).fills) == (False, False)
    memory = np.empty(24, np.uint8)
    renamed.fill("other", memory)
    assert memory.tobytes() == saved["model/dense/kernel"].tobytes()
    assert list(renamed) == ["other"]


def test_memory_is_filled_with_what_is_there_or_not_at_all(checkpoint: Path) -> None:
    arrays, file = native.read(checkpoint).arrays, checkpoint / "state.safetensors"
    memory = np.empty(4, np.uint8)
    arrays.fill("optimizer/learning_rate", memory)
    assert memory.tobytes() == arrays["optimizer/learning_rate"].tobytes()
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(SourceError, match="optimizer/learning_rate is cut off, 1 elements saved -> 0 found"):
        arrays.fill("optimizer/learning_rate", memory)
    file.unlink()
    with pytest.raises(SourceError, match=r"optimizer/learning_rate cannot be read \(No such file"):
        arrays.fill("optimizer/learning_rate", memory)
