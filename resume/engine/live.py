"""The live training state as a flat mapping: canonical name -> variable."""

from __future__ import annotations

import ctypes
import functools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from resume import names
from resume.engine import flavour, keras2, reach, rng, slots
from resume.errors import UsageError
from resume.state import REPLICA, STORABLE, Spec

Variable = Any  # keras.Variable or tf.Variable: both have assign() and numpy()

_SCHEMES: weakref.WeakKeyDictionary[keras.Model, names.Scheme] = weakref.WeakKeyDictionary()
BESIDE = "beside/"
# Tuples made once: each snapshot asks thousands of times.
_MANY: Any = (list, tuple, dict)
_ONE: Any = (tf.Variable, keras.Variable)


@dataclass(frozen=True)
class Live:
    """Variables by canonical name, and the names that they carry in this process."""

    variables: Mapping[str, Variable]
    raw_names: Mapping[str, str]


def of(model: keras.Model) -> Live:
    """Every variable that influences the next step: model, seeds, optimizer, metrics, global generators.

    Raises ValueError when the optimizer is not built yet.
    """
    led = reach.of(model)
    named = (_of_keras2 if flavour.of(model) == flavour.TF_KERAS else _of_keras3)(model, led)
    named += _objects(led, known=[v for _, v in named])
    named = _with_constants(model, [*named, *rng.variables().items()])
    unique = names.unique([name for name, _ in named])
    variables = {name: variable for name, (_, variable) in zip(unique, named, strict=True)}
    variables |= {f"{name}{REPLICA}{i}": copy for name, v in variables.items() for i, copy in _copies(v)}
    return Live(variables, {name: slots.path(v) for name, v in variables.items()})


@dataclass(frozen=True, eq=False)
class _Weighted:
    """A lookup layer's weights: it computes with a constant made of them, which each new value has made again."""

    layer: Any
    _value: Variable

    @property
    def name(self) -> str:
        return str(self._value.name)

    @property
    def shape(self) -> tf.TensorShape:
        return self._value.shape

    @property
    def dtype(self) -> tf.DType:
        return self._value.dtype

    def numpy(self) -> np.ndarray[Any, Any]:
        return np.asarray(self._value.numpy())

    def assign(self, value: np.ndarray[Any, Any]) -> None:
        self._value.assign(value)
        self.layer.idf_weights_const = self._value.value()


def _with_constants(model: Any, named: Iterable[tuple[str, Variable]]) -> list[tuple[str, Variable]]:
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "idf_weights_const")]
    owners = {id(layer.idf_weights): layer for layer in layers}
    return [(name, _Weighted(owners[id(v)], v) if id(v) in owners else v) for name, v in named]


def _of_keras3(model: keras.Model, led: reach.Reach) -> list[tuple[str, Variable]]:
    named = list(_model(model, led))
    owners = {id(v): name.removeprefix("model/") for name, v in named if name.startswith("model/")}
    optimizer = optimizer_of(model)
    if optimizer is not None:
        named += slots.named(optimizer, owners, prefix="optimizer/")
    for path, other in led.optimizers.items():
        named += slots.named(other, owners, prefix=f"{BESIDE}{path}/")
    return named + _metrics(model, known={id(v) for _, v in named})


def _objects(led: reach.Reach, *, known: Iterable[Variable]) -> list[tuple[str, Variable]]:
    """Of losses, schedules and the user's own objects: what nothing else has named."""
    generators = rng.variables().values()
    ids = {id(one) for v in (*known, *generators) for one in (v, getattr(v, "_value", v))}
    return [(f"objects/{path}", v) for path, v in led.variables if id(v) not in ids]


def _of_keras2(model: Any, led: reach.Reach) -> list[tuple[str, Variable]]:
    weights = keras2.weights(model)
    named = [(f"model/{name}", v) for name, v in weights]
    seeds = list(keras2.seeds(model))
    auto = names.automatic((type(layer).__name__, layer.name) for layer in model._flatten_layers())
    paths = names.canonical([path for path, _ in seeds], root=model.name, auto=auto)
    named += [(f"seeds/{path}", v) for path, (_, v) in zip(paths, seeds, strict=True)]
    named += [(f"states/{path}", v) for path, v in keras2.states(model)]
    if optimizer_of(model) is not None:
        named += keras2.optimizer_variables(model.optimizer, weights)
    for path, other in led.optimizers.items():
        found = keras2.optimizer_variables(other, weights)
        named += [(f"{BESIDE}{path}/{name.removeprefix('optimizer/')}", v) for name, v in found]
    known = {id(v) for _, v in named}
    return named + [(f"metrics/{path}", v) for path, v in keras2.metrics(model) if id(v) not in known]


def _copies(variable: Variable) -> Iterator[tuple[int, Variable]]:
    """Each device's copy of a mirrored variable. Copies may differ: BatchNorm's statistics do, and metrics.

    Reading the variable gives the first copy, or the copies' sum; each device goes on from its own.
    """
    copies: Any = getattr(getattr(variable, "_value", variable), "values", ())
    if len(copies) > 1:
        yield from enumerate(copies)


def diverged(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays without those copies that say nothing beyond the variable's own value."""
    groups: dict[str, set[bytes]] = {}
    for name, array in arrays.items():
        groups.setdefault(name.partition(REPLICA)[0], set()).add(array.tobytes())
    return {n: a for n, a in arrays.items() if REPLICA not in n or len(groups[n.partition(REPLICA)[0]]) > 1}


def optimizer_of(model: keras.Model) -> Any:
    """The model's optimizer; None for a model that was never compiled, which lacks the attribute."""
    return getattr(model, "optimizer", None)


def value(variable: Variable) -> np.ndarray[Any, Any]:
    """A copy of the variable's value; shape and dtype as the variable has them."""
    return np.array(variable.numpy())


def reference(variable: Variable) -> tf.Tensor:
    """The variable's value, not copied: while this tensor is held, an update of the variable is written elsewhere.

    (A variable that is updated sparsely copies itself here and now; one that is spread over devices is gathered.)
    """
    inner: Any = getattr(variable, "_value", variable)
    return inner.read_value() if is_distributed(variable) else inner.value()


def resource(variable: Variable) -> Any | None:
    """TensorFlow's own variable that this one is, or has inside; None where it is spread over devices, or user-made."""
    inner: Any = getattr(variable, "_value", variable)
    return inner if type(inner).__name__ == "ResourceVariable" else None


def view(variable: Variable) -> np.ndarray[Any, Any]:
    """The variable's value, to be looked at and not to be kept: on a CPU these are the variable's own bytes."""
    return on_host(reference(variable))


def on_host(tensor: tf.Tensor) -> np.ndarray[Any, Any]:
    """Not `numpy()`, which copies what is on the host already."""
    return np.asarray(tensor._numpy())


def spec(value: tf.Tensor | np.ndarray[Any, Any]) -> Spec:
    """Shape and dtype; nothing is brought to the host, and no digest made."""
    return Spec(_dtype_name(value.dtype), tuple(value.shape))


@functools.cache
def _dtype_name(dtype: Any) -> str:
    return str(np.dtype(dtype.as_numpy_dtype if isinstance(dtype, tf.DType) else dtype).name)


def filled(spec: Spec, fill: Callable[[np.ndarray[Any, Any]], None]) -> tf.Tensor:
    """A tensor on the host, whose memory is given to `fill` as uint8 while nobody else has it.

    From a numpy array TensorFlow makes one by copying it twice, each time into fresh pages.
    """
    with tf.device("/CPU:0"):
        tensor = tf.raw_ops.Empty(shape=spec.shape, dtype=spec.dtype, init=False)
    memory: Any = (ctypes.c_uint8 * spec.nbytes).from_address(tensor._numpy().ctypes.data)
    fill(np.frombuffer(memory, np.uint8))
    return tensor


def is_distributed(variable: Variable) -> bool:
    return isinstance(getattr(variable, "_value", variable), tf.distribute.DistributedValues)


def untrained(model: keras.Model, live: Live) -> frozenset[str]:
    """Names of the model's variables that no training step is expected to change.

    Those that are not trainable and lie beside none that is: BatchNorm's statistics move with its scale.
    """
    trainable = {id(v) for v in model.trainable_weights}
    held = {name: id(v) in trainable for name, v in live.variables.items() if name.startswith("model/")}
    moving = {name.rpartition("/")[0] for name, trained in held.items() if trained}
    return frozenset(name for name in held if name.rpartition("/")[0] not in moving)


def demand_storable(model: keras.Model) -> None:
    """Raise UsageError for a variable that no checkpoint can hold: before it is trained."""
    for name, variable in of(model).variables.items():
        dtype = tf.as_dtype(variable.dtype).name
        if dtype not in STORABLE:
            raise UsageError(
                f"{name}: a variable of dtype {dtype}, which no checkpoint can hold. Give it another dtype, or keep "
                "what it holds in a constant (text: in a lookup layer)."
            )


def nbytes(model: keras.Model) -> int:
    """Bytes of all variables that a checkpoint of this model holds."""
    return sum(
        math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
        for variable in of(model).variables.values()
    )


def epoch_metrics(live: Live) -> dict[str, Variable]:
    """The accumulators, which exist only once Keras has built them, and which `fit` resets at each epoch."""
    return {n: v for n, v in live.variables.items() if n.startswith("metrics/")}


def _model(model: keras.Model, led: reach.Reach) -> Iterator[tuple[str, Variable]]:
    layers, scheme = list(model._flatten_layers()), _scheme(model)
    seeds = {id(v): (layer, name) for layer in layers for name, v in _seeds(layer)}
    metrics = _metric_ids(model)
    ours = [v for v in slots.deduplicated(model.variables) if id(v) not in metrics]
    weights = [v for v in ours if id(v) not in seeds]
    canonical = scheme.canonical([slots.path(v) for v in weights])
    yield from ((f"model/{name}", v) for name, v in zip(canonical, weights, strict=True))
    owned = [(*seeds[id(v)], v) for v in ours if id(v) in seeds]
    paths = [f"{layer.path or layer.name}/{name}" for layer, name, _ in owned]
    for name, (_, _, v) in zip(scheme.canonical(paths), owned, strict=True):
        yield f"seeds/{name}", v
    optimizers = [optimizer_of(model), *led.optimizers.values()]
    listed = [*ours, *model.metrics_variables, *(v for o in optimizers for v in getattr(o, "variables", []))]
    carried = list(_states(layers))
    for name, (_, v) in zip(scheme.canonical([path for path, _ in carried]), carried, strict=True):
        yield f"states/{name}", v
    listed += [v for _, v in carried]
    yield from _untracked(
        layers, scheme, known={id(v) for one in listed for v in (one, getattr(one, "_value", one))}
    )


def _scheme(model: keras.Model) -> names.Scheme:
    """As a file of this model would give it; for a model whose config lists no layers, from its layers themselves."""
    if model not in _SCHEMES:
        try:
            config = keras.saving.serialize_keras_object(model)
        except (NotImplementedError, TypeError, ValueError, AttributeError):
            config = {}
        if isinstance(config.get("config"), dict) and config["config"].get("layers"):
            scheme = names.Scheme.of(config)
        else:
            layers = model._flatten_layers(include_self=False)
            auto = names.automatic((type(layer).__name__, layer.name) for layer in layers)
            scheme = names.Scheme(model.name, auto)
        _SCHEMES[model] = scheme
    return _SCHEMES[model]


def _seeds(layer: keras.layers.Layer) -> Iterator[tuple[str, Variable]]:
    generators = getattr(layer, "_seed_generators", [])
    for index, generator in enumerate(generators):
        yield ("seed" if index == 0 else f"seed_{index}"), generator.state


def _states(layers: Iterable[keras.layers.Layer]) -> Iterator[tuple[str, Variable]]:
    """(path, state) of stateful recurrent layers."""
    for layer in layers:
        held = _variables_in(layer.states) if isinstance(layer, keras.layers.RNN) else []
        yield from ((f"{layer.name}/{index}", variable) for index, variable in enumerate(held))


def _untracked(
    layers: Iterable[keras.layers.Layer], scheme: names.Scheme, *, known: set[int]
) -> Iterator[tuple[str, Variable]]:
    """Variables and generators that a layer holds beside Keras's own bookkeeping."""
    layers = list(layers)
    # What TextVectorization holds, an inner layer of an arbitrary name does.
    owners = {id(layer._lookup_layer): layer for layer in layers if hasattr(layer, "_lookup_layer")}
    found: dict[int, tuple[str, Variable]] = {}
    for layer in layers:
        owner = owners.get(id(layer), layer)
        for attribute, item in vars(layer).items():
            for variable in _variables_in(item) if not attribute.startswith(reach.PASSED_OVER) else ():
                if id(variable) not in known:
                    found.setdefault(id(variable), (f"{owner.path or owner.name}/{attribute}", variable))
    canonical = scheme.canonical([path for path, _ in found.values()])
    yield from ((f"model/{name}", v) for name, (_, v) in zip(canonical, found.values(), strict=True))


def _variables_in(item: Any) -> list[Variable]:
    """Variables in an attribute: itself, or members of lists, tuples and dictionaries of any depth."""
    if isinstance(item, _MANY):
        return [
            v for member in (item.values() if isinstance(item, dict) else item) for v in _variables_in(member)
        ]
    if isinstance(item, tf.random.Generator):
        return [item.state]
    return [item] if isinstance(item, _ONE) else []


def _metric_ids(model: keras.Model) -> set[int]:
    return {id(v) for v in model.metrics_variables}


def _metrics(model: keras.Model, *, known: set[int]) -> list[tuple[str, Variable]]:
    fresh = [v for v in slots.deduplicated(model.metrics_variables) if id(v) not in known]
    auto = names.automatic((type(m).__name__, m.name) for m in model.metrics)
    return [
        (f"metrics/{name}", v)
        for name, v in zip(
            names.canonical([slots.path(v) for v in fresh], root=None, auto=auto), fresh, strict=True
        )
    ]
