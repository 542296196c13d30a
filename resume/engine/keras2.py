"""What tf_keras does otherwise than Keras 3: where a model keeps its variables, and how they come to be.

Names come from resume.formats.keras2, which names the variables of files: a live model and its file agree by
construction. tf_keras is imported by whoever made the model (resume.engine.flavour).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from resume import names
from resume.formats import keras2

Variable = Any


def weights(model: Any) -> list[tuple[str, Variable]]:
    """(canonical name without `model/`, variable) of a built model, each variable once, in the order of its layers."""
    found: dict[int, tuple[keras2.Weight, Variable]] = {}
    for layer in _top_layers(model):
        for variable in stored(layer):
            weight = keras2.Weight(variable.name, tuple(variable.shape), layer.name)
            found.setdefault(id(variable), (weight, variable))
    for variable in _variables(model, model.weights):
        found.setdefault(id(variable), (keras2.Weight(variable.name, tuple(variable.shape)), variable))
    labels = keras2.weight_names([w for w, _ in found.values()], model_config=config(model))
    return list(zip(labels, (v for _, v in found.values()), strict=True))


def stored(layer: Any) -> list[Variable]:
    """A layer's variables in the order of Keras 2's weight files (hdf5_format._legacy_weights)."""
    return _variables(layer, [*layer.trainable_weights, *layer.non_trainable_weights])


def _variables(layer: Any, held: list[Any]) -> list[Variable]:
    """Without what lookup layers count as weights: their vocabulary, and how many texts adapt() has seen."""
    lookups = [part for part in layer._flatten_layers() if hasattr(part, "lookup_table")]
    counters = {id(part.num_documents) for part in lookups if hasattr(part, "num_documents")}
    return [item for item in held if isinstance(item, tf.Variable) and id(item) not in counters]


def _top_layers(model: Any) -> list[Any]:
    return list(getattr(model, "layers", []))


def config(model: Any) -> dict[str, Any] | None:
    """The model as an `.h5` file of Keras 2 describes it; None for a model that cannot be described."""
    try:
        return {"class_name": type(model).__name__, "config": model.get_config()}
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None


def seeds(model: Any) -> Iterator[tuple[str, Variable]]:
    """(path, state) of the generators that layers draw from, where they draw from generators at all."""
    for layer in model._flatten_layers():
        for index, generator in enumerate(_generators(layer)):
            yield f"{layer.name}/{'seed' if index == 0 else f'seed_{index}'}", generator.state


def states(model: Any) -> list[tuple[str, Variable]]:
    """(canonical path, state) of stateful recurrent layers; neither is one of `model.weights`."""
    found = [
        (f"{layer.name}/{index}", variable)
        for layer in model._flatten_layers()
        if getattr(layer, "stateful", False) and hasattr(layer, "states")
        for index, variable in enumerate(tf.nest.flatten(layer.states))
        if isinstance(variable, tf.Variable)  # None until the layer is built for a batch of a known size
    ]
    scheme = keras2.layer_names(config(model), [(type(x).__name__, x.name) for x in model._flatten_layers()])
    return list(zip(scheme.canonical([path for path, _ in found]), (v for _, v in found), strict=True))


def _generators(layer: Any) -> list[tf.random.Generator]:
    held = getattr(layer, "_random_generator", None)
    if held is None:
        return []
    held._maybe_init()  # the generator is made at the first draw otherwise, inside the first step
    return [held._generator] if held._generator is not None else []


def metrics(model: Any) -> Iterator[tuple[str, Variable]]:
    """(path, accumulator) of compiled metrics, the mean loss among them."""
    for metric in model.metrics:
        for variable in metric.variables:
            yield f"{metric.name}/{variable.name.split(':')[0].rpartition('/')[2]}", variable


# ---- optimizers ----

Named = list[tuple[str, Variable]]  # canonical name without `model/`, variable


def is_legacy(optimizer: Any) -> bool:
    """Whether it is of the kind before Keras 2.11; a loss-scale optimizer is what it wraps."""
    return hasattr(getattr(optimizer, "inner_optimizer", optimizer), "get_slot_names")


def optimizer_variables(optimizer: Any, owners: Named) -> Named:
    """(canonical name, variable) of an optimizer whose slots belong to some of `owners`."""
    scale = getattr(optimizer, "_loss_scale", None)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    around = [
        (f"optimizer/loss_scale/{name}", getattr(scale, attribute))
        for name, attribute in (("current_loss_scale", "_current_loss_scale"), ("good_steps", "_counter"))
        if hasattr(scale, attribute)
    ]
    return around + (_legacy(inner, owners) if is_legacy(inner) else _new(inner, owners))


def _legacy(optimizer: Any, owners: Named) -> Named:
    kind, hyper = type(optimizer).__name__, getattr(optimizer, "_hyper", {})
    out: Named = [("optimizer/iteration", optimizer.iterations)]
    for name, item in hyper.items():
        if isinstance(item, tf.Variable):
            out.append((f"optimizer/{name if name == 'learning_rate' else f'hyper/{name}'}", item))
    for name, owner in owners:
        for raw, slot in _slots_of(optimizer, owner):
            out.append((f"optimizer/{keras2.role(kind, raw)}/{name}", slot))
    known = {id(variable) for _, variable in out}
    return out + [(f"optimizer/{_scalar(optimizer, v)}", v) for v in optimizer.weights if id(v) not in known]


def _slots_of(optimizer: Any, owner: Variable) -> Iterator[tuple[str, Variable]]:
    for raw in optimizer.get_slot_names():
        try:
            yield raw, optimizer.get_slot(owner, raw)
        except KeyError:
            continue  # not trained


def _new(optimizer: Any, owners: Named) -> Named:
    """Of Keras 2.11 and later: a list a role, in the order of the variables that it was built with."""
    kind, order = type(optimizer).__name__, getattr(optimizer, "_index_dict", {})
    keys = {optimizer._var_key(variable): (name, variable) for name, variable in owners}
    trained = [keys.get(key) for key, _ in sorted(order.items(), key=lambda item: item[1])]
    slots: dict[int, str] = {}
    for items in vars(optimizer).values():
        if not isinstance(items, list) or not items or len(items) != len(trained):
            continue
        for slot, owner in zip(items, trained, strict=True):
            if isinstance(slot, tf.Variable) and owner is not None and slot is not owner[1]:
                slots[id(slot)] = f"optimizer/{keras2.role(kind, _raw_role(slot, owner[1]))}/{owner[0]}"
    every = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    once = {id(v): v for v in every}.values()
    # Neither is one of `variables`: the rate, and Nadam's product, which only SavedModels hold.
    beside = {"learning_rate": "_learning_rate", "u_product": "_u_product"}
    held = {name: getattr(optimizer, attribute, None) for name, attribute in beside.items()}
    found = [(f"optimizer/{name}", v) for name, v in held.items() if isinstance(v, tf.Variable)]
    known = {id(v) for _, v in found}
    rest = [v for v in once if id(v) not in known]
    return found + [(slots.get(id(v)) or f"optimizer/{_scalar(optimizer, v)}", v) for v in rest]


def _raw_role(slot: Variable, owner: Variable) -> str:
    """`Adam/m/dense/kernel` of `dense/kernel` -> `m` (tf_keras's Optimizer.add_variable_from_reference)."""
    name = slot.name.split(":")[0].removesuffix(f"/{owner._shared_name}")
    return str(name.rpartition("/")[2])


def _scalar(optimizer: Any, variable: Variable) -> str:
    if variable is optimizer.iterations:
        return "iteration"
    held = [a.strip("_") for a, item in vars(optimizer).items() if item is variable]
    name = names.split_number(held[0] if held else variable.name.split(":")[0].rpartition("/")[2])[0]
    return "u_product" if name in ("u_product", "m_cache", "momentum_cache") else name


def build_optimizer(optimizer: Any, variables: list[Variable]) -> None:
    """Create the slots of these variables; they would come to be in the first step."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    with tf.init_scope():
        if is_legacy(inner):
            _ = inner.iterations
            inner._create_all_weights(variables)
        else:
            inner.build(variables)


def complete(model: Any, spec: Any, strategy: tf.distribute.Strategy) -> None:
    """Create every variable that training will use by tracing one step, which runs nothing.

    Raises what the model's own code raises.
    """
    if model.built:
        build_optimizer(model.optimizer, model.trainable_variables)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    count = getattr(inner, "_u_product_counter", None)
    step = tf.function(lambda data: strategy.run(model.train_step, (data,)))
    step.get_concrete_function(spec)
    if count is not None:
        inner._u_product_counter = count  # Nadam counts tracings, and compares the count with the iterations
    build_optimizer(model.optimizer, model.trainable_variables)


# ---- positions ----


def by_index(model: Any) -> dict[str, Variable]:
    """`<layer>/<index>` -> variable, as Keras 2's HDF5 files place them."""
    return {
        f"{layer.name}/{index}": variable
        for layer in _top_layers(model)
        for index, variable in enumerate(stored(layer))
    }
