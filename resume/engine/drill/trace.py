"""One more callback in each attempt of a drill: it writes down what every step was given, and what it left.

A line of JSON an event. `before` and `step`: digests of every variable, what Python-side state has changed; `step`
also: digests of the batch as the model got it, of its output, the loss and the learning rate, taken inside the compiled
step. Nothing of this changes a number: only integers are added, and nobody reads them but this.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from resume.engine import callbacks as run_callbacks
from resume.engine import flavour, live
from resume.engine.data import takes_epoch
from resume.engine.drill import fingerprint, hidden
from resume.engine.drill.code import described, is_users_part
from resume.engine.job import Job
from resume.state import digest

NAME = "resume_drill"
_PARTS = ("x", "y", "weight", "out", "loss", "rate")
_CHANCE = ("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "RandomShuffle",
           "Multinomial", "RandomGamma", "RandomPoissonV2", "ParameterizedTruncatedNormal")  # fmt: skip
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


def traced(job: Job, file: Path) -> Job:
    """The same job with the tracing callback after everybody else's."""
    returned: dict[str, Any] = {}
    users: dict[str, Any] = {}

    def callbacks(born: str) -> Mapping[str, Any]:
        users.update(job.callbacks(born))
        tracer = _class(born)(file, job, users, returned)
        return {**users, NAME: tracer}

    return replace(
        job,
        train=_noting(job.train, "data.train", returned),
        validation=_noting(job.validation, "data.validation", returned),
        callbacks=callbacks,
    )


def _noting(source: Any, name: str, returned: dict[str, Any]) -> Any:
    """The data function, its last result noted; what it takes and what is bound stay visible."""
    if not callable(source):
        return source
    bound = source if isinstance(source, functools.partial) else functools.partial(source)

    @functools.wraps(bound.func)
    def call(*args: Any, **kwargs: Any) -> Any:
        returned[name] = value = bound.func(*args, **kwargs)
        return value

    return functools.partial(call, *bound.args, **bound.keywords)


def _class(born: str) -> Any:
    base = flavour.library(born).callbacks.Callback
    return type("Tracer", (_Tracer, base), {})


class _Probe:
    """Variables into which the compiled step writes. With several steps in one call, they hold all of them."""

    def __init__(self) -> None:
        shared = {"trainable": False, "synchronization": tf.VariableSynchronization.ON_READ,
                  "aggregation": tf.VariableAggregation.SUM}  # fmt: skip
        self.digests = {name: tf.Variable(0, dtype=tf.int64, **shared) for name in _PARTS}
        self.floats = {name: tf.Variable(0.0, dtype=tf.float32, **shared) for name in ("loss", "rate")}
        self.rows = tf.Variable(tf.zeros([fingerprint.ROWS], tf.int64), **shared)
        self.inside = False
        self.chance: dict[str, str] = {}  # operations with hidden state: name -> type

    def note(self, name: str, structure: Any) -> None:
        self.digests[name].assign(self.digests[name] * 31 + fingerprint.digest(structure))
        if name in self.floats:
            self.floats[name].assign(tf.cast(tf.reduce_sum(structure), tf.float32))

    def given(self, data: Any) -> None:
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        for name, part in (("x", x), ("y", y), ("weight", weight)):
            self.note(name, part)
        self.rows.assign(self.rows * 31 + fingerprint.rows(x))

    def reset(self) -> None:
        for variable in (*self.digests.values(), *self.floats.values(), self.rows):
            variable.assign(tf.zeros_like(variable))

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: int(v.numpy()) for name, v in self.digests.items()}
        found |= {f"{name}_value": float(v.numpy()) for name, v in self.floats.items()}
        return found | {"rows": [int(row) for row in self.rows.numpy() if row]}

    def look_for_chance(self) -> None:
        """While the step is being traced: what its graph holds that no checkpoint can."""
        if tf.executing_eagerly():
            return
        graph = tf.compat.v1.get_default_graph().as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        self.chance |= {node.name: node.op for node in nodes if node.op in (*_CHANCE, *_PYTHON)}


class _Tracer:
    """Joined to the Callback class of the model's Keras by `_class`."""

    model: Any

    def __init__(self, file: Path, job: Job, users: Mapping[str, Any], returned: Mapping[str, Any]) -> None:
        super().__init__()
        self._file, self._job, self._users, self._returned = file, job, users, returned
        self._epoch, self._batch = 0, 0
        self._hidden: dict[str, str] = {}
        self._said_chance = False

    # Its place in the run, and nothing else, is in the checkpoints: an epoch that is resumed does not begin again.

    def get_state(self) -> list[int]:
        return [self._epoch, self._batch]

    def set_state(self, state: list[int]) -> None:
        self._epoch, self._batch = state

    def set_model(self, model: Any) -> None:
        super().set_model(model)  # type: ignore[misc]
        object.__setattr__(model, "compile", self._noted_compile(model.compile))

    def on_train_begin(self, logs: Any = None) -> None:
        self._probe = _Probe()
        self._install(self.model)
        self._write("began", users=self._described())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._batch = epoch, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch = batch
        self._probe.reset()
        self._write("before", **self._state())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        facts = self._probe.read() | self._state() | {"logs": _exact(logs)}
        if self._probe.chance and not self._said_chance:
            self._said_chance = True
            facts["chance"] = self._probe.chance
        self._write("step", **facts)
        self._batch = batch + 1

    def on_test_begin(self, logs: Any = None) -> None:
        self._write("validating")

    def on_test_end(self, logs: Any = None) -> None:
        self._write("validated", logs=_exact(logs), hidden=self._moved())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._write("epoch", logs=_exact(logs), hidden=self._moved())

    def _write(self, event: str, **facts: Any) -> None:
        place = {"at": event, "epoch": self._epoch, "batch": self._batch}
        with self._file.open("a") as file:
            file.write(json.dumps(place | facts, default=str) + "\n")

    # -- what there is to see --------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        try:
            variables = live.of(self.model).variables
        except ValueError:  # its optimizer is new, and not built
            variables = {}
        values = {name: digest(live.view(v))[:16] for name, v in variables.items()}
        return {
            "variables": values,
            "hidden": self._moved(),
            "random": hidden.generators(),
            "optimizer": id(live.optimizer_of(self.model)),
        }

    def _moved(self) -> dict[str, str]:
        """Python-side state that is not as it was at the event before."""
        found = hidden.snapshot(self._objects())
        moved = {path: text for path, text in found.items() if self._hidden.get(path) != text}
        self._hidden |= found
        return moved

    def _objects(self) -> dict[str, Any]:
        model = self.model
        objects = {f"callbacks.{name}": callback for name, callback in self._users.items()}
        objects |= {"data.train": self._job.train, "data.validation": self._job.validation}
        objects |= {f"{name}()": value for name, value in self._returned.items()}
        objects |= {f"layer {layer.name}": layer for layer in model._flatten_layers()}
        objects |= {f"metric {metric.name}": metric for metric in _metrics(model)}
        objects["loss"] = getattr(model, "loss", None)
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        return objects | {"optimizer": inner, "schedule": getattr(inner, "_learning_rate", None)}

    def _described(self) -> dict[str, Any]:
        """What a report can name of the user's parts: class, suspicious source lines, globals that they use."""
        found = {}
        for where, item in self._objects().items():
            if item is not None and (where.startswith(("callbacks.", "data.")) or is_users_part(item)):
                found[where] = described(item)
        for name, source in (("data.train", self._job.train), ("data.validation", self._job.validation)):
            found.get(name, {})["takes_epoch"] = takes_epoch(source)
        return found

    # -- inside the step -------------------------------------------------------------------------------------------

    def _install(self, model: Any) -> None:
        """Instance attributes over the model's methods; past Keras's own bookkeeping, which would track them."""
        put = functools.partial(object.__setattr__, model)
        put("train_step", self._traced_step(model.train_step))
        put("compute_loss", self._traced_loss(model.compute_loss))
        self._watch_rate(model.optimizer)

    def _traced_step(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        probe = self._probe

        def train_step(data: Any) -> Any:
            probe.given(data)
            probe.inside = True
            try:
                logs = step(data)
            finally:
                probe.inside = False
            probe.look_for_chance()
            return logs

        return train_step

    def _traced_loss(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        probe = self._probe

        def compute_loss(
            x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **more: Any
        ) -> Any:
            loss = compute(x, y, y_pred, sample_weight, **more)
            if probe.inside:
                probe.note("out", y_pred)
                probe.note("loss", loss)
            return loss

        return compute_loss

    def _watch_rate(self, optimizer: Any) -> None:
        inner, probe = getattr(optimizer, "inner_optimizer", optimizer), self._probe
        current = getattr(inner, "_get_current_learning_rate", None)
        if current is None or self._job.strategy.num_replicas_in_sync > 1:
            return  # tf_keras keeps the rate in a variable

        def used() -> Any:
            rate = current()
            if probe.inside:
                probe.note("rate", tf.convert_to_tensor(rate))
            return rate

        object.__setattr__(inner, "_get_current_learning_rate", used)

    def _noted_compile(self, compile_: Callable[..., None]) -> Callable[..., None]:
        def noted(*args: Any, **kwargs: Any) -> None:
            frame = inspect.currentframe()
            caller = frame.f_back if frame is not None else None
            assert caller is not None
            code, owner = caller.f_code, caller.f_locals.get("self")
            names = [f"callbacks.{name} " for name, item in self._users.items() if item is owner]
            where = f"({Path(code.co_filename).name}:{caller.f_lineno})"
            self._write("compile", by=f"{''.join(names)}{code.co_name} {where}")
            compile_(*args, **kwargs)

        return noted


def _metrics(model: Any) -> list[Any]:
    """The user's metrics; Keras 3 keeps those given to compile() one floor down."""
    compiled = getattr(model, "_compile_metrics", None)
    return [*model.metrics, *getattr(compiled, "metrics", [])]


def _exact(logs: Any) -> dict[str, str]:
    """Logs with every bit of their numbers."""
    found = run_callbacks.numbers(logs)
    return {name: v.hex() if isinstance(v, float) else str(v) for name, v in found.items()}
