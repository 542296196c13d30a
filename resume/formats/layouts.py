"""Where Keras 3 puts the variables of its layers and optimizers: what a `.keras` archive, being positional, omits.

A layer stores `vars/<n>` = its trainable, then its non-trainable variables, in the order in which `build` adds them
(keras.src.layers.*); an optimizer `vars/<n>` = its variables in the order of `__init__` and `build`
(keras.src.optimizers.*, compared between 3.0.5, 3.3.3, 3.6.0, 3.8.0, 3.9.2, 3.10.0, 3.12.0 and 3.15.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resume import names
from resume.state import OptimizerInfo

# Variables by class: `-name` is not trainable, `=name` is another layer's variable seen again,
# `name?key` is there if the config's `key` is truthy.
_CLASSES = {
    "Dense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D":
        "kernel bias?use_bias",
    "EinsumDense": "kernel bias?bias_axes",
    "SeparableConv1D SeparableConv2D": "depthwise_kernel pointwise_kernel bias?use_bias",
    "LSTMCell GRUCell SimpleRNNCell ConvLSTMCell": "kernel recurrent_kernel bias?use_bias",
    "Embedding": "embeddings",
    "ReversibleEmbedding": "embeddings reverse_embeddings?!tie_weights",
    "BatchNormalization": "gamma?scale beta?center -moving_mean -moving_variance"
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
_VARIABLES = {name: spec.split() for classes, spec in _CLASSES.items() for name in classes.split()}
_CELLS = {"LSTM": "lstm_cell", "GRU": "gru_cell", "SimpleRNN": "simple_rnn_cell"} | {
    f"ConvLSTM{n}D": "conv_lstm_cell" for n in (1, 2, 3)
}
_CELL_CLASSES = {
    "lstm_cell": "LSTMCell",
    "gru_cell": "GRUCell",
    "simple_rnn_cell": "SimpleRNNCell",
    "conv_lstm_cell": "ConvLSTMCell",
}
_PROJECTIONS = {"query": "query_dense", "key": "key_dense", "gate": "gate_dense", "value": "value_dense"}

# A LossScaleOptimizer's own variables, in its order.
LOSS_SCALE = ("iteration", "learning_rate", "step_counter", "dynamic_scale")
SCALARS = frozenset(LOSS_SCALE)
_PAIRS = {
    **dict.fromkeys(("Adam", "AdamW", "Nadam", "Lamb", "ScheduleFreeAdamW"), ("momentum", "velocity")),
    "Adamax": ("momentum", "norm"),
    "Adadelta": ("accumulated_grad", "accumulated_delta_var"),
    "Ftrl": ("accumulator", "linear"),
    "Adagrad": ("accumulator",),
    "Lion": ("momentum",),
}
# Roles that need not have a slot for every trained variable.
_GAPS = {"Muon": ("velocity",), "Adafactor": ("r", "c")}
_OPTIMIZERS = (*_PAIRS, "SGD", "RMSprop", "Adafactor", "Muon", "LossScaleOptimizer", "MultiOptimizer")


def optimizer_class(short: str) -> str:
    """`adam`, as given to compile() -> `Adam`; an unknown name as it is."""
    return {name.lower(): name for name in _OPTIMIZERS}.get(short.lower(), short)


def roles(info: OptimizerInfo) -> tuple[str, ...]:
    """The roles that an optimizer must have slots in, by its class and config; of an unknown class, those of any."""
    return (*_own_roles(info), *_base_roles(info))


def _own_roles(info: OptimizerInfo) -> tuple[str, ...]:
    config = info.config
    match info.class_name:
        case "SGD":
            return ("momentum",) if config.get("momentum") else ()
        case "RMSprop":
            momentum = ("momentum",) if config.get("momentum") else ()
            return ("velocity", *momentum, *(("average_gradient",) if config.get("centered") else ()))
        case "Adafactor":
            return ("r", "c", "velocity")
        case "Muon":
            return ("momentum",)
        case kind if kind in _PAIRS:
            return (*_PAIRS[kind], *(("velocity_hat",) if config.get("amsgrad") else ()))
    return ()


def _base_roles(info: OptimizerInfo) -> tuple[str, ...]:
    keys = {"average": "use_ema", "gradient_accumulator": "gradient_accumulation_steps"}
    return tuple(role for role, key in keys.items() if info.config.get(key))


def leaves_gaps(info: OptimizerInfo, role: str) -> bool:
    """Whether an optimizer may have slots of this role for some trained variables only."""
    return info.class_name == "MultiOptimizer" or role in _GAPS.get(info.class_name, ())


def scheme(model_config: Mapping[str, Any], paths: Iterable[str]) -> names.Scheme:
    """How a file's variable paths become canonical names.

    A subclassed model's config names no layers: there, names built from Keras's own layer classes count as automatic.
    """
    found = names.Scheme.of(model_config)
    if found.places:
        return found
    bases = {names.snake_case(name) for name in (*_VARIABLES, *_CELLS, "MultiHeadAttention", "Bidirectional")}
    parts = {part for path in paths for part in path.split("/")[:-1]}
    return names.Scheme(found.root, frozenset(p for p in parts if names.split_number(p)[0] in bases))


def scalar_names(paths: Sequence[str], info: OptimizerInfo | None) -> list[str]:
    """Canonical names for an optimizer's variables that are no slots, by their paths in a `.h5` file.

    The own variables of wrapping optimizers are told from the inner ones' by the wrappers' names.
    """
    inner = info.inner if info else None
    loss_scale = info.config.get("name") if info and inner is not info else None
    multi = inner.config.get("name") if inner and inner.class_name == "MultiOptimizer" else None
    owners: list[str] = []
    return [_scalar(path.split("/"), loss_scale, multi, owners, inner) for path in paths]


def _scalar(
    parts: list[str], loss_scale: Any, multi: Any, owners: list[str], inner: OptimizerInfo | None
) -> str:
    if loss_scale is not None and parts[0] == loss_scale:
        if len(parts) == 2 and parts[1] in LOSS_SCALE:
            return f"optimizer/loss_scale/{parts[1]}"
        parts = parts[1:]
    leaf = parts[-1]
    if multi is not None and parts[0] == multi and len(parts) > 2:
        parts = parts[1:]
    if multi is not None and parts[0] != multi:
        if parts[0] not in owners:
            owners.append(parts[0])
        return f"optimizer/inner/{owners.index(parts[0])}/{leaf}"
    nadam = inner is not None and inner.class_name == "Nadam"
    return (
        "optimizer/u_product" if nadam and names.split_number(leaf)[0] == "variable" else f"optimizer/{leaf}"
    )


# ---- layers of a .keras archive ----


@dataclass(frozen=True)
class Stored:
    """One variable of an archive: its address, its path as a live model would have it, and whether it is trained."""

    address: str
    path: str
    trainable: bool


def variables(model_config: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[list[Stored], list[str]]:
    """The variables of a serialised model in the model's order, and the layers whose variables have no known names.

    `sizes`: address of each layer in the archive -> how many variables it stores.
    """
    unknown: list[str] = []
    config = model_config.get("config")
    root = config if isinstance(config, Mapping) else {}
    found = list(_container(root.get("layers"), "layers", "", sizes, unknown))
    known = {stored.address for stored in found}
    for address, size in sizes.items():
        loose = [f"{address}/vars/{n}" if address else f"vars/{n}" for n in range(size)]
        if not known.intersection(loose) and not address.startswith("optimizer") and size:
            unknown.append(address or "the model itself")
            found += [Stored(a, a, True) for a in loose]
    return found, unknown


def _container(
    items: Any, address: str, path: str, sizes: Mapping[str, int], unknown: list[str]
) -> Iterator[Stored]:
    """Members of a container are addressed by class name, counted (saving_lib._save_container_state)."""
    used: Counter[str] = Counter()
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, Mapping) or str(item.get("module")).startswith(
            ("keras.src.ops", "keras.ops")
        ):
            continue  # an operation on tensors, not a layer
        base = names.snake_case(str(item.get("class_name")))
        member = f"{address}/{base}_{used[base]}" if used[base] else f"{address}/{base}"
        used[base] += 1
        yield from _layer(item, member, path, sizes, unknown)


def _layer(
    item: Any,
    address: str,
    path: str,
    sizes: Mapping[str, int],
    unknown: list[str],
    trained: bool | None = None,
) -> Iterator[Stored]:
    if not isinstance(item, Mapping) or not isinstance(item.get("config"), Mapping):
        return
    kind, config = str(item.get("class_name")), item["config"]
    here = f"{path}/{config.get('name')}" if path else str(config.get("name"))
    train = bool(config.get("trainable", True)) if trained is None else trained
    yield from _own(kind, config, address, here, train, sizes, unknown)
    if isinstance(config.get("layers"), list):
        yield from _container(config["layers"], f"{address}/layers", here, sizes, unknown)
    for attribute, child, inherited in _children(kind, config, address, sizes):
        yield from _layer(child, f"{address}/{attribute}", here, sizes, unknown, train if inherited else None)
    if isinstance(config.get("cells"), list):
        yield from _container(config["cells"], f"{address}/cells", here, sizes, unknown)


def _own(
    kind: str,
    config: Mapping[str, Any],
    address: str,
    path: str,
    train: bool,
    sizes: Mapping[str, int],
    unknown: list[str],
) -> Iterator[Stored]:
    size = sizes.get(address, 0)
    if not size:
        return  # no variables, or a shared layer that is stored where it was met first
    expected = [v for v in _VARIABLES.get(kind, []) if _present(v, config)]
    if len(expected) != size:
        unknown.append(path)
        expected = [f"vars/{n}" for n in range(size)]
    for n, name in enumerate(v.partition("?")[0] for v in expected):
        if not name.startswith("="):
            trainable = train and not name.startswith("-")
            yield Stored(f"{address}/vars/{n}", f"{path}/{name.lstrip('-')}", trainable)


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
    if kind in _CELLS:
        cell = _CELLS[kind]
        yield "cell", {"class_name": _CELL_CLASSES[cell], "config": {**config, "name": cell}}, True
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


# ---- optimizers of a .keras archive ----

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Owner:
    """A trained variable: canonical name, all that its path may be matched by, shape."""

    name: str
    path: str
    shape: Shape


def optimizer_names(
    info: OptimizerInfo, owners: Sequence[Owner], shapes: Sequence[Shape], *, keras_version: tuple[int, int]
) -> list[str] | None:
    """Canonical names of an optimizer's variables in Keras's order; None unless every shape is as derived.

    Before 3.10 (measured: up to 3.9.2) Nadam's product came before its slots, and averages and gradient accumulators
    alternated. Muon used to treat variables of rank 3 like those of rank 2.
    """
    early = keras_version < (3, 10)
    start = scalars(info) + _base(info, owners, early=early)
    if info.class_name == "Muon":
        candidates = [_muon(info.config, owners, ranks=ranks) for ranks in ((2,), (2, 3))]
    else:
        candidates = [_slots(info, owners, early=early)]
    for slots in candidates:
        if slots is not None and [shape for _, shape in start + slots] == list(shapes):
            return [name for name, _ in start + slots]
    return None


def scalars(info: OptimizerInfo) -> list[tuple[str, Shape]]:
    """What every optimizer has first: the counter, and the learning rate unless a schedule gives it."""
    schedule = isinstance(info.config.get("learning_rate"), Mapping)
    return [(f"optimizer/{name}", ()) for name in ("iteration", "learning_rate")[: 1 if schedule else 2]]


def _each(owners: Sequence[Owner], *roles: str) -> list[tuple[str, Shape]]:
    return [(f"optimizer/{role}/{owner.name}", owner.shape) for owner in owners for role in roles]


def _base(info: OptimizerInfo, owners: Sequence[Owner], *, early: bool) -> list[tuple[str, Shape]]:
    roles = _base_roles(info)
    if early:  # one variable at a time
        return _each(owners, *roles) if roles else []
    return [entry for role in roles for entry in _each(owners, role)]


def _slots(info: OptimizerInfo, owners: Sequence[Owner], *, early: bool) -> list[tuple[str, Shape]] | None:
    config = info.config
    match info.class_name:
        case "SGD" | "RMSprop":
            return [entry for role in _own_roles(info) for entry in _each(owners, role)]
        case "Nadam":
            product: list[tuple[str, Shape]] = [("optimizer/u_product", ())]
            pairs = _each(owners, *_PAIRS["Nadam"])
            return product + pairs if early else pairs + product
        case "Adafactor":
            return [entry for owner in owners for entry in _factors(owner)]
        case kind if kind in _PAIRS:
            hats = _each(owners, "velocity_hat") if config.get("amsgrad") else []
            return _each(owners, *_PAIRS[kind]) + hats
    return None


def _factors(owner: Owner) -> list[tuple[str, Shape]]:
    """Row and column factors of the last two dimensions; below rank 2 Keras keeps a scalar that is never used."""
    shape = owner.shape
    rows, columns = (shape[:-1], (*shape[:-2], shape[-1])) if len(shape) > 1 else ((), ())
    factors = [(f"optimizer/r/{owner.name}", rows), (f"optimizer/c/{owner.name}", columns)]
    return [*factors, (f"optimizer/velocity/{owner.name}", shape)]


def _muon(
    config: Mapping[str, Any], owners: Sequence[Owner], *, ranks: tuple[int, ...]
) -> list[tuple[str, Shape]] | None:
    # exclude_layers are regular expressions out of the file: they are not run here.
    if config.get("exclude_layers"):
        return None
    embeddings = config.get("exclude_embeddings", True)
    out: list[tuple[str, Shape]] = []
    for owner in owners:
        adam = len(owner.shape) not in ranks or (embeddings and "embedding" in owner.path.lower())
        out += _each([owner], "momentum", "velocity") if adam else _each([owner], "momentum")
    return out
