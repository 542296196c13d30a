"""From configuration and source to live objects: who says what is built, and what is refused."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from small import X, save

import resume
from resume.engine import build
from resume.errors import UsageError


@keras.saving.register_keras_serializable("here")
class Registered(keras.layers.Layer):
    def call(self, x):
        return x


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x


def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


def with_layer(layer: keras.layers.Layer, loss: object = "mse") -> keras.Model:
    model = keras.Sequential([keras.Input((6,)), layer, keras.layers.Dense(1)])
    model.compile("adam", loss)
    model.fit(X, X[:, :1], verbose=0)
    return model


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_missing_custom_objects_are_listed_all_at_once(tmp_path: Path, suffix: str) -> None:
    file = save(with_layer(Unregistered(), own_loss), tmp_path / f"a.{suffix}")
    with pytest.raises(UsageError, match=r"needs custom objects") as refused:
        resume.load(file)
    assert "+custom_objects.Unregistered=YOUR.MODULE.Unregistered" in str(refused.value)
    if suffix == "keras":  # an .h5 has only the loss's name, as if it were Keras's own
        assert "+custom_objects.own_loss=YOUR.MODULE.own_loss" in str(refused.value)
    objects = {"Unregistered": Unregistered, "own_loss": own_loss}
    assert resume.load(file, custom_objects=objects)[1].verdict == "exact"


def test_registered_objects_need_no_word(tmp_path: Path) -> None:
    assert resume.load(save(with_layer(Registered()), tmp_path / "a.keras"))[1].verdict == "exact"


@pytest.mark.parametrize("loss", ["mse", "mean_squared_error", keras.losses.MeanSquaredError(), ["mse"]])
def test_losses_of_h5_files_by_any_name(tmp_path: Path, loss: object) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("adam", loss, metrics=["mae"])
    model.fit(X, X[:, :1], verbose=0)
    loaded, _ = resume.load(save(model, tmp_path / "a.h5"))
    assert loaded.evaluate(X, X[:, :1], verbose=0) == model.evaluate(X, X[:, :1], verbose=0)


def test_import_paths_that_lead_nowhere_are_listed() -> None:
    paths = {"A": "no.such.module", "B": "keras.layers.Nope", "C": "keras.layers.Dense", "D": None}
    with pytest.raises(UsageError, match=r"A: no\.such\.module.*\n.*B: keras\.layers\.Nope"):
        build.custom_objects(paths)
    assert build.custom_objects({"C": "keras.layers:Dense"}) == {"C": keras.layers.Dense}


def test_the_users_own_error_is_shown() -> None:
    with pytest.raises(UsageError, match=r"model: small\.classifier: TypeError: .*unknown_argument"):
        build.node({"_target_": "small.classifier", "unknown_argument": 1, "loss": None}, "model")


def test_two_boards_do_not_write_each_others_points(tmp_path: Path) -> None:
    board = {"_target_": "keras.callbacks.TensorBoard", "log_dir": str(tmp_path)}
    assert list(build.callbacks({"tensorboard": board, "none": None})) == ["tensorboard"]
    assert list(build.callbacks({"tensorboard": board, "mine": board})) == ["mine"]
