from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
import tf_keras

from resume.engine import flavour
from resume.errors import UsageError
from resume.state import Arrays, TrainState


def test_the_flavour_of_live_objects() -> None:
    assert flavour.of(keras.layers.Dense(1)) == "keras"
    assert flavour.of(tf_keras.layers.Dense(1)) == "tf_keras"
    assert flavour.of(tf_keras.optimizers.legacy.Adam()) == "tf_keras"
    assert flavour.of(tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam())) == "tf_keras"

    class Mine(tf_keras.Model):  # type: ignore[misc]
        pass

    assert flavour.of(Mine()) == "tf_keras"


IMPORTED = """
import sys
from resume.engine import flavour
alone = flavour.kinds("callbacks.CSVLogger")
during = []
class Look:  # as another thread would, in the middle of the import
    def find_spec(self, name, *rest):
        if name == "tf_keras.src.layers":
            during.append(flavour.kinds("callbacks.CSVLogger"))
sys.meta_path.insert(0, Look())
import tf_keras, keras
assert alone == (keras.callbacks.CSVLogger,) == during[0], (alone, during)
assert flavour.kinds("callbacks.CSVLogger") == (keras.callbacks.CSVLogger, tf_keras.callbacks.CSVLogger)
"""


def test_the_kinds_of_tf_keras_are_known_once_it_is_imported(
    python: Callable[..., subprocess.Popen[str]],
) -> None:
    process = python(IMPORTED, Path(__file__).parent)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, out + (error or "")


def test_a_source_continues_where_it_was_born_unless_told_otherwise() -> None:
    def born(where: str | None) -> TrainState:
        return TrainState("h5", Path("a.h5"), Arrays.of({}), flavour=where)

    assert flavour.chosen("auto", born("tf_keras")) == "tf_keras"
    assert flavour.chosen("auto", born("keras")) == "keras"
    assert flavour.chosen("auto", born(None)) == flavour.chosen("auto", None) == "keras"
    assert flavour.chosen("tf_keras", born(None)) == flavour.chosen("tf_keras", None) == "tf_keras"
    with pytest.raises(
        UsageError, match=r"^a\.h5: of Keras 2, and flavour=keras.*\n.*resume convert a\.h5 NAME"
    ):
        flavour.chosen("keras", born("tf_keras"))
    with pytest.raises(UsageError, match=r"^a\.h5: of Keras 3, and there is no way back to Keras 2"):
        flavour.chosen("tf_keras", born("keras"))


def test_kinds_are_those_of_both_generations() -> None:
    assert flavour.kinds("callbacks.CSVLogger") == (keras.callbacks.CSVLogger, tf_keras.callbacks.CSVLogger)
    assert flavour.kinds("optimizers.legacy.Adam")[-1] is tf_keras.optimizers.legacy.Adam
    assert flavour.kinds("callbacks.NoSuchThing") == ()


def test_keras_in_a_configuration_is_the_keras_of_the_run() -> None:
    node = {"_target_": "keras.optimizers.SGD", "learning_rate": {"_target_": "keras.optimizers.schedules.X"}}
    assert flavour.spelled(node, "keras") == node
    assert flavour.spelled([node, {"_target_": "my.keras.Thing"}], "tf_keras") == [
        {
            "_target_": "tf_keras.optimizers.SGD",
            "learning_rate": {"_target_": "tf_keras.optimizers.schedules.X"},
        },
        {"_target_": "my.keras.Thing"},
    ]


def test_random_layers_of_tf_keras_draw_from_generators_with_a_state() -> None:
    library = flavour.library("tf_keras")
    assert library.backend.experimental.is_tf_random_generator_enabled()


def test_a_missing_tf_keras_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tf_keras", None)
    with pytest.raises(UsageError, match=r"continues in tf_keras.*pip install tf_keras"):
        flavour.library("tf_keras")
