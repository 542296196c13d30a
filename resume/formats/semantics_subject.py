"""What is asked about where Keras 3 might compute otherwise: a source's layers, its training, what flows through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resume.formats import semantics_flow, translate_layers, translate_training
from resume.formats.semantics_flow import Flow
from resume.state import OptimizerInfo, TrainState

_SHOWN = 3


@dataclass(frozen=True)
class Layer:
    """A layer of the source's config at any depth. `own`: of one of Keras's own classes."""

    kind: str
    name: str
    config: Mapping[str, Any]
    own: bool = True


@dataclass(frozen=True)
class Call:
    """A call in a graph that says whether to train: of which layer, and all that is in that layer."""

    name: str
    training: bool
    within: tuple[Layer, ...]


@dataclass(frozen=True)
class Subject:
    """The source's layers, its optimizer, and which Keras wrote it."""

    layers: tuple[Layer, ...]
    optimizer: OptimizerInfo | None
    keras_version: str | None
    losses: tuple[Any, ...] = ()  # as compile() was given them, each a name or a serialised object
    metrics: tuple[Any, ...] = ()
    calls: tuple[Call, ...] = ()
    flow: Flow = field(default_factory=Flow)

    @classmethod
    def of(cls, state: TrainState) -> Subject:
        compiled = state.compile_config or {}
        return cls(
            tuple(layers(state.model_config)),
            state.optimizer.inner if state.optimizer is not None else None,
            state.keras_version,
            tuple(given(compiled.get("loss"))),
            tuple(given([compiled.get("metrics"), compiled.get("weighted_metrics")])),
            tuple(calls(state.model_config)),
            semantics_flow.trace(state.model_config, trained=bool(compiled) or state.optimizer is not None),
        )

    @property
    def is_standalone(self) -> bool:
        return translate_training.is_standalone(self.keras_version)

    @property
    def is_legacy(self) -> bool:
        """An optimizer of OptimizerV2, the kind between standalone Keras and Keras 2.11."""
        return self.optimizer is not None and self.optimizer.legacy and not self.is_standalone

    def uses(self, *kinds: str) -> bool:
        return self.optimizer is not None and self.optimizer.class_name in kinds

    def setting(self, name: str) -> Any:
        return self.optimizer.config.get(name) if self.optimizer is not None else None

    def embeddings(self) -> list[Layer]:
        return [
            item for item in self.layers if item.kind == "Embedding" and item.config.get("trainable", True)
        ]


def layers(config: object) -> Iterator[Layer]:
    """Every serialised layer in a config, models and wrappers included."""
    for item in _objects(config):
        inner = item.get("config")
        if isinstance(inner, Mapping):
            kind = translate_layers.bare(item)
            own = translate_layers.is_own(item, translate_layers.Context())
            yield Layer(kind, str(inner.get("name") or item.get("name") or kind), inner, own)


def calls(config: object) -> Iterator[Call]:
    """Every call in the graphs of a config that was given `training`."""
    for item in _objects(config):
        for arguments in semantics_flow.arguments(item):
            if isinstance(arguments.get("training"), bool):
                within = tuple(layers(item))
                yield Call(semantics_flow.name_of(item), arguments["training"], within)


def given(config: object) -> Iterator[Any]:
    """Losses or metrics in any nesting, by output or not; what is inside of them is left there."""
    if isinstance(config, str) or (isinstance(config, Mapping) and "class_name" in config):
        yield config
    elif isinstance(config, Mapping | list | tuple):
        for item in config.values() if isinstance(config, Mapping) else config:
            yield from given(item)


def named(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    found = list(dict.fromkeys(names))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _objects(config: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(config, list | tuple):
        for item in config:
            yield from _objects(item)
    if isinstance(config, Mapping):
        if "class_name" in config:
            yield config
        for item in config.values():
            yield from _objects(item)
