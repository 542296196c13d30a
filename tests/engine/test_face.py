"""resume.load and resume.fit, as a notebook would use them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import BreakAt, BrokenError, X, Y, classifier, save
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import resume
from resume import lineage, rundir
from resume.engine import live


def arrays_of(run: Path) -> dict[str, Any]:
    return dict(resume.read(run).specs)


def timelines(run: Path) -> list[list[str]]:
    """The rows of each table of attempts, as TensorBoard reads them."""
    events = EventAccumulator(str(run / "logs/resume"), size_guidance={"tensors": 0})
    events.Reload()
    texts = [tf.make_ndarray(e.tensor_proto).item().decode() for e in events.Tensors("timeline")]
    return [text.splitlines()[2:] for text in texts]


def broken_and_repeated(run: Path, at: list[int], fit: Any) -> keras.callbacks.History:
    for step in at:
        with pytest.raises(BrokenError):
            fit(run, [BreakAt(step)])
    return fit(run, [])


def test_a_broken_fit_repeated_is_the_unbroken_one(tmp_path: Path) -> None:
    def fit(run: Path, more: list[Any]) -> keras.callbacks.History:
        callbacks = [
            keras.callbacks.EarlyStopping(patience=2),
            keras.callbacks.ReduceLROnPlateau(patience=1),
            *more,
        ]
        return resume.fit(
            classifier(), X, Y, run_dir=run, epochs=4, batch_size=8, validation_split=0.25, callbacks=callbacks,
            verbose=0, every_steps=2,
        )  # fmt: skip

    whole = fit(tmp_path / "whole", [])
    again = broken_and_repeated(tmp_path / "broken", [3, 5, 4], fit)
    assert again.history == whole.history
    assert arrays_of(tmp_path / "broken") == arrays_of(tmp_path / "whole")
    assert again.proof.verdict == "exact"
    assert whole.proof is None
    assert lineage.breaks(tmp_path / "broken") == []
    tables = timelines(tmp_path / "broken")
    assert [len(rows) for rows in tables] == [1, 2, 3, 4, 4]  # each attempt's beginning, and the run's end
    assert [row.split(" | ")[2:6] for row in tables[-1]] == [
        ["0", "2", "0", "failed: BrokenError:"],
        ["2", "6", "0", "failed: BrokenError:"],
        ["6", "9", "1", "failed: BrokenError:"],
        ["8", "20", "0", "completed"],
    ]


def test_weights_after_a_resumed_fit_are_the_final_ones(tmp_path: Path) -> None:
    def fit(run: Path, more: list[Any]) -> keras.Model:
        model = classifier(optimizer=keras.optimizers.Adam(0.01, use_ema=True))
        resume.fit(model, X, Y, run_dir=run, epochs=3, verbose=0, every_steps=1, callbacks=more)
        return model

    whole, again = fit(tmp_path / "a", []), broken_and_repeated(tmp_path / "b", [2], fit)
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    exported = keras.models.load_model(tmp_path / "b" / "model.keras")
    np.testing.assert_array_equal(exported.get_weights()[0], again.get_weights()[0])
    averaged = arrays_of(tmp_path / "a")["optimizer/average/dense/kernel"]
    assert averaged != arrays_of(tmp_path / "a")["model/dense/kernel"]


def test_more_epochs_go_on_as_one_long_run(tmp_path: Path) -> None:
    def reshuffling() -> tf.data.Dataset:
        keras.utils.set_random_seed(
            1
        )  # tf.data mixes the process's seed into a dataset's own when it is made
        return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(48, seed=3).batch(8)

    data = reshuffling()
    for epochs in (1, 1, 3):
        resume.fit(classifier(), data, run_dir=tmp_path / "steps", epochs=epochs, verbose=0)
    history = resume.fit(classifier(), reshuffling(), run_dir=tmp_path / "once", epochs=3, verbose=0)
    assert arrays_of(tmp_path / "steps") == arrays_of(tmp_path / "once")
    assert len(history.history["loss"]) == 3


def test_models_built_before_do_not_matter(tmp_path: Path) -> None:
    def fit(run: Path, more: list[Any]) -> None:
        resume.fit(classifier(), X, Y, run_dir=run, epochs=2, verbose=0, every_steps=1, callbacks=more)

    with pytest.raises(BrokenError):
        fit(tmp_path, [BreakAt(2)])
    classifier(), classifier()  # the next model's layers are dense_9 and so on
    fit(tmp_path, [])
    keras.utils.clear_session()
    fit(tmp_path / "whole", [])
    assert arrays_of(tmp_path) == arrays_of(tmp_path / "whole")


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_file_and_the_run_it_begins(tmp_path: Path, suffix: str) -> None:
    classifier()
    model = classifier(dropout=0.0, optimizer=keras.optimizers.AdamW(0.01))
    model.fit(X, Y, batch_size=16, verbose=0)
    file = save(model, tmp_path / f"run.{suffix}")
    loaded, proof = resume.load(file)
    assert (proof.verdict, proof.iterations_saved, proof.iterations_restored) == ("exact", 3, 3)
    saved = resume.read(file)
    for name in (
        "optimizer/momentum/dense/kernel",
        "optimizer/velocity/dense_1/bias",
        "model/dense_2/kernel",
    ):
        np.testing.assert_array_equal(saved.arrays[name], live.value(live.of(loaded).variables[name]))
    resume.fit(loaded, X, Y, run_dir=tmp_path / "run", epochs=1, batch_size=16, verbose=0)
    assert resume.read(tmp_path / "run").iterations == 6


def test_equal_shapes_are_not_mixed_up(tmp_path: Path) -> None:
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Dense(4), layers.Dense(4, trainable=False), layers.Dense(4)], name="inner"
    )
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(4)(inner(layers.Dense(4)(inner(layers.Dense(4)(inputs))))))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(32, 4)), rng.normal(size=(32, 4)), batch_size=8, verbose=0)
    truth = {
        n: live.value(v) for n, v in live.of(model).variables.items() if n.startswith(("model", "optimizer"))
    }
    for name in ("a.keras", "a.h5"):
        loaded, proof = resume.load(save(model, tmp_path / name))
        assert proof.verdict == "exact"
        found = live.of(loaded).variables
        assert {n for n, v in truth.items() if not np.array_equal(v, live.value(found[n]))} == set()


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    model = classifier()
    model.fit(X, Y, verbose=0)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(7), keras.layers.Dense(3)])
    other.compile("adam", "mse")
    with pytest.raises(
        resume.ContinuityError, match=r"model/dense/kernel: shape differs: \[6, 5\] -> \[6, 7\]"
    ):
        resume.load(save(model, tmp_path / "a.keras"), model=other)


def test_a_fresh_optimizer_is_accepted_by_name_only(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    file = save(model, tmp_path / "bare.keras")
    target = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    target.compile("adam", "mse")
    with pytest.raises(resume.ContinuityError, match=r"checkpoint\.accept=\[optimizer\]"):
        resume.load(file, model=target)
    _, proof = resume.load(file, model=target, accept=["optimizer"])
    assert proof.verdict == "partial"
    assert proof.iterations_restored == 0


def test_what_a_file_never_held_is_said(tmp_path: Path) -> None:
    model = classifier(loss=keras.losses.SparseCategoricalCrossentropy())
    model.fit(X, Y, verbose=0)
    _, proof = resume.load(save(model, tmp_path / "a.h5"))
    assert [str(f) for f in proof.findings] == [
        "loss/axis: not in the source, started fresh",
        "seeds/dropout/seed: not in the source, started fresh: None -> int64[2]",
    ]
    huber = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    huber.compile("sgd", keras.losses.Huber(0.5))
    huber.fit(X, X[:, :1], verbose=0)
    _, proof = resume.load(save(huber, tmp_path / "b.keras"))
    assert [f.name for f in proof.findings] == ["loss/delta"]


def test_a_changed_learning_rate_needs_a_word(tmp_path: Path) -> None:
    def fit(rate: float, epochs: int, **kwargs: Any) -> keras.Model:
        model = classifier(optimizer=keras.optimizers.Adam(rate))
        resume.fit(model, X, Y, run_dir=tmp_path, epochs=epochs, verbose=0, **kwargs)
        return model

    fit(0.001, 1)
    with pytest.raises(resume.DriftError, match=r"optimizer\.learning_rate: 0\.001 saved -> 0\.1 configured"):
        fit(0.1, 2)
    assert float(fit(0.1, 2, prefer="checkpoint").optimizer.learning_rate) == pytest.approx(0.001)
    assert float(fit(0.1, 3, prefer="config").optimizer.learning_rate) == pytest.approx(0.1)


def test_a_callbacks_arguments_are_todays(tmp_path: Path) -> None:
    stop = keras.callbacks.EarlyStopping(patience=5)
    resume.fit(
        classifier(), X, Y, run_dir=tmp_path, epochs=1, validation_split=0.2, callbacks=[stop], verbose=0
    )
    stop = keras.callbacks.EarlyStopping(patience=7)
    resume.fit(
        classifier(), X, Y, run_dir=tmp_path, epochs=2, validation_split=0.2, callbacks=[stop], verbose=0
    )
    assert stop.patience == 7
    assert stop.best is not None


class Late(keras.callbacks.Callback):
    """Makes what it keeps when there is something to keep."""

    found: Any = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.found is None:
            self.found = Counter()
        self.found.update(epochs=1)


def test_what_no_other_attempt_can_put_back_is_said_at_the_first_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(callback: Any, run: str) -> str:
        with pytest.raises(BrokenError):
            resume.fit(
                classifier(), X, Y, run_dir=tmp_path / run, epochs=2, batch_size=8, verbose=0, every_steps=1,
                callbacks=[callback, BreakAt(3)],
            )  # fmt: skip
        return capsys.readouterr().out

    assert (
        fit(Late(), "a").count("callback Late: found was created during the training. No other attempt can")
        == 1
    )
    with pytest.raises(
        resume.ContinuityError, match="callback Late: found was created during the training, and is"
    ):
        fit(Late(), "a")
    early = Late()
    early.found = Counter()
    assert "created during the training" not in fit(early, "b")


def test_damaged_checkpoints_are_passed_over_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume.fit(classifier(), X, Y, run_dir=tmp_path, epochs=2, verbose=0)
    newest = rundir.checkpoints(tmp_path)[-1].path / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    resume.fit(classifier(), X, Y, run_dir=tmp_path, epochs=3, verbose=0)
    out = capsys.readouterr().out
    assert "passed over: " in out
    assert "step 2," in out
    assert lineage.breaks(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"when_busy": "skipp"}, "when_busy: 'skipp' is none of wait, skip."),
        ({"on_failure": "sotp"}, "on_failure: 'sotp' is none of stop, warn."),
    ],
)
def test_words_that_mean_nothing(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(resume.UsageError) as raised:
        resume.fit(classifier(), X, Y, run_dir=tmp_path / "run", verbose=0, **given)
    assert str(raised.value) == said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [["a", "b"], np.array([1j])], ids=["text", "complex128"])
def test_a_variable_that_no_checkpoint_can_hold_is_refused_before_the_training(
    tmp_path: Path, value: Any
) -> None:
    class Named(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable(value, trainable=False)

        def call(self, x: Any) -> Any:
            return x

    model = keras.Sequential([keras.Input((6,)), Named(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(
        resume.UsageError, match=r"^model/named.*/table: a variable of dtype .*, which no checkpoint"
    ):
        resume.fit(model, X, Y, run_dir=tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


class PerClass(keras.metrics.Metric):
    """Gives a number for each class, as F1Score does."""

    def __init__(self) -> None:
        super().__init__(name="per_class")
        self.hits = self.add_weight(shape=(3,), initializer="zeros", name="hits")

    def update_state(self, y: Any, scores: Any, sample_weight: Any = None) -> None:
        self.hits.assign_add(tf.reduce_sum(tf.one_hot(tf.argmax(scores, axis=-1), 3), axis=0))

    def result(self) -> Any:
        return self.hits / tf.reduce_sum(self.hits)


def test_a_metric_of_several_numbers(tmp_path: Path) -> None:
    def fit(run: Path, more: list[Any]) -> keras.callbacks.History:
        model = classifier(metrics=[PerClass()])
        return resume.fit(
            model, X, Y, run_dir=run, epochs=3, batch_size=8, validation_split=0.25, callbacks=more, verbose=0,
            every_steps=2,
        )  # fmt: skip

    whole = fit(tmp_path / "whole", [])
    again = broken_and_repeated(tmp_path / "broken", [7, 3], fit)
    assert again.proof.verdict == "exact"
    assert np.shape(whole.history["per_class"]) == (3, 3)
    for key, values in whole.history.items():
        np.testing.assert_array_equal(np.array(again.history[key]), np.array(values), err_msg=key)


class Adds(keras.callbacks.Callback):
    """What people add to the logs: NumPy's numbers and arrays."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs["rate"] = np.float32(0.25)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs |= {"f1": np.float64(epoch), "a": np.arange(2), "seen": True}


def test_what_callbacks_add_to_the_logs(tmp_path: Path) -> None:
    def fit(run: Path, more: list[Any]) -> keras.callbacks.History:
        return resume.fit(
            classifier(), X, Y, run_dir=run, epochs=3, batch_size=8, callbacks=[Adds(), *more], verbose=0,
            every_steps=2, seed=np.int64(3),
        )  # fmt: skip

    again = broken_and_repeated(tmp_path / "a", [7, 3], fit)
    assert again.proof.verdict == "exact"
    assert again.history["f1"] == [0, 1, 2]
    assert np.shape(again.history["a"]) == (3, 2)


def test_data_that_ends_early_is_an_error(tmp_path: Path) -> None:
    def data(epoch: int) -> tf.data.Dataset:
        return (
            tf.data.Dataset.from_tensor_slices((X, Y))
            .batch(8)
            .apply(tf.data.experimental.assert_cardinality(6))
        )

    def short(epoch: int) -> tf.data.Dataset:
        return data(epoch).filter(lambda x, y: True).take(4)

    with (
        pytest.warns(UserWarning, match="ran out of data"),
        pytest.raises(resume.UsageError, match="ended after 4 of 6 batches of epoch 1"),
    ):
        resume.fit(classifier(), short, run_dir=tmp_path, steps_per_epoch=6, epochs=2, verbose=0)


class Freezes(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.layers[0].trainable = False


def test_settings_that_a_callback_changed_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(run: Path, more: list[Any]) -> None:
        callbacks = [Freezes(), *more]
        resume.fit(
            classifier(),
            X,
            Y,
            run_dir=run,
            epochs=3,
            batch_size=8,
            verbose=0,
            every_steps=1,
            callbacks=callbacks,
        )

    line = "changed during the training, and not put back: layers.1 Dense.trainable: False saved -> True"
    broken_and_repeated(tmp_path / "before", [3], fit)
    assert line not in capsys.readouterr().out
    broken_and_repeated(tmp_path / "after", [9], fit)
    assert line in capsys.readouterr().out


class WithoutCall(keras.Model):
    """Keras cannot build it from a batch: its metrics are made in its first step."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.dense.build((None, 6))
        self.built = True

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            predicted = self.dense(x)
            loss = self.compute_loss(x, y, predicted)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return dict(self.compute_metrics(x, y, predicted))


def test_a_model_without_call_goes_on_within_an_epoch(tmp_path: Path) -> None:
    def fit(run: Path, more: list[Any]) -> None:
        keras.utils.set_random_seed(2)
        model = WithoutCall()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        resume.fit(model, X, Y, run_dir=run, epochs=2, batch_size=8, verbose=0, every_steps=1, callbacks=more)

    fit(tmp_path / "whole", [])
    broken_and_repeated(tmp_path / "broken", [3, 5], fit)
    assert arrays_of(tmp_path / "broken") == arrays_of(tmp_path / "whole")
