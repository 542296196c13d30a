"""The data of a run's validations: each draws what it would have drawn in a run that was never interrupted."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from resume.engine import rng
from resume.engine.data import call, checked, is_stateful, takes_epoch
from resume.engine.feed import Adapter, Batches
from resume.engine.handed import validated
from resume.errors import UsageError

_VALIDATION = 2  # resume.engine.data has 1


@dataclass
class Validation:
    """Validation data: as `fit` takes it, for epoch e, after `done` earlier validations of this run."""

    source: Any
    seed: int
    strategy: tf.distribute.Strategy
    steps: int | None = None
    notes: list[str] = field(default_factory=list)
    _given: Any = None
    _beyond: bool = False

    def data(self, epoch: int, *, done: int) -> Any:
        if self.source is None:
            return None
        if takes_epoch(self.source):
            with rng.drawn_from(self.seed, _VALIDATION, epoch):
                return checked(call(self.source, epoch=epoch, seed=self.seed), "data.validation")
        if self._given is None:
            with rng.drawn_from(self.seed, _VALIDATION):
                given = call(self.source, seed=self.seed) if callable(self.source) else self.source
            self._given = checked(given, "data.validation")
        value = self._given
        return (
            self._one_pass(value, done)
            if isinstance(value, tf.data.Dataset) and is_stateful(value)
            else value
        )

    def _one_pass(self, given: tf.data.Dataset, done: int) -> Any:
        """One iterator a validation, as many as there were validations before: each draws another order."""
        length = int(given.cardinality())
        steps = self.steps or (length if length >= 0 else None)
        if steps is None and length == tf.data.INFINITE_CARDINALITY:
            raise UsageError("data.validation never ends: set fit.validation_steps.")
        # A prefetch that tf.data adds by itself may run into the next repetition, which draws another order, or not.
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        dataset, passed = given.with_options(options), validated.of(given) or 0
        if passed > done and not self._beyond:
            self._beyond = True  # and so in all that follow
            self.notes.append(
                f"data.validation was iterated before in this process, and cannot go back to its pass {done + 1}: its "
                "order may differ; give a function that takes `epoch`"
            )
        for again in range(passed, done):
            validated.note(given, again + 1)
            for _ in itertools.islice(dataset, steps):
                pass
        validated.note(given, max(passed, done) + 1)
        if steps is None:
            return dataset
        several = self.strategy.num_replicas_in_sync > 1
        iterator = iter(self.strategy.experimental_distribute_dataset(dataset) if several else dataset)
        return Adapter(Batches(iterator, dataset.element_spec), steps)
