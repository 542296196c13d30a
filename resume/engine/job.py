"""What an attempt is given, where it begins, and what it leaves: plain records around live objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from resume import urls
from resume.clusters import Cluster
from resume.continuity import Proof
from resume.engine.data import Feeding
from resume.preempt import Watch
from resume.rundir import Retention
from resume.schedule import Schedule
from resume.state import TrainState


@dataclass(frozen=True)
class Built:
    """A live, compiled model; which parts of it came from the source's own config (and so cannot drift from it)."""

    model: keras.Model
    model_from_source: bool = False
    optimizer_from_source: bool = False
    unheld: tuple[str, ...] = ()  # settings that the source's config lacks


@dataclass(frozen=True)
class Job:
    """Everything that an attempt needs. `build` is called once, inside the strategy's scope."""

    run_dir: Path
    build: Callable[[TrainState | None], Built]
    train: Any
    validation: Any = None
    callbacks: Callable[[str], Mapping[str, Any]] = lambda born: {}  # of that flavour
    flavour: str = "auto"  # or "keras", "tf_keras"
    epochs: int = 1
    verbose: int = 1
    validation_args: Mapping[str, Any] = field(default_factory=dict)
    feeding: Feeding = field(default_factory=Feeding)
    schedule: Schedule = field(default_factory=Schedule)
    retention: Retention = field(default_factory=Retention)
    when_busy: str = "wait"  # "skip": a checkpoint that is due while one is written comes after that one
    on_failure: str = "stop"  # "warn": train on although a checkpoint could not be published
    background: bool | None = None  # write beside the training; None: where the memory for it is there
    ckpt: str | None = None  # an absolute path, or a URL
    accept: tuple[str, ...] = ()
    prefer: str | None = None
    declared: Mapping[str, Any] = field(
        default_factory=dict
    )  # parts of the configuration that must not drift
    record: str | None = None  # the resolved configuration, for config.yaml
    strategy: tf.distribute.Strategy = field(default_factory=tf.distribute.get_strategy)
    devices: str = ""
    watch: Watch = field(default_factory=lambda: Watch(Cluster("local", (), 75)))  # hears nothing
    wait: float = 0.0  # seconds for another process to leave the run directory
    stale: float = 60.0  # seconds without a heartbeat after which it counts as gone
    fruitless: int | None = 3
    remote: str | None = None  # the URL behind run_dir, which is its tier on this machine then
    say: Callable[[str], None] = print

    @property
    def name(self) -> str:
        """The run, as its user calls it."""
        return self.remote or str(self.run_dir)


@dataclass(frozen=True)
class Origin:
    """Where an attempt begins. Order: the run's newest whole checkpoint; `ckpt`; fresh."""

    kind: str  # "run", "source", "fresh"
    state: TrainState | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the lineage
    passed_over: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        return (self.state.epoch or 0) if self.state else 0

    @property
    def batch(self) -> int:
        return (self.state.batch or 0) if self.state else 0

    @property
    def name(self) -> str:
        given = str(self.facts.get("path"))
        if urls.is_remote(given):
            return given  # and not its copy
        return str(self.state.path) if self.state else "a fresh start"


@dataclass(frozen=True)
class Outcome:
    history: keras.callbacks.History
    model: keras.Model
    proof: Proof | None
    step: int | None
    already_done: bool = False
