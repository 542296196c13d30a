"""A snapshot is references, and they stay what they were: however a training, or a user's code, updates variables."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from small import X, Y, classifier, epochs

from resume import plain
from resume.engine import capture, live, rng, snapshot
from resume.engine.snapshot import References, Snapshots
from resume.formats import native
from resume.rundir import Directory, Retention
from resume.state import TrainState
from resume.state import digest as state_digest

Python = Callable[..., subprocess.Popen[str]]
Copies = dict[str, np.ndarray[Any, Any]]

TOKENS = np.random.default_rng(2).integers(0, 40, (48, 5))


def copied(model: Any) -> Copies:
    return {name: live.value(v) for name, v in live.of(model).variables.items()}


def taken(of: Any, **progress: Any) -> TrainState:
    """Of a model, or by what has taken snapshots of it before."""
    snapshots = of if isinstance(of, Snapshots) else Snapshots(of)
    return snapshots.take(epoch=0, batch=0, progress=progress)


def equal(state: TrainState, copies: Copies) -> None:
    assert set(state.arrays) == set(copies)
    for name, copy in copies.items():
        found = state.arrays[name]
        assert (found.dtype, found.shape, found.tobytes()) == (copy.dtype, copy.shape, copy.tobytes()), name


def moved(model: Any, train: Callable[[], object]) -> set[str]:
    """Three snapshots, each held while the training goes on; names of what moved after every one of them."""
    train()  # Keras has built and compiled all by now
    held, moving = [], set(copied(model))
    for _ in range(3):
        held.append((taken(model), copied(model)))
        train()
        now = copied(model)
        moving &= {n for n, copy in held[-1][1].items() if copy.tobytes() != now[n].tobytes()}
    for state, copies in held:
        equal(state, copies)
    return moving


# ---- every way of updating ----


def embedding(K: Any, optimizer: Any, **arguments: Any) -> Any:
    """Its gradients are sparse: rows are gathered, and scattered."""
    model = K.Sequential([K.Input((5,)), K.layers.Embedding(40, 6), K.layers.Flatten(), K.layers.Dense(3)])
    model.compile(optimizer, K.losses.SparseCategoricalCrossentropy(from_logits=True), **arguments)
    return model


def half(K: Any) -> Any:
    """Variables of another width than NumPy has."""
    model = K.Sequential([K.Input((6,)), K.layers.Dense(8, dtype="bfloat16"), K.layers.Dense(3)])
    model.compile(
        K.optimizers.SGD(0.5, momentum=0.9), K.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


@dataclass(frozen=True)
class Way:
    build: Callable[[], Any]
    data: Any = None
    moving: tuple[str, ...] = ("model/dense/kernel", "optimizer/iteration")


ADAM = (
    "model/dense/kernel",
    "optimizer/momentum/dense/kernel",
    "optimizer/velocity/dense/kernel",
    "optimizer/iteration",
)
TABLE = ("model/embedding/embeddings", "model/dense/kernel")
WAYS = {
    "adam": Way(classifier, moving=(*ADAM, "model/batch_normalization/moving_mean", "seeds/dropout/seed")),
    "jit": Way(lambda: classifier(jit_compile=True), moving=ADAM),
    "eager": Way(lambda: classifier(run_eagerly=True), moving=ADAM),
    "many steps at once": Way(lambda: classifier(steps_per_execution=3), moving=ADAM),
    "sgd momentum": Way(
        lambda: classifier(optimizer=keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)),
        moving=("model/dense/kernel", "optimizer/momentum/dense/kernel"),
    ),
    "average": Way(
        lambda: classifier(optimizer=keras.optimizers.Adam(0.1, use_ema=True)),
        moving=("optimizer/average/dense/kernel",),
    ),
    "accumulation": Way(
        lambda: classifier(optimizer=keras.optimizers.Adam(0.1, gradient_accumulation_steps=2)),
        moving=("optimizer/gradient_accumulator/dense/kernel",),
    ),
    "bfloat16": Way(lambda: half(keras)),
    "embedding adam": Way(lambda: embedding(keras, "adam"), TOKENS, TABLE),
    "embedding sgd": Way(lambda: embedding(keras, "sgd"), TOKENS, TABLE),
    "embedding jit": Way(lambda: embedding(keras, "adam", jit_compile=True), TOKENS, TABLE),
    "keras 2 adam": Way(lambda: embedding(tf_keras, "adam"), TOKENS, TABLE),
    "keras 2 legacy adam": Way(
        lambda: embedding(tf_keras, tf_keras.optimizers.legacy.Adam(0.1)),
        TOKENS,
        (*TABLE, "optimizer/momentum/embedding/embeddings", "optimizer/velocity/dense/kernel"),
    ),
    "keras 2 legacy sgd": Way(
        lambda: embedding(tf_keras, tf_keras.optimizers.legacy.SGD(0.1, momentum=0.9)),
        TOKENS,
        (*TABLE, "optimizer/momentum/embedding/embeddings"),
    ),
    "keras 2 eager": Way(lambda: embedding(tf_keras, "rmsprop", run_eagerly=True), TOKENS, TABLE),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # tf_keras's own
@pytest.mark.parametrize("way", WAYS)
def test_references_stay_while_the_training_goes_on(way: str) -> None:
    tf_keras.utils.set_random_seed(1)
    tf_keras.backend.clear_session()
    case = WAYS[way]
    model = case.build()
    data = X if case.data is None else case.data
    # An odd number of batches: a gradient accumulator is not empty again at the end of each call.
    found = moved(model, lambda: model.fit(data[:40], Y[:40], batch_size=8, verbose=0, shuffle=False))
    assert set(case.moving) <= found


class Own(keras.Model):
    """A training step of the user's own, with variables that Keras's optimizers know nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.head = keras.layers.Dense(3)
        self.table = tf.Variable(tf.zeros((4, 3)))
        self.seen = tf.Variable(tf.zeros((5,)))
        self.last = tf.Variable(tf.zeros((8, 6)))

    def call(self, x: Any) -> Any:
        return self.head(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            logits = self(x, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))
        weights = self.head.trainable_variables
        for variable, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            variable.assign_sub(0.1 * gradient)
        self.table.scatter_add(tf.IndexedSlices(logits[:1], [2]))
        self.seen.assign_add(tf.ones((5,)))
        self.last.assign(x)
        return {"loss": loss}


@pytest.mark.parametrize("arguments", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_a_training_step_of_the_users_own(arguments: dict[str, Any]) -> None:
    keras.utils.set_random_seed(1)
    model = Own()
    model(X[:8])
    model.compile("sgd", **arguments)
    calls = iter(np.roll(X, n, 0) for n in range(9))
    found = moved(model, lambda: model.fit(next(calls), Y, batch_size=8, verbose=0, shuffle=False))
    assert {"model/dense/kernel", "model/dense/bias", "model/table", "model/seen", "model/last"} <= found


def scatter_nd(variable: tf.Variable) -> None:
    tf.raw_ops.ResourceScatterNdAdd(ref=variable.handle, indices=[[1], [3]], updates=tf.ones((2, 4)))


CODE: dict[str, Callable[[tf.Variable], object]] = {
    "assign": lambda v: v.assign(v + 1.0),
    "assign_add": lambda v: v.assign_add(tf.ones_like(v)),
    "assign_sub": lambda v: v.assign_sub(tf.ones_like(v)),
    "scatter_update": lambda v: v.scatter_update(tf.IndexedSlices(v[1:2] + 5.0, [1])),
    "scatter_sub": lambda v: v.scatter_sub(tf.IndexedSlices(tf.ones((1, 4)), [0])),
    "scatter_nd_update": lambda v: v.scatter_nd_update([[1, 1]], v[1:2, 1] + 1.0),
    "scatter_nd_add": scatter_nd,
    "a slice": lambda v: v[1:3, 1].assign(v[1:3, 1] * 2.0 + 1.0),
    "in a function": tf.function(lambda v: v.assign_add(tf.ones_like(v))),
    "in a compiled function": tf.function(lambda v: v.assign_add(tf.ones_like(v)), jit_compile=True),
    "in a loop": tf.function(lambda v: [v.assign_add(tf.ones_like(v)) for _ in range(3)]),
}


@pytest.mark.parametrize("code", CODE)
def test_code_of_the_user(code: str) -> None:
    """On a variable that a callback may hold of the model's: before and after it has been updated sparsely once."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    kernel = model.layers[0].kernel.value
    assert "model/dense/kernel" in moved(model, lambda: CODE[code](kernel))


MIRRORED = """
import json, sys
import numpy as np
from resume.engine import devices
strategy = devices.choose("cpu", logical_cpus=2).strategy
import keras
sys.path.insert(0, sys.argv[1])
from small import X, Y, classifier, epochs
from test_snapshot import copied, equal, taken, moved
from resume.engine import snapshot

with strategy.scope():
    model = classifier()
fit = lambda: model.fit(X, Y, batch_size=8, verbose=0)
found = moved(model, fit)
state = taken(model)
before = copied(model)
settled = snapshot.settled(state)
fit()
print(json.dumps({
    "moved": sorted(found),
    "all": sorted(before),
    "settled": sorted(settled.arrays),
    "named": sorted(settled.raw_names),
    "same": all(settled.arrays[n].tobytes() == before[n].tobytes() for n in settled.arrays),
}))
"""


def test_mirrored_variables(python: Python) -> None:
    """Each device's own copy stays too; those that say nothing of their own are not kept."""
    out, _ = python(MIRRORED, Path(__file__).parent).communicate(timeout=120)
    told = json.loads(out.splitlines()[-1])
    mean, kernel = "model/batch_normalization/moving_mean", "model/dense/kernel"
    both = {f"{name}{end}" for name in (mean, kernel) for end in ("", "@replica0", "@replica1")}
    assert both <= set(told["moved"])
    assert told["same"]
    dropped = set(told["all"]) - set(told["settled"])
    assert {f"{kernel}@replica0", f"{kernel}@replica1"} <= dropped
    assert all("@replica" in name for name in dropped)
    assert {mean, f"{mean}@replica0", f"{mean}@replica1"} <= set(told["settled"])
    assert told["named"] == told["settled"]


# ---- what is known from the last time ----


def model_of(K: Any) -> Any:
    layers = K.layers
    inner = K.Sequential([layers.Dense(4, name="deep"), layers.Dropout(0.1, name="inner_drop")], name="inner")
    inputs = K.Input((6,))
    x = layers.Dense(5, kernel_regularizer=K.regularizers.L2(0.25), name="first")(inputs)
    x = layers.Dropout(0.5, name="drop")(inner(layers.BatchNormalization(name="norm")(x)))
    model = K.Model(inputs, layers.Dense(3, activation="softmax", name="last")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


class Blend(keras.layers.Layer):
    """Of the user's own: its config is what another object of theirs holds."""

    def __init__(self, settings: dict[str, float] | Any) -> None:
        super().__init__()
        self.settings = settings

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"settings": self.settings.share}


class Settings:
    __slots__ = ("share",)


def _linear(model: Any) -> Any:
    return (keras if isinstance(model, keras.Model) else tf_keras).activations.linear


def _compiled_anew(model: Any) -> None:
    library = keras if isinstance(model, keras.Model) else tf_keras
    model.compile(library.optimizers.RMSprop(0.25), "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)


CHANGES: dict[str, Callable[[Any], object]] = {
    "the rate of a Dropout": lambda m: setattr(m.get_layer("drop"), "rate", 0.25),
    "the rate of an inner one": lambda m: setattr(m.get_layer("inner").get_layer("inner_drop"), "rate", 0.2),
    "what is trainable": lambda m: setattr(m.get_layer("first"), "trainable", False),
    "what is trainable inside": lambda m: setattr(m.get_layer("inner").get_layer("deep"), "trainable", False),
    "a regularizer's factor": lambda m: setattr(m.get_layer("first").kernel_regularizer, "l2", 0.5),
    "a regularizer": lambda m: setattr(m.get_layer("first"), "kernel_regularizer", None),
    "an activation": lambda m: setattr(m.get_layer("last"), "activation", _linear(m)),
    "a momentum": lambda m: setattr(m.get_layer("norm"), "momentum", 0.5),
    "the learning rate": lambda m: m.optimizer.learning_rate.assign(0.125),
    "the optimizer's epsilon": lambda m: setattr(m.optimizer, "epsilon", 0.5),
    "a variable of a layer": lambda m: setattr(m.get_layer("last"), "extra", tf.Variable([1.0, 2.0])),
    "variables in a list": lambda m: setattr(
        m.get_layer("last"), "more", [tf.Variable(3.0), {"x": tf.Variable(4)}]
    ),
    "one more in that list": lambda m: m.get_layer("last").more.append(tf.Variable(5.0)),
    "a generator": lambda m: tf.random.set_global_generator(tf.random.Generator.from_seed(7)),
    "the optimizer, the loss and the metrics": _compiled_anew,
}


def facts(state: TrainState) -> dict[str, Any]:
    """All that is not an array."""
    return {
        "model": plain.encode(state.model_config),
        "compile": plain.encode(state.compile_config),
        "optimizer": state.optimizer and (state.optimizer.class_name, plain.encode(state.optimizer.config)),
        "raw": dict(state.raw_names),
        "still": state.still,
        "specs": dict(state.specs),
    }


@pytest.mark.filterwarnings("ignore")  # tf_keras's own
@pytest.mark.parametrize("K", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_every_change_since_the_last_snapshot_is_in_the_next(K: Any) -> None:
    model = model_of(K)
    model.optimizer.build(model.trainable_variables)
    model.fit(X, Y, verbose=0)
    snapshots = Snapshots(model)
    for what, change in CHANGES.items():
        before = facts(taken(snapshots))
        change(model)
        state = taken(snapshots)
        assert facts(state) == facts(taken(model)), what
        assert facts(state) != before or what == "a generator", what
        equal(state, copied(model))


def test_what_the_users_own_code_tells_is_asked_each_time() -> None:
    settings = Settings()
    settings.share = 0.5
    model = keras.Sequential([keras.Input((6,)), Blend(settings)])
    snapshots = Snapshots(model)
    for share in (0.5, 0.75):
        settings.share = share
        assert plain.encode(taken(snapshots).model_config) == plain.encode(capture.model_config(model))


class Holds(keras.Model):
    """Metrics of the user's own, behind something that Keras does not look into."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.holder = keras.layers.Dense(3), types.SimpleNamespace(seen=keras.metrics.Mean("seen"))

    def call(self, x: Any) -> Any:
        return self.head(x)

    @property
    def metrics(self) -> list[Any]:
        return [*super().metrics, self.holder.seen]


def test_what_the_users_own_code_leads_to_is_looked_for_each_time() -> None:
    model = Holds()
    model.compile("sgd", "mse")
    model.train_on_batch(X, np.ones((len(X), 3)))
    snapshots = Snapshots(model)
    taken(snapshots)
    model.holder.seen = keras.metrics.Mean("seen")
    model.holder.seen.update_state(3.0)
    state = taken(snapshots)
    assert state.arrays["metrics/seen/total"] == 3
    equal(state, copied(model))


def test_a_validation_changes_nothing() -> None:
    model = model_of(keras)
    snapshots = Snapshots(model)
    known: list[Any] = []

    class Snapshot(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            taken(snapshots)
            known.append(snapshots._known)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.on_train_batch_end(0)

    assert len([*epochs(model, keras, 4, Snapshot())]) == 4
    half = known[len(known) // 2 :]  # Keras has made all that it needs
    assert len(half) >= 4
    assert all(one is half[0] for one in half)


def test_sections_that_are_the_same_in_each_and_those_left_for_later() -> None:
    """None is another's afterwards: neither what was handed over nor a generator that has gone on."""
    model, names = classifier(), ["a"]
    snapshots = Snapshots(model, constant={"declared": {"names": names}})
    names.clear()
    for _ in range(2):
        noted, expected = rng.noted(), rng.state()
        state = snapshots.take(epoch=0, batch=0, progress={"position": {"epoch": 1}}, later={"rng": noted})
        random.random(), np.random.random()
        assert sorted(state.progress) == ["declared", "position"]
        settled = snapshot.settled(state)
        assert sorted(settled.progress) == ["declared", "position", "rng"]
        assert capture.section(settled, "declared") == {"names": ["a"]}
        assert plain.encode(capture.section(settled, "rng"), keep=state_digest) == plain.encode(
            expected, keep=state_digest
        )
        assert settled.specs.keys() == settled.arrays.keys() >= {"rng/0", "rng/1"}


def test_only_callbacks_and_generators_set_arrays_aside() -> None:
    """All else of a run is read from the manifest alone, and is no array that a restore would miss."""
    numbers = [0.5] * 2000
    sections = {
        "declared": {"layers": numbers},
        "position": {"logs": numbers},
        "callbacks": {"losses": numbers},
    }
    found: dict[str, Any] = {}
    made = {section: capture.encoded(section, item, found) for section, item in sections.items()}
    assert list(found) == ["callbacks/0"]
    assert plain.decode(made["declared"]) == sections["declared"]


def test_what_has_not_changed_is_not_found_out_again() -> None:
    model = model_of(keras)
    model.train_on_batch(X, Y)
    snapshots = Snapshots(model)
    first = taken(snapshots)
    model.train_on_batch(X, Y)
    second = taken(snapshots)
    assert first.model_config is second.model_config
    assert first.compile_config is second.compile_config
    model.optimizer.learning_rate = 0.5
    third = taken(snapshots)
    assert third.model_config is first.model_config
    assert third.optimizer is not None
    assert third.optimizer.config["learning_rate"] == 0.5


def test_a_model_that_nobody_has_is_not_kept() -> None:
    snapshots = Snapshots(classifier())
    model = weakref.ref(snapshots._model)
    taken(snapshots)
    del snapshots
    gc.collect()
    assert model() is None


# ---- what has not changed since the last one ----


def with_frozen() -> Any:
    """Of 1.4 MB that no training changes, and a head; Keras has made all that it needs."""
    layers = [keras.layers.Dense(600, name="frozen", trainable=False), keras.layers.Dense(3, name="head")]
    model = keras.Sequential([keras.Input((600,)), *layers])
    model.compile("adam", "mse")
    train(model)
    return model


def train(model: Any) -> None:
    model.train_on_batch(np.ones((2, 600)), np.ones((2, 3)))


FROZEN = ["model/frozen/kernel", "model/frozen/bias"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each array of which a snapshot makes a digest."""
    found: list[int] = []

    def digest(array: np.ndarray[Any, Any]) -> str:
        found.append(array.nbytes)
        return state_digest(array)

    monkeypatch.setattr(snapshot, "digest", digest)
    return found


def digests(snapshots: Snapshots, names: list[str] = FROZEN) -> dict[str, str]:
    return taken(snapshots).arrays.digests(names)


def test_what_has_not_changed_is_not_read_again(made: list[int]) -> None:
    model = with_frozen()
    snapshots = Snapshots(model)
    first = digests(snapshots)
    assert len(made) == 2
    for _ in range(3):
        train(model)
        assert digests(snapshots) == first
    assert len(made) == 2


@pytest.mark.parametrize("code", CODE)
def test_what_has_changed_is(code: str, made: list[int]) -> None:
    """However it was updated: with its reference still held, and with values that happen to be the same."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    name, kernel = "model/dense/kernel", model.layers[0].kernel.value
    snapshots = Snapshots(model)
    before = digests(snapshots, [name])
    for _ in range(3):
        CODE[code](kernel)
        now = digests(snapshots, [name])
        assert now == {name: state_digest(kernel.numpy())} != before
        before = now


def test_checkpoints_hold_what_is_live_whatever_is_known(tmp_path: Path) -> None:
    model = with_frozen()
    snapshots, directory = Snapshots(model), Directory(tmp_path, Retention(last=9))
    kernel = model.get_layer("frozen").kernel
    for step in range(6):
        train(model)
        if step in (3, 4):
            kernel.assign(kernel + 1.0)
        copies = copied(model)
        published = directory.publish(snapshots.take(epoch=0, batch=step, progress={}))
        equal(native.read(published.path), copies)


def test_what_moves_is_not_held_on_to() -> None:
    model = with_frozen()
    snapshots, name = Snapshots(model), ["model/head/kernel"]
    digests(snapshots, name)
    held = weakref.ref(snapshots._unchanged._known[name[0]][0])
    assert held() is not None
    train(model)
    digests(snapshots, name)
    gc.collect()
    assert held() is None
    assert not snapshots._unchanged._known
    digests(snapshots, name)
    digests(snapshots, [])
    assert not snapshots._unchanged._known  # nor what nobody asks for any more


def test_copies_on_the_host_are_not_held_on_to() -> None:
    model = with_frozen()
    snapshots = Snapshots(model)
    state = taken(snapshots)
    assert isinstance(state.arrays, References)
    state.arrays.bring_all()
    state.arrays.digests(FROZEN)
    assert not snapshots._unchanged._known


# ---- what is held, and let go of ----


def references(**held: Any) -> TrainState:
    return TrainState(
        format="native", path=Path(), arrays=References(held), raw_names=dict.fromkeys(held, "raw")
    )


def test_equal_copies_of_devices_are_dropped_and_no_others() -> None:
    state = references(**{
        "same": tf.zeros(3), "same@replica0": tf.zeros(3), "same@replica1": tf.zeros(3),
        "sum": tf.fill(2, 3.0), "sum@replica0": tf.fill(2, 1.0), "sum@replica1": tf.fill(2, 2.0),
        "first": tf.zeros(3), "first@replica0": tf.zeros(3), "first@replica1": tf.constant([0.0, 0.0, -0.0]),
        "alone": tf.zeros(3),
    })  # fmt: skip
    kept = {
        "same",
        "alone",
        *(f"{n}{end}" for n in ("sum", "first") for end in ("", "@replica0", "@replica1")),
    }
    settled = snapshot.settled(state)
    assert set(settled.arrays) == set(settled.specs) == set(settled.raw_names) == kept
    assert settled.arrays["first@replica1"].tolist() == [0, 0, 0]


def test_what_is_taken_is_let_go_of() -> None:
    model = classifier()
    model.fit(X, Y, verbose=0)
    state = taken(model)
    held: Any = state.arrays
    alive = {name: weakref.ref(tensor) for name, tensor in held._held.items()}
    assert len(alive) > 20
    assert all(tensor() is not None for tensor in alive.values())
    for number, name in enumerate(list(state.arrays), start=1):
        array = state.arrays.take(name)
        assert array.shape == state.specs[name].shape
        del array
        gc.collect(0)
        assert sum(tensor() is None for tensor in alive.values()) == number


def test_a_variable_moves_only_while_it_is_referred_to() -> None:
    """The one allocation that a snapshot costs: none before, and none after it was let go of."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    kernel = model.layers[0].kernel.value

    def address() -> int:
        kernel.assign_add(tf.ones_like(kernel))
        return int(kernel.value()._numpy().ctypes.data)

    first = address()
    assert address() == first
    state = taken(model)
    second = address()
    assert second != first
    assert address() == second  # once, however long it is held
    for name in list(state.arrays):
        state.arrays.take(name)
    assert address() == second


def test_what_callbacks_hold_is_copied() -> None:
    """NumPy arrays have no such manners."""
    model = classifier()
    model.optimizer.build(model.trainable_variables)
    best = np.arange(4.0)
    state = taken(model, callbacks={"best": best, "wait": 3})
    best += 1
    assert state.progress["callbacks"]["wait"] == 3
    assert state.arrays["callbacks/0"].tolist() == [0, 1, 2, 3]


def test_the_bytes_of_a_snapshot_are_told_before_it_is_taken() -> None:
    model = classifier()
    model.fit(X, Y, verbose=0)
    assert taken(model).nbytes == live.nbytes(model)
