"""Which checkpoint a path means, which object in it is the model, and where the training stood."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import tfcheckpoint

FIXTURES = Path(__file__).parents[1] / "fixtures"
CKPT = FIXTURES / "o18_e215_mlp_adam" / "weights_tf" / "ckpt"
CHIEF = FIXTURES / "o34_e215_mlp_adam_backup" / "backup" / "chief"
X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)


# ---- which checkpoint ----


@pytest.mark.parametrize("path", [CKPT, CKPT.with_name("ckpt.index"), CKPT.parent, CHIEF, CHIEF / "ckpt-7"])
def test_a_checkpoint_has_three_names(path: Path) -> None:
    assert tfcheckpoint.holds(path)
    assert tfcheckpoint.read(path).iterations == 7
    assert tfcheckpoint.read(path).path == path


@pytest.mark.parametrize(
    "path", [CKPT.with_name("ckpt-8"), CKPT.with_name("ckpt.data-00000-of-00001"), FIXTURES]
)
def test_other_paths_are_none(path: Path) -> None:
    assert not tfcheckpoint.holds(path)


def test_an_index_is_told_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "x.index").write_text("nothing of the kind, though it is long enough to be read as a footer")
    assert not tfcheckpoint.holds(tmp_path / "x")
    assert not tfcheckpoint.holds(tmp_path / "x.index")


@pytest.mark.parametrize(
    "line",
    [
        "ckpt-7",
        "/home/somebody/run/ckpt-7",
        "gs://bucket/run/ckpt-7",
        r"C:\\run\\ckpt-7",
        r"ckpt\0557",
        "../../run/ckpt-7",
    ],
)
def test_the_newest_is_found_by_its_name_wherever_it_was_written(line: str, tmp_path: Path) -> None:
    shutil.copytree(CHIEF, tmp_path / "chief")
    text = f'model_checkpoint_path: "{line}"\nall_model_checkpoint_paths: "ckpt-3"\nlast_preserved_timestamp: 1.5e9\n'
    (tmp_path / "chief" / "checkpoint").write_text(text)
    assert tfcheckpoint.newest(tmp_path / "chief") == tmp_path / "chief" / "ckpt-7"
    assert tfcheckpoint.read(tmp_path / "chief").iterations == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model_checkpoint_path is there 0 times"),
        ('model_checkpoint_path: "a"\nmodel_checkpoint_path: "b"\n', "is there 2 times"),
        ("model_checkpoint_path: 7\n", "is no text"),
        ('model_checkpoint_path: "ckpt-7\n', "is no line of such a list"),
        ("PK\x03\x04", "is no line of such a list"),
        ('model_checkpoint_path: ".."\n', "is no checkpoint's name"),
        ('model_checkpoint_path: ""\n', "is no checkpoint's name"),
        ('model_checkpoint_path: "a\\000b"\n', "is no checkpoint's name"),
        ('model_checkpoint_path: "\\377"\n', "cannot be read"),
        ('model_checkpoint_path: "ckpt-9"\n', r"ckpt-9\.index: no such file"),
    ],
)
def test_a_list_that_names_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    shutil.copytree(CHIEF, tmp_path / "chief")
    (tmp_path / "chief" / "checkpoint").write_text(text)
    with pytest.raises(SourceError, match=message):
        tfcheckpoint.read(tmp_path / "chief")


def test_a_directory_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file called checkpoint"):
        tfcheckpoint.read(tmp_path)


# ---- what is in it ----


def model(keras: Any, **options: Any) -> Any:
    found = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, name="out")])
    found.compile(
        optimizer=keras.optimizers.SGD(momentum=0.9), loss="mean_squared_error", run_eagerly=True, **options
    )
    return found


@pytest.fixture(params=["tf_keras", "keras"])
def trained(request: pytest.FixtureRequest) -> Any:
    found = model(pytest.importorskip(request.param))
    found.train_on_batch(X, Y)
    return found


def weights(state: Any) -> set[str]:
    return {"model/out/kernel", "model/out/bias"} & set(state.weights)


def place(trained: Any) -> str:
    return (
        "_functional/_operations/1/_kernel"
        if "tf_" not in type(trained).__module__
        else "layer_with_weights-0/kernel"
    )


@pytest.mark.parametrize(
    "attributes", [{"model": "m", "optimizer": "o"}, {"model": "m"}, {"net": "m", "opt": "o"}]
)
def test_a_model_is_found_under_any_name(attributes: dict[str, str], trained: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    held = {name: trained if which == "m" else trained.optimizer for name, which in attributes.items()}
    tf.train.Checkpoint(**held, step=tf.Variable(5)).save(str(tmp_path / "ck"))
    state = tfcheckpoint.read(tmp_path)
    assert (len(weights(state)), len(state.slots), state.iterations) == (2, 2, 1)
    assert state.places["model/out/kernel"] == place(trained)


def test_the_root_may_be_the_model(trained: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(trained).write(str(tmp_path / "ck"))
    state = tfcheckpoint.read(tmp_path / "ck")
    assert (len(weights(state)), len(state.slots)) == (2, 2)
    assert state.places["model/out/kernel"] == place(trained)
    assert state.notes[0] == tfcheckpoint.NO_MODEL


def test_weights_of_keras_2_may_hold_no_optimizer(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    net = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    net.save_weights(tmp_path / "w", save_format="tf")
    state = tfcheckpoint.read(tmp_path)
    assert (state.iterations, state.optimizer, len(state.weights)) == (None, None, 2)
    assert "this file was saved without its optimizer" in state.notes
    assert state.flavour == "tf_keras"


def test_a_model_inside_a_subclassed_one_is_not_the_model(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = keras.Sequential([keras.layers.Dense(3, input_shape=(3,))])
            self.head = keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.head(self.inner(x))

    net = Net()
    net.compile(optimizer="adam", loss="mean_squared_error", run_eagerly=True)
    net.train_on_batch(X, Y)
    net.save_weights(tmp_path / "w", save_format="tf")
    state = tfcheckpoint.read(tmp_path)
    assert len(state.weights) == 4
    assert set(state.places.values()) >= {"inner/layer_with_weights-0/kernel", "head/bias"}


def test_a_checkpoint_by_names_alone_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "ck"),
        tensor_names=["dense/kernel"],
        shape_and_slices=[""],
        tensors=[tf.ones(2)],
    )
    with pytest.raises(SourceError, match="holds variables by name only"):
        tfcheckpoint.read(tmp_path / "ck")


def test_a_manager_keeps_several_and_names_the_newest(trained: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=trained), str(tmp_path / "all"), max_to_keep=2
    )
    for _ in range(3):
        manager.save()
        trained.train_on_batch(X, Y)
    moved = (tmp_path / "all").rename(tmp_path / "moved")
    assert tfcheckpoint.newest(moved) == moved / "ckpt-3"
    assert tfcheckpoint.read(moved).iterations == 3
    assert tfcheckpoint.read(moved / "ckpt-2").iterations == 2


# ---- where the training stood ----


@pytest.mark.parametrize(
    ("epoch", "batch", "iterations", "position"),
    [
        (-1, -1, 7, (None, None)),  # not inside fit()
        (6, -1, 7, (7, 0)),  # whole epochs
        (0, 2, 3, (0, 3)),  # inside the first
        (2, 1, 10, (2, 2)),  # 4 batches an epoch: two of the third one
        (2, 3, 12, (3, 0)),  # its last batch
    ],
)
def test_the_position_of_backup_and_restore(
    epoch: int, batch: int, iterations: int, position: tuple[Any, Any], tmp_path: Path
) -> None:
    import tensorflow as tf

    net = model(pytest.importorskip("tf_keras"))
    net.optimizer.build(net.trainable_variables)
    net.optimizer.iterations.assign(iterations)
    held = {"ckpt_saved_epoch": epoch, "ckpt_saved_batch": batch}
    saved = {name: tf.Variable(value, dtype=tf.int64) for name, value in held.items()}
    tf.train.Checkpoint(model=net, train_counter=net._train_counter, **saved).save(str(tmp_path / "ck"))
    state = tfcheckpoint.read(tmp_path)
    assert (state.epoch, state.batch) == position
    assert not any("stored beside" in note for note in state.notes)


@pytest.mark.slow
def test_the_position_of_a_real_backup(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    seen: list[tuple[Any, Any, Any]] = []

    class Look(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if (tmp_path / "b" / "chief" / "checkpoint").is_file():
                state = tfcheckpoint.read(tmp_path / "b" / "chief")
                seen.append((state.epoch, state.batch, state.iterations))

    backup = keras.callbacks.BackupAndRestore(tmp_path / "b", save_freq=3)
    model(keras).fit(X, Y, batch_size=2, epochs=3, verbose=0, callbacks=[backup, Look()])
    assert seen[-10:][::3] == [(0, 3, 3), (1, 2, 6), (2, 1, 9), (3, 0, 12)]
