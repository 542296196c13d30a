"""A model and its optimizers in an object graph, as a training state.

tf_keras calls its layers `layer_with_weights-0` or by attribute, and a SavedModel adds lists for its own use; Keras 3
calls them `_operations/1` or by attribute, and leaves out what an attribute holds in a list: such weights are there
only as the optimizer's `_trainable_variables`, and those of them that are not trained are not stored at all.

Left out without a word: TensorFlow's `save_counter`, Keras's step counters for TensorBoard, the rate that a schedule
gave last. Anything else that does not belong to the model is named in a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from resume import names
from resume.formats import h5, keras2, tfoptimizers, tfslots
from resume.formats.graph import Path, Stored
from resume.formats.hdf5 import damage
from resume.formats.tfnames import KERAS3, SEEDS, Layer, Namer, owner_of_state
from resume.formats.tfoptimizers import Optimizers
from resume.formats.tfslots import Owner
from resume.state import ITERATION, Arrays, OptimizerInfo, TrainState

_DOUBLED = "_all_variables"  # of Keras 3's export(): the values of `variables` once more
# What a SavedModel's objects hold a second time.
_LISTS = frozenset({
    "variables", "trainable_variables", "non_trainable_variables", _DOUBLED, "regularization_losses", "keras_api",
    "metrics", "layer_metrics", "layer_regularization_losses", "signatures",
})  # fmt: skip
_IGNORED = frozenset({
    "save_counter", "train_counter", "_train_counter", "_test_counter", "_predict_counter", "ckpt_saved_epoch",
    "ckpt_saved_batch", "num_documents", tfslots.DERIVED,
})  # fmt: skip
_ACCUMULATORS = frozenset({
    "total", "count", "true_positives", "true_negatives", "false_positives", "false_negatives",
    "total_confusion_matrix", "accumulator", "squared_sum", "residual", "num_samples",
})  # fmt: skip
_NOTES_LIMIT = 3

Entry = tuple[str, int, Path | None]  # canonical name, node, path from the model


@dataclass(frozen=True)
class Model:
    """A model's node in an object graph, with what the file says besides.

    `config`: the serialised model. `layers`: by node. `info`: the optimizer as the file describes it.
    """

    stored: Stored
    node: int = 0
    config: Mapping[str, Any] | None = None
    layers: Mapping[int, Layer] = field(default_factory=dict)
    info: OptimizerInfo | None = None

    def state(self, *, kind: str, path: FilePath) -> TrainState:
        """The training state; arrays are read when asked for. `kind`: the format's name.

        Raises SourceError for a variable that is no array, and for slots that fit no variable.
        """
        bundle = self.stored.bundle
        with damage(bundle.prefix, "its object graph"):
            optimizers = tfoptimizers.find(self.stored, model=self.node)
            flavour = self._flavour(optimizers)
            held, entries = self._entries(optimizers, flavour)
        keys = {name: self.stored.key(n) for name, n, _ in entries}
        specs = {name: bundle.spec(key) for name, key in keys.items()}
        for name in filter(h5.is_counter, keys):
            h5.check_counter(bundle.array(keys[name]), f"{bundle.prefix}: {keys[name]}")
        without = () if ITERATION in specs else (h5.NO_OPTIMIZER,)
        return TrainState(
            format=kind,
            path=path,
            arrays=Arrays(specs, read=lambda name: bundle.array(keys[name])),
            model_config=self.config,
            optimizer=held.info,
            flavour=flavour,
            raw_names={name: self.stored.name(n) or keys[name] for name, n, _ in entries},
            places={name: "/".join(place) for name, _, place in entries if place},
            notes=(*held.notes, *without, *self._left_out({n for _, n, _ in entries})),
        )

    def _entries(self, optimizers: Optimizers, flavour: str | None) -> tuple[tfoptimizers.Held, list[Entry]]:
        namer = Namer(self.stored, self.node, self.config, self.layers)
        found = self._variables(optimizers)
        weights, seeds, metrics, states = found["model"], found["seeds"], found["metrics"], found["states"]
        labels = namer.weights(weights, flavour=flavour, optimizer=optimizers.own)
        named = dict(zip(weights, labels, strict=True))
        entries: list[Entry] = [(f"model/{named[n]}", n, path) for n, path in weights.items()]
        # TensorFlow's view of a live model lists neither generators nor these metrics: they have no places.
        entries += [(f"seeds/{name}", n, None) for name, n in zip(namer.seeds(seeds), seeds, strict=True)]
        entries += [
            (f"metrics/{name}", n, None) for name, n in zip(namer.metrics(metrics), metrics, strict=True)
        ]
        entries += [(f"states/{name}", n, None) for name, n in zip(namer.states(states), states, strict=True)]
        held = tfoptimizers.held(self.stored, optimizers, self._owners(named, weights), info=self.info)
        entries += [(name, n, None) for name, n in held.names]
        unique = names.unique([name for name, _, _ in entries])
        return held, [(name, n, place) for name, (_, n, place) in zip(unique, entries, strict=True)]

    def _flavour(self, optimizers: Optimizers) -> str | None:
        graph, edges = self.stored.graph, set(self.stored.children(self.node))
        born = {tfoptimizers.flavour(self.stored, n) for n in optimizers.nodes}
        if len(born) == 1:
            return born.pop()
        if self.layers or "keras_api" in edges or any(is_numbered(edge) for edge in edges):
            return "tf_keras"
        below = {edge for n in graph.reach(self.node) for edge in self.stored.children(n)}
        return "keras" if below & {*KERAS3, "_kernel"} else None

    # ---- what there is ----

    def _variables(self, optimizers: Optimizers) -> dict[str, dict[int, Path]]:
        """`model`, `seeds`, `metrics`, `states` -> nodes with their paths, in the order of the model's layers."""
        doubled = {_DOUBLED} if "variables" in self.stored.children(self.node) else set()
        graph, stop = self.stored.graph, optimizers.nodes
        every = graph.reach(self.node, stop=stop, skip=doubled)
        paths = every | graph.reach(
            self.node, stop=stop, skip=_LISTS
        )  # attributes rather than lists of the same
        paths |= {n: path for n, path in self._only_trained(optimizers).items() if n not in paths}
        found: dict[str, dict[int, Path]] = {"model": {}, "seeds": {}, "metrics": {}, "states": {}}
        metrics = self._metrics()
        for n in self._ordered(paths, stop):
            path = paths[n]
            if self.stored.is_variable(n) and not (path and path[-1] in _IGNORED):
                found[self._sort(path, metrics)][n] = path
        return found

    def _metrics(self) -> set[int]:
        """Objects that the file calls metrics, and those that hold what a metric accumulates, and nothing else."""
        found = {n for n, layer in self.layers.items() if layer.is_metric}
        for n, node in enumerate(self.stored.graph.nodes):
            held = [
                (edge, self.stored.name(m)) for edge, m in node.children.items() if self.stored.is_variable(m)
            ]
            if held and all(edge == name and edge in _ACCUMULATORS for edge, name in held):
                found.add(n)
        return found

    def _sort(self, path: Path, metrics: set[int]) -> str:
        if set(path) & set(SEEDS):
            return "seeds"
        if owner_of_state(path) is not None:
            return "states"
        above = (self.stored.graph.at(path[:length], start=self.node) for length in range(1, len(path)))
        return "metrics" if "metrics" in path[:-1] or any(n in metrics for n in above) else "model"

    def _only_trained(self, optimizers: Optimizers) -> dict[int, Path]:
        """What Keras 3's optimizer was built with; some of it is reached by no other way."""
        if optimizers.own is None:
            return {}
        listed = tfslots.trained(self.stored, optimizers.own)
        edges = [edge for edge, n in self.stored.children(self.node).items() if n == optimizers.own]
        return {n: (*edges[:1], tfslots.TRAINED, str(i)) for i, n in listed.items()}

    def _ordered(self, paths: Mapping[int, Path], stop: frozenset[int]) -> list[int]:
        """In the model's own order where the file has it, then in the order of the attributes."""
        listed = [n for _, n in sorted(self.stored.listed(self.node, "variables").items())]
        walked = self.stored.graph.order(self.node, stop=stop, skip=_LISTS)
        return [n for n in dict.fromkeys([*listed, *walked, *paths]) if n in paths]

    def _owners(self, named: Mapping[int, str], paths: Mapping[int, Path]) -> list[Owner]:
        """In the order of training, and with whether they are trained, where the file says it."""
        listed = [n for _, n in sorted(self.stored.listed(self.node, "trainable_variables").items())]
        told = "trainable_variables" in self.stored.children(self.node)
        ordered = [n for n in dict.fromkeys([*listed, *named]) if n in named]
        sure, name = set(listed), self.stored.name
        return [
            Owner(
                n,
                keras2.Owner(named[n], name(n), self.stored.shape(n), n in sure or not told),
                member=str(n) if n in sure else paths[n][0],
            )
            for n in ordered
        ]

    def _left_out(self, kept: set[int]) -> Iterator[str]:
        """A sentence for what is in the checkpoint and no part of this model's training state."""
        graph = self.stored.graph
        raw = {self.stored.name(n) for n in kept}
        notes = []
        for n, path in graph.reach(0).items():
            twice = _DOUBLED in path and self.stored.name(n) in raw
            if (
                self.stored.is_variable(n)
                and n not in kept
                and path
                and path[-1] not in _IGNORED
                and not twice
            ):
                notes.append(
                    f"{'/'.join(path)} is stored beside the model and its optimizer: it is not restored"
                )
            notes += [
                f"{key} is no variable (a table, an iterator): it is not restored"
                for key in graph.nodes[n].others
            ]
        yield from notes[:_NOTES_LIMIT]
        if len(notes) > _NOTES_LIMIT:
            yield f"and {len(notes) - _NOTES_LIMIT} more like it"


def is_numbered(edge: str) -> bool:
    """Whether an edge is one by which Keras 2's models hold their layers: `layer-0`, `layer_with_weights-0`."""
    head, _, number = edge.partition("-")
    return head in ("layer", "layer_with_weights") and number.isdecimal()
