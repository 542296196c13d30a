"""Which variables Keras's own layers have, and where an archive puts them: being positional, it keeps no names.

A layer stores `vars/<n>` = its trainable, then its non-trainable variables, in the order in which `build` adds them
(keras.src.layers.* from 3.0.5 to 3.15.1, tf_keras.src.layers.*). Members of a list are addressed by class name, counted
(saving_lib._save_container_state).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resume import names

# Variables by class: `-name` is not trainable, `=name` is another layer's variable seen again,
# `name?key` is there if the config's `key` is truthy.
_CLASSES = {
    "Dense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D":
        "kernel bias?use_bias",
    "EinsumDense": "kernel bias?bias_axes",
    "LocallyConnected1D LocallyConnected2D": "kernel bias?use_bias",
    "SeparableConv1D SeparableConv2D": "depthwise_kernel pointwise_kernel bias?use_bias",
    "LSTMCell GRUCell SimpleRNNCell ConvLSTMCell": "kernel recurrent_kernel bias?use_bias",
    "Embedding": "embeddings",
    "ReversibleEmbedding": "embeddings reverse_embeddings?!tie_weights",
    "BatchNormalization SyncBatchNormalization": "gamma?scale beta?center -moving_mean -moving_variance"
        " -moving_stddev?renorm -renorm_mean?renorm -renorm_stddev?renorm",
    "LayerNormalization": "gamma?scale|rms_scaling beta?center&!rms_scaling",
    "GroupNormalization": "gamma?scale beta?center",
    "RMSNormalization": "scale",
    "Normalization": "-mean?!mean -variance?!mean -count?!mean",
    "SpectralNormalization": "=kernel -vector_u",
    "PReLU": "alpha",
    "Attention": "scale?use_scale concat_score_weight?concat",
    "AdditiveAttention": "scale?use_scale",
}  # fmt: skip
VARIABLES = {name: spec.split() for classes, spec in _CLASSES.items() for name in classes.split()}
CELLS = {"LSTM": "lstm_cell", "GRU": "gru_cell", "SimpleRNN": "simple_rnn_cell"} | {
    f"ConvLSTM{n}D": "conv_lstm_cell" for n in (1, 2, 3)
}
CELL_CLASSES = {
    "lstm_cell": "LSTMCell",
    "gru_cell": "GRUCell",
    "simple_rnn_cell": "SimpleRNNCell",
    "conv_lstm_cell": "ConvLSTMCell",
}
_BY_NAME = {
    names.snake_case(name): name for name in (*VARIABLES, *CELLS, "MultiHeadAttention", "Bidirectional")
}
_PROJECTIONS = {"query": "query_dense", "key": "key_dense", "gate": "gate_dense", "value": "value_dense"}


DEPENDENCIES = "_layer_checkpoint_dependencies"  # where Keras 2.12 to 2.14 have `layers`
_WAYS_LIMIT = 1024  # in which layers of unknown classes may be trained
_OPERATIONS = ("keras.src.ops", "keras.ops")  # on tensors: no layers


def class_named(layer: str) -> str:
    """The class of Keras that an automatic layer name stands for; "" for a name of a user's."""
    return _BY_NAME.get(names.split_number(layer)[0], "")


def variable_names(kind: str) -> frozenset[str]:
    """What a layer of Keras's own can call its variables; nothing for a class that is not known."""
    return frozenset(v.partition("?")[0].lstrip("-=") for v in VARIABLES.get(kind, ()))


def variables_of_size(kind: str, size: int) -> list[str]:
    """The variables of a layer of Keras's own that stores `size` of them; empty unless that can be but one list."""
    keys = sorted({key for v in VARIABLES.get(kind, ()) for key in re.findall(r"\w+", v.partition("?")[2])})
    found = set()
    for values in itertools.product((True, False), repeat=len(keys)):
        config: dict[str, Any] = dict(zip(keys, values, strict=True))
        config["score_mode"] = "concat" if config.get("concat") else "dot"
        present = tuple(v.partition("?")[0] for v in VARIABLES.get(kind, ()) if _present(v, config))
        if len(present) == size:
            found.add(present)
    return [name.lstrip("-") for name in found.pop()] if len(found) == 1 else []


def regular(sizes: Mapping[str, int], *, twice: bool | None = None) -> dict[str, str]:
    """Address of a layer -> the one that later versions give it, where no config tells what the members are.

    `twice`: up to 2.13 Keras 2 listed a layer once among all, once among those with weights, and counted both: a number
    is that of the members before it, and once more of those with weights. None: as the numbers themselves look.
    """
    twice = _counts_twice(sizes) if twice is None else twice
    out = {}
    for address in sizes:
        given = address.split("/")
        parts = list(given)
        for i in (i for i, part in enumerate(given[:-1]) if part == DEPENDENCIES):
            base, number = names.split_number(given[i + 1])
            members = _members(sizes, "/".join(given[: i + 1]))
            before = sum(own == base and n < number for own, n in map(names.split_number, members))
            parts[i : i + 2] = ["layers", _counted(base, number - before if twice else number)]
        out[address] = "/".join(parts)
    return out


def _counts_twice(sizes: Mapping[str, int]) -> bool:
    """Whether no two members with weights follow on each other, as they do where each counts once."""
    lists = {
        "/".join(parts[: i + 1])
        for parts in (address.split("/") for address in sizes)
        for i, part in enumerate(parts)
        if part == DEPENDENCIES
    }
    held = [{names.split_number(member) for member in _members(sizes, above)} for above in lists]
    return not any((base, number + 1) in members for members in held for base, number in members)


def _members(sizes: Mapping[str, int], above: str) -> set[str]:
    """Names of the members of a list that have weights, in themselves or below."""
    held = [a[len(above) + 1 :] for a, size in sizes.items() if size and a.startswith(f"{above}/")]
    return {address.split("/")[0] for address in held}


@dataclass(frozen=True)
class Stored:
    """One variable of an archive: where it lies, and what a live model would call it."""

    address: str
    place: str  # the address that Keras 2.13 and later give it
    path: str
    trainable: bool
    group: str | None = (
        None  # its layer, if that is of an unknown class: some of its last variables may not be trained
    )
    loose: bool = False  # found in no layer that the config has: its position among the others is not known


def variables(
    model_config: Mapping[str, Any], sizes: Mapping[str, int], *, twice: bool = False, every: bool = False
) -> tuple[list[Stored], list[str]]:
    """The variables of a serialised model in the model's order, and the layers whose variables have no known names.

    `sizes`: address of each layer in the archive -> how many variables it stores. `twice`: see `regular`. `every`: each
    layer of a model has a number, as in Keras 3, also one that was stored in another model before.
    """
    walk = _Walk(sizes, DEPENDENCIES if any(DEPENDENCIES in a for a in sizes) else "layers", twice, every)
    config = model_config.get("config")
    found = list(walk.model(config if isinstance(config, Mapping) else {}, _Spot("", "", "")))
    known = {stored.address for stored in found}
    there = regular(sizes, twice=twice)
    for address, size in sizes.items():
        loose = [f"{address}/vars/{n}" if address else f"vars/{n}" for n in range(size)]
        if not known.intersection(loose) and not address.startswith("optimizer") and size:
            walk.unknown.append(address or "the model itself")
            places = [a.replace(address, there[address], 1) if address else a for a in loose]
            found += [Stored(a, p, p, True, loose=True) for a, p in zip(loose, places, strict=True)]
    return found, walk.unknown


def trained(stored: Sequence[Stored]) -> Iterator[list[bool]]:
    """What may be trained of these variables, in every way that their layers' classes leave open.

    A layer of an unknown class keeps its trained variables first; nothing where positions are not known.
    """
    groups = {v.group: [w for w in stored if w.group == v.group] for v in stored if v.group and v.trainable}
    if any(v.loose for v in stored) or math.prod(len(g) + 1 for g in groups.values()) > _WAYS_LIMIT:
        return
    for counts in itertools.product(*(range(len(g), -1, -1) for g in groups.values())):
        out = {v.address for g, n in zip(groups.values(), counts, strict=True) for v in g[n:]}
        yield [v.trainable and v.address not in out for v in stored]


@dataclass(frozen=True)
class _Spot:
    """A layer on the way through a config: where the archive has it, where others would, what it is called."""

    address: str
    place: str
    path: str

    def to(self, address: str, place: str | None = None) -> _Spot:
        return _Spot(_join(self.address, address), _join(self.place, place or address), self.path)

    def called(self, name: object) -> _Spot:
        return _Spot(self.address, self.place, _join(self.path, str(name)))


def _join(parent: str, child: str) -> str:
    return f"{parent}/{child}" if parent else child


@dataclass
class _Walk:
    sizes: Mapping[str, int]
    members: str  # what the archive calls a model's list of layers
    twice: bool
    every: bool
    unknown: list[str] = field(default_factory=list)
    met: set[tuple[str, str]] = field(default_factory=set)  # (class, name) of the layers so far

    def model(self, config: Mapping[str, Any], spot: _Spot) -> Iterator[Stored]:
        if isinstance(config.get("layers"), list):
            yield from self._list(config["layers"], spot.to(self.members, "layers"))

    def _list(self, items: list[Any], spot: _Spot) -> Iterator[Stored]:
        layers = [
            item
            for item in items
            if isinstance(item, Mapping) and not str(item.get("module")).startswith(_OPERATIONS)
        ]
        yield from self._numbered(self._not_passed_over(layers, spot), spot)

    def _numbered(self, layers: list[Mapping[str, Any]], spot: _Spot) -> Iterator[Stored]:
        used: Counter[str] = Counter()
        counted: Counter[str] = Counter()
        for item in layers:
            base = names.snake_case(class_of(item))
            member = spot.to(_counted(base, used[base]), _counted(base, counted[base]))
            counted[base] += 1
            used[base] += 1 + (self.twice and self._has_weights(member.address))
            yield from self._layer(item, member)
            self.met.add(_identity(item))

    def _not_passed_over(self, layers: list[Mapping[str, Any]], spot: _Spot) -> list[Mapping[str, Any]]:
        """Keras 2 leaves a layer that it stored in another model before out of its numbers, but for its last versions.

        Which of the two a file does is seen where weights lie: at numbers that the new layers have.
        """
        if self.every:
            return layers
        new = [item for item in layers if _identity(item) not in self.met]
        if len(new) == len(layers):
            return layers
        bases = [names.snake_case(class_of(item)) for item in layers]
        numbers = [_counted(base, bases[:n].count(base)) for n, base in enumerate(bases)]
        free = {n for n, item in zip(numbers, layers, strict=True) if _identity(item) not in self.met}
        stored = {n for n in numbers if self._has_weights(_join(spot.address, n))}
        return layers if stored <= free else new

    def _has_weights(self, address: str) -> bool:
        return any(size and (a == address or a.startswith(f"{address}/")) for a, size in self.sizes.items())

    def _layer(self, item: Any, spot: _Spot, trained: bool | None = None) -> Iterator[Stored]:
        if not isinstance(item, Mapping) or not isinstance(item.get("config"), Mapping):
            return
        kind, config = class_of(item), item["config"]
        here = spot.called(config.get("name"))
        train = bool(config.get("trainable", True)) if trained is None else trained
        yield from self._own(kind, config, here, train)
        yield from self.model(config, here)
        for attribute, child, inherited in _children(kind, config, here.address, self.sizes):
            yield from self._layer(child, here.to(attribute), train if inherited else None)
        if isinstance(config.get("cells"), list):
            yield from self._list(config["cells"], here.to("cells"))

    def _own(self, kind: str, config: Mapping[str, Any], spot: _Spot, train: bool) -> Iterator[Stored]:
        size = self.sizes.get(spot.address, 0)
        if not size:
            return  # no variables, or a shared layer that is stored where it was met first
        expected = [v for v in VARIABLES.get(kind, []) if _present(v, config)]
        group = spot.address if len(expected) != size else None
        if group is not None:
            self.unknown.append(spot.path)
            expected = [f"vars/{n}" for n in range(size)]
        for n, name in enumerate(v.partition("?")[0] for v in expected):
            if not name.startswith("="):
                there = spot.to(f"vars/{n}").called(name.lstrip("-"))
                yield Stored(
                    there.address, there.place, there.path, train and not name.startswith("-"), group
                )


def _identity(item: Mapping[str, Any]) -> tuple[str, str]:
    config = item.get("config")
    return class_of(item), str(config.get("name") if isinstance(config, Mapping) else item.get("name"))


def class_of(item: Mapping[str, Any]) -> str:
    """A serialised object's class without its package, and without TensorFlow's version: `BatchNormalizationV1`."""
    name = str(item.get("class_name")).rpartition(">")[2]
    plain = re.sub(r"V[12]$", "", name)
    return plain if plain in VARIABLES or plain in CELLS else name


def _counted(base: str, number: int) -> str:
    return f"{base}_{number}" if number else base


def _present(variable: str, config: Mapping[str, Any]) -> bool:
    _, _, condition = variable.partition("?")
    if condition == "concat":
        return config.get("score_mode") == "concat"
    if "|" in condition:
        return any(config.get(key) for key in condition.split("|"))
    return all(
        not config.get(key[1:]) if key.startswith("!") else bool(config.get(key))
        for key in filter(None, condition.split("&"))
    )


def _children(
    kind: str, config: Mapping[str, Any], address: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, Any, bool]]:
    """(attribute, serialised layer, whether it has its parent's `trainable`) of the layers inside a layer."""
    if kind in CELLS:
        cell = CELLS[kind]
        yield "cell", {"class_name": CELL_CLASSES[cell], "config": {**config, "name": cell}}, True
    if kind in ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention"):
        for name, attribute in {**_PROJECTIONS, "attention_output": "output_dense"}.items():
            public = f"{address}/{attribute}" in sizes
            projection = {"name": name, "bias_axes": config.get("use_bias", True)}
            yield (
                attribute if public else f"_{attribute}",
                {"class_name": "EinsumDense", "config": projection},
                True,
            )
    if kind == "Bidirectional":
        yield "forward_layer", config.get("layer"), False
        yield "backward_layer", config.get("backward_layer"), False
    elif "layer" in config:
        yield "layer", config["layer"], False
    if "cell" in config:
        yield "cell", config["cell"], False
