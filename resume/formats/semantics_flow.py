"""What flows through a model's graph, from its inputs to its loss: where masks part between Keras 2 and Keras 3.

Layers of one's own are taken to use a mask and to hand none on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resume.formats import translate_layers
from resume.formats.semantics_tensors import RECURRENT, Item, Mask, Tensor, handed_on, rank_of

THE_LOSS = "the loss"
_CONTEXT = translate_layers.Context()
_USING = RECURRENT | {
    "Attention", "AdditiveAttention", "MultiHeadAttention", "GlobalAveragePooling1D", "Softmax", "BatchNormalization",
}  # fmt: skip


@dataclass
class Flow:
    """By layer: the ranks of what it is given; where masks part, and who uses them; who no longer gets one."""

    ranks: dict[str, set[int | None]] = field(default_factory=dict)
    parted: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)  # (kind, layer) -> users
    unmasked: list[str] = field(default_factory=list)

    def use(self, tensor: Tensor, user: str) -> None:
        for cause in sorted(tensor.causes):
            self.parted.setdefault(cause, {})[user] = None

    @property
    def holds_images(self) -> bool:
        return any((rank or 0) > 3 for ranks in self.ranks.values() for rank in ranks)


def trace(model_config: object, *, trained: bool = True) -> Flow:
    """Follow a model from its inputs to its outputs, and to its loss if it is trained."""
    flow = Flow()
    if isinstance(model_config, Mapping) and "class_name" in model_config:
        for tensor in _Walk(flow).layer(model_config, [], {}, ()):
            if trained:
                flow.use(tensor, THE_LOSS)
    return flow


def name_of(item: Item) -> str:
    config = item.get("config")
    inner = config.get("name") if isinstance(config, Mapping) else None
    return str(item.get("name") or inner or item.get("class_name"))


def arguments(item: Item) -> Iterator[Mapping[str, Any]]:
    """What each call of a layer in a graph was given beside its inputs."""
    for node in item.get("inbound_nodes") or []:
        yield _arguments(node)


# ---- a graph ----


def _arguments(node: Any) -> Mapping[str, Any]:
    """A call of Keras 2 repeats its arguments with every input; the first are read."""
    found = node.get("kwargs") if isinstance(node, Mapping) else None
    if isinstance(found, Mapping):
        return found
    found = next((leaf[3] for leaf in _leaves(node) if len(leaf) > 3 and leaf[3]), None)
    return found if isinstance(found, Mapping) else {}


def _leaves(node: Any) -> Iterator[Sequence[Any]]:
    """Every [layer, call, tensor, arguments] in any nesting."""
    if isinstance(node, list | tuple) and len(node) in (3, 4) and isinstance(node[0], str):
        if all(isinstance(number, int) for number in node[1:3]):
            yield node
    elif isinstance(node, list | tuple | Mapping):
        for item in node.values() if isinstance(node, Mapping) else node:
            yield from _leaves(item)


def _all_leaves(node: Any) -> Iterator[Sequence[Any]]:
    """Those among the arguments of calls as well."""
    for leaf in _leaves(node):
        yield leaf
        yield from _leaves(leaf[3] if len(leaf) > 3 else None)


@dataclass
class _Graph:
    """A functional model's calls. Keras counts them on from call to call of the model itself: `first` is its own."""

    config: Mapping[str, Any]
    made: dict[tuple[str, int], list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.items = {name_of(item): item for item in self.config["layers"]}
        self.first: dict[str, int] = {}
        nodes = [item.get("inbound_nodes") for item in self.items.values()]
        for leaf in _all_leaves([nodes, self.config["input_layers"], self.config["output_layers"]]):
            self.first[leaf[0]] = min(leaf[1], self.first.get(leaf[0], leaf[1]))

    def is_made(self, leaf: Sequence[Any]) -> bool:
        return leaf[0] not in self.items or self._call(leaf) in self.made

    def tensors(self, node: Any) -> list[Tensor]:
        return [self._tensor(leaf) for leaf in _leaves(node) if leaf[0] in self.items]

    def _call(self, leaf: Sequence[Any]) -> tuple[str, int]:
        return leaf[0], leaf[1] - self.first.get(leaf[0], 0)

    def _tensor(self, leaf: Sequence[Any]) -> Tensor:
        found = self.made.get(self._call(leaf), [])
        return found[leaf[2]] if leaf[2] < len(found) else Tensor((id(self), *leaf[:3]))


@dataclass
class _Walk:
    flow: Flow

    def layer(
        self, item: Item, given: list[Tensor], kwargs: Mapping[str, Any], at: tuple[Any, ...]
    ) -> list[Tensor]:
        """What a layer, or a model, makes of its inputs. `kwargs`: with tensors in the place of references."""
        config = item.get("config")
        members = config if isinstance(config, list) else None
        if isinstance(config, Mapping):
            if {"layers", "input_layers", "output_layers"} <= config.keys():
                return self._functional(config, given, at)
            members = config.get("layers")
        if isinstance(members, list) and translate_layers.bare(item) == "Sequential":
            return self._sequential(members, given, at)
        return self._single(item, given, kwargs, at)

    def _sequential(self, members: list[Item], given: list[Tensor], at: tuple[Any, ...]) -> list[Tensor]:
        tensors = given
        for number, member in enumerate(members):
            tensors = self.layer(member, tensors or _entry(member, at), {}, (*at, number))[:1]
        return tensors

    def _functional(
        self, config: Mapping[str, Any], given: list[Tensor], at: tuple[Any, ...]
    ) -> list[Tensor]:
        graph = _Graph(config)
        for number, leaf in enumerate(_leaves(config["input_layers"])):
            entry = graph.items.get(leaf[0], {})
            tensor = given[number] if number < len(given) else _entry(entry, (*at, leaf[0]))[0]
            graph.made[leaf[0], 0] = [_declared(tensor, entry)]
        waiting = [
            (item, number, node)
            for item in config["layers"]
            for number, node in enumerate(item.get("inbound_nodes") or [])
        ]
        before = len(waiting) + 1
        while len(waiting) < before:  # layers need not stand in the order of their calls
            before, calls, waiting = len(waiting), waiting, []
            for item, number, node in calls:
                if all(map(graph.is_made, _all_leaves(node))):
                    self._call(graph, item, number, node, at)
                else:
                    waiting.append((item, number, node))
        return graph.tensors(config["output_layers"])

    def _call(self, graph: _Graph, item: Item, number: int, node: Any, at: tuple[Any, ...]) -> None:
        name = name_of(item)
        kwargs = {
            key: graph.tensors(value) or value for key, value in _arguments(node).items() if value is not None
        }
        graph.made[name, number] = self.layer(item, graph.tensors(node), kwargs, (*at, name, number))

    def _single(
        self, item: Item, given: list[Tensor], kwargs: Mapping[str, Any], at: tuple[Any, ...]
    ) -> list[Tensor]:
        kind, name = translate_layers.renamed(translate_layers.bare(item)), name_of(item)
        own = translate_layers.is_own(item, _CONTEXT)
        config = item["config"] if isinstance(item.get("config"), Mapping) else {}
        given = [_masked(_declared(tensor, item), kwargs) for tensor in given]
        self.flow.ranks.setdefault(name, set()).add(given[0].rank if given else None)
        self._use(kind if own else "", name, config, given, kwargs)
        if not own or not given:
            return [Tensor(at)]
        if kind == "TimeDistributed" and isinstance(config.get("layer"), Mapping):
            return [self._distributed(name, config["layer"], given[0], at)]
        old = handed_on(kind, config, given, [tensor.old for tensor in given], in_keras_3=False)
        new = handed_on(kind, config, given, [tensor.new for tensor in given], in_keras_3=True)
        parts = old != handed_on(kind, config, given, [tensor.old for tensor in given], in_keras_3=True)
        made = _parted(
            Tensor(at, rank_of(kind, config, given), old, new), given, {(kind, name)} if parts else set()
        )
        states = [Tensor((*at, number)) for number in range(1, 5)]
        return [made, *states] if kind in RECURRENT else [made]

    def _use(
        self, kind: str, name: str, config: Item, given: list[Tensor], kwargs: Mapping[str, Any]
    ) -> None:
        """Who looks at masks. Keras 3 looks for `sequence_mask` where a call has tensors in two arguments."""
        if kind in RECURRENT and "mask" not in kwargs and (len(given) > 1 or kwargs.get("initial_state")):
            if given[0].old is not None:
                self.flow.unmasked.append(name)
            return
        if kind == "BatchNormalization" and config.get("trainable") is False:
            return
        if kind in _USING or not kind:
            further = [value for key, value in kwargs.items() if key in ("value", "key") or not kind]
            tensors = [tensor for value in further if isinstance(value, list) for tensor in value]
            for tensor in (*given, *tensors):
                if isinstance(tensor, Tensor):
                    self.flow.use(tensor, name)

    def _distributed(self, name: str, layer: Item, given: Tensor, at: tuple[Any, ...]) -> Tensor:
        """Keras 2 hands on what the layer in it does, or else its input's; Keras 3 its input's, whatever is in it."""
        step = replace(given, rank=given.rank - 1 if given.rank else None)
        inner = (self.layer(layer, [step], {}, (*at, "layer")) or [Tensor(at)])[0]
        old = inner.old
        if old is None and given.old is not None:
            old = given.old if given.old.rank in (2, None) else Mask(("any", given.old), 2)
        made = Tensor(at, inner.rank + 1 if inner.rank else None, old, given.new)
        return _parted(made, [given], {("TimeDistributed", name)} if old != given.old else set())


def _entry(item: Item, at: tuple[Any, ...]) -> list[Tensor]:
    return [_declared(Tensor((*at, "input")), item)]


def _declared(tensor: Tensor, item: Item) -> Tensor:
    """With the rank that a layer says it takes, if nothing else tells."""
    config = item.get("config")
    found = config if isinstance(config, Mapping) else {}
    shape = found.get("batch_input_shape") or found.get("batch_shape")
    if tensor.rank is not None or not isinstance(shape, list | tuple):
        return tensor
    return replace(tensor, rank=len(shape))


def _masked(tensor: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    """A mask that is an argument of the call takes the place of the one that came along."""
    if "mask" not in kwargs:
        return tensor
    mask = Mask(("argument", str(kwargs["mask"])))
    return replace(tensor, old=mask, new=mask, causes=frozenset())


def _parted(made: Tensor, given: Sequence[Tensor], own: set[tuple[str, str]]) -> Tensor:
    if made.old == made.new:
        return made
    return replace(made, causes=frozenset(own).union(*(tensor.causes for tensor in given)))
