"""What was written is read back: a target that differs from what is live is never given its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from small import X, Y, classifier, save

import resume
from resume.engine import target
from resume.errors import ContinuityError, UsageError
from resume.formats import writing


@pytest.fixture
def source(tmp_path: Path) -> Path:
    model = classifier()
    model.fit(X, Y, batch_size=8, verbose=0)
    return save(model, tmp_path / "a.keras")


SLOT = "dense_kernel_velocity"


def damaging(change: Any) -> Any:
    """The writer of .h5 files, and afterwards something else that changes what it wrote, as a failing disk would."""
    real = writing.write_h5

    def write(path: Path, whole: writing.WholeModel) -> None:
        real(path, whole)
        with h5py.File(path, "r+") as file:
            change(file["optimizer_weights"])

    return write


def _flip(group: h5py.Group) -> None:
    name = next(name for name in group.attrs["weight_names"] if name.endswith(SLOT))
    group[name][...] = np.nextafter(group[name][...], 1)


def _drop(group: h5py.Group) -> None:
    group.attrs["weight_names"] = [n for n in group.attrs["weight_names"] if not n.endswith(SLOT)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flip, "optimizer/velocity/dense/kernel: reads back with other values"),
        (
            _drop,
            r"b\.h5: cannot be read back, so it was not kept: optimizer/velocity/dense/kernel: this slot is missing",
        ),
    ],
)
def test_a_difference_is_found_and_the_earlier_target_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    kept = tmp_path / "b.h5"
    resume.convert(source, kept)
    before = kept.read_bytes()
    monkeypatch.setattr(writing, "write_h5", damaging(change))
    with pytest.raises(ContinuityError, match=message):
        resume.convert(source, kept, overwrite=True)
    assert kept.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras", "b.h5"]


def test_other_settings_are_found(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = target._training_config

    def other(model: keras.Model) -> dict[str, Any]:
        config = real(model)
        config["optimizer_config"]["config"]["beta_1"] = 0.5
        return config

    monkeypatch.setattr(target, "_training_config", other)
    with pytest.raises(ContinuityError, match=r"the optimizer's beta_1 reads back different.*0\.9 -> 0\.5"):
        resume.convert(source, tmp_path / "b.h5")
    assert not (tmp_path / "b.h5").exists()


def test_what_cannot_be_loaded_again_is_not_kept(tmp_path: Path) -> None:
    """Keras writes such .h5 files, and reads none of them; neither would anybody have noticed."""
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(3)(inputs)
    for name, outputs, message in (
        ("sliced", hidden[:, 0], r"the graph has operations \(GetItem\).*write a \.keras file"),
        (
            "doubled",
            hidden * 2.0,
            r"could not be loaded again, so it was not kept.*A \.keras file may hold it",
        ),
    ):
        model = keras.Model(inputs, outputs)
        model.compile("sgd", keras.losses.MeanSquaredError())
        path = save(model, tmp_path / f"{name}.keras")
        with pytest.raises(UsageError, match=message):
            resume.convert(path, tmp_path / f"{name}.h5")
        assert not (tmp_path / f"{name}.h5").exists()
        resume.convert(path, tmp_path / f"{name}_again.keras")


@pytest.mark.parametrize("where", ["a.keras/b.keras", "/proc/b.keras"])
def test_where_nothing_can_be_written(source: Path, tmp_path: Path, where: str) -> None:
    with pytest.raises(UsageError, match=r"b\.keras: cannot be written: "):
        resume.convert(source, tmp_path / where)


def test_adafactor_is_refused_by_h5(tmp_path: Path) -> None:
    model = classifier(optimizer="adafactor")
    model.fit(X, Y, verbose=0)
    with pytest.raises(UsageError, match=r"two variables are called this.*Adafactor.*write a \.keras file"):
        resume.convert(save(model, tmp_path / "a.keras"), tmp_path / "b.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


def test_the_h5_is_one_that_keras_reads(source: Path, tmp_path: Path) -> None:
    resume.convert(source, tmp_path / "b.h5")
    ours, theirs = (keras.saving.load_model(path, compile=False) for path in (tmp_path / "b.h5", source))
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        if "seed" not in a.path:
            np.testing.assert_array_equal(np.array(a), np.array(b))
