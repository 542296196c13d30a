"""A training state of Keras 1 or 2 as Keras 3 would have it: configs, names and values. No TensorFlow.

Variables have the names of Keras 3 already (resume.formats.keras2). What remains is what the two keep differently:
hyperparameters as variables, the loss scale, the product of Nadam, placeholders.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from resume.errors import UsageError
from resume.formats import keras2, layouts, semantics, translate_model, translate_names, translate_training
from resume.formats.translate_layers import Context
from resume.state import ITERATION, LEARNING_RATE, NUMBERED, Arrays, OptimizerInfo, Spec, TrainState, spec_of

Array = np.ndarray[Any, Any]

_FROM_CONFIG = "(configuration)"
_SCALE = "optimizer/loss_scale/"
_SCALE_NAMES = {
    f"{_SCALE}current_loss_scale": f"{_SCALE}dynamic_scale",
    f"{_SCALE}good_steps": f"{_SCALE}step_counter",
}
PRODUCT = "optimizer/u_product"
_DTYPES = {
    ITERATION: "int64",
    LEARNING_RATE: "float32",
    f"{_SCALE}dynamic_scale": "float32",
    f"{_SCALE}step_counter": "int64",
}
# Beginnings of names that Keras 3 has nothing for, and why.
_WITHOUT = {
    "optimizer/hyper/": "a setting in Keras 3, no variable",
    "optimizer/unused/": "a placeholder that Keras 2 never read",
    "metrics/": "accumulators of the epoch in progress, of other variables in Keras 3",
    "seeds/": "a generator of TensorFlow's, which Keras 3 does not draw from",
    "rng/": "a generator of TensorFlow's, which Keras 3 does not draw from",
    "callbacks/": "state of callbacks of another library",
}


@dataclass(frozen=True)
class Moved:
    """A state in Keras 3's words, and what the translation has to say."""

    state: TrainState
    differences: tuple[str, ...] = ()  # where Keras 3 computes otherwise
    dropped: Mapping[str, str] = field(
        default_factory=dict
    )  # name in the source -> why Keras 3 does not take it
    made: Mapping[str, str] = field(
        default_factory=dict
    )  # name -> how its value was found, which no file held
    fresh: tuple[str, ...] = ()  # names, or their beginnings, of what Keras 2 never had


def state(source: TrainState, *, custom: Collection[str] = ()) -> Moved:
    """The source in Keras 3's words; a state of Keras 3 as it is. `custom`: names of the user's own objects.

    Raises UsageError that lists everything that Keras 3 has no equivalent for.
    """
    if source.flavour == "keras":
        return Moved(source)
    source, renamed = translate_names.without_slashes(source)
    context = Context(frozenset(custom), source.keras_version)
    model = translate_model.layer(source.model_config, context) if source.model_config else None
    rate = _stored_rate(source)
    info = translate_training.optimizer(source.optimizer, context, rate=rate) if source.optimizer else None
    compiled = _compile_config(source, info, context)
    if context.problems:
        lines = "\n".join(f"  {problem}" for problem in context.problems)
        raise UsageError(f"{source.path}: cannot be moved to Keras 3:\n{lines}")
    dropped = dict(_dropped(source, info))
    arrays, made = _arrays(source, info, dropped)
    moved = replace(
        source,
        format="keras",
        arrays=arrays,
        model_config=model,
        compile_config=compiled,
        optimizer=info,
        flavour="keras",
        progress={},
        places=_places(source),
        raw_names={_SCALE_NAMES.get(n, n): raw for n, raw in source.raw_names.items() if n not in dropped},
    )
    return Moved(moved, (*semantics.differences(source), *renamed), dropped, made, tuple(_fresh(moved)))


def _places(source: TrainState) -> dict[str, str]:
    """Positions that say more than names: both generations count the layers of an archive alike."""
    if source.format == "keras":
        return {
            n: place for n, place in source.places.items() if n.startswith("model/") and f"/{NUMBERED}/" in n
        }
    return dict(source.places) if source.format == "weights_h5" else {}


def renested(moved: TrainState, model_config: Mapping[str, Any]) -> TrainState:
    """A state of Keras 2 that came without an architecture, under the names of the model that it is for.

    Such formats leave out what is nested in what. `model_config`: that model as Keras 3 describes it.
    """
    old = [name for name in moved.specs if name.startswith("model/")]
    weights = [
        keras2.Weight(name.removeprefix("model/"), moved.specs[name].shape, _layer(moved, name))
        for name in old
    ]
    new = [f"model/{name}" for name in keras2.weight_names(weights, model_config=model_config)]
    owners = {a.removeprefix("model/"): b.removeprefix("model/") for a, b in zip(old, new, strict=True)}
    origin = {_with_owner(name, owners): name for name in moved.specs}
    specs = {name: moved.specs[old_name] for name, old_name in origin.items()}
    return replace(
        moved,
        arrays=Arrays(specs, read=lambda name: moved.arrays[origin[name]]),
        raw_names={_with_owner(name, owners): raw for name, raw in moved.raw_names.items()},
        places={_with_owner(name, owners): place for name, place in moved.places.items()},
    )


def with_roles(moved: TrainState, roles: Mapping[str, str]) -> TrainState:
    """Slots under other roles, by their names."""
    origin = {
        "/".join(["optimizer", roles[n], *n.split("/")[2:]]) if n in roles else n: n for n in moved.specs
    }
    specs = {new: moved.specs[old] for new, old in origin.items()}
    return replace(moved, arrays=Arrays(specs, read=lambda name: moved.arrays[origin[name]]))


def _layer(moved: TrainState, name: str) -> str | None:
    """The top-level layer of a variable, where its position says it (`encoder/0` in files of weights)."""
    layer, _, number = moved.places.get(name, "").rpartition("/")
    return layer if layer and "/" not in layer and number.isdigit() else None


def _with_owner(name: str, owners: Mapping[str, str]) -> str:
    parts = name.split("/")
    depth = {"model": 1, "optimizer": 2}.get(parts[0], len(parts))
    owner = "/".join(parts[depth:])
    return "/".join([*parts[:depth], owners[owner]]) if owner in owners else name


def _compile_config(
    source: TrainState, info: OptimizerInfo | None, context: Context
) -> dict[str, Any] | None:
    if source.compile_config is None:
        return None
    outputs = output_names(source.model_config)
    found = translate_training.compile_config(source.compile_config, outputs, context)
    return found | ({"optimizer": translate_training.serialise(info)} if info is not None else {})


def output_names(model_config: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The layers that a functional model's outputs come from; None where the config does not tell."""
    config = (model_config or {}).get("config")
    if isinstance(config, list) or (
        isinstance(config, Mapping) and "layers" in config and "output_layers" not in config
    ):
        return ("output",)  # a Sequential's only one
    if not isinstance(config, Mapping) or "output_layers" not in config:
        return None
    return tuple(_leaves(config["output_layers"]))


def _leaves(found: Any) -> Iterator[str]:
    if isinstance(found, Mapping):
        for item in found.values():
            yield from _leaves(item)
    elif isinstance(found, list | tuple):
        if len(found) == 3 and isinstance(found[0], str):
            yield found[0]
        else:
            for item in found:
                yield from _leaves(item)


# ---- arrays ----


def _stored_rate(source: TrainState) -> float | None:
    """The learning rate as a variable of the source has it: a callback may have changed it since the config."""
    stored = LEARNING_RATE in source.specs and source.raw_names.get(LEARNING_RATE) != _FROM_CONFIG
    return float(source.arrays[LEARNING_RATE]) if stored else None


def _dropped(source: TrainState, info: OptimizerInfo | None) -> Iterator[tuple[str, str]]:
    """(name, why) of what Keras 3 has no use for."""
    scheduled = info is not None and isinstance(info.inner.config.get("learning_rate"), Mapping)
    for name in source.specs:
        cause = next((why for start, why in _WITHOUT.items() if name.startswith(start)), None)
        if name == LEARNING_RATE and scheduled:
            cause = "a schedule gives the rate"
        if (
            cause is None
            and info is not None
            and name.startswith("optimizer/")
            and not name.startswith(_SCALE)
        ):
            cause = _unread(source, info.inner, name)
        if cause is not None:
            yield name, cause


def _unread(source: TrainState, info: OptimizerInfo, name: str) -> str | None:
    """Why a slot is none in Keras 3, if so."""
    _, role, owner = (*name.split("/", 2), "")[:3]
    if not owner or role in (NUMBERED, "inner") or not _is_known(info):
        return None
    if role not in layouts.roles(info):
        return f"{info.class_name} keeps no {role} in Keras 3 under these settings"
    spec = source.specs.get(f"model/{owner}")
    small = role in ("r", "c") and spec is not None and len(spec.shape) < 2
    return "a placeholder that Keras 2 never read" if small else None


def _is_known(info: OptimizerInfo) -> bool:
    return bool(layouts.roles(info)) or info.class_name in ("SGD", "RMSprop")


def _arrays(
    source: TrainState, info: OptimizerInfo | None, dropped: Mapping[str, str]
) -> tuple[Arrays, dict[str, str]]:
    """The arrays under Keras 3's names and dtypes, and those that had to be computed."""
    origin = {_SCALE_NAMES.get(name, name): name for name in source.specs if name not in dropped}
    specs = {new: _recast(new, source.specs[old]) for new, old in origin.items()}
    values, made = _computed(source, info, specs)
    specs |= {name: spec_of(array) for name, array in values.items()}

    def read(name: str) -> Array:
        if name in values:
            return values[name]
        return source.arrays[origin[name]].astype(specs[name].dtype, copy=False)

    return Arrays(specs, read=read), made


def _recast(name: str, spec: Spec) -> Spec:
    wanted = _DTYPES.get(name, spec.dtype)
    return spec if wanted == spec.dtype else Spec(wanted, spec.shape)


def _computed(
    source: TrainState, info: OptimizerInfo | None, specs: Mapping[str, Spec]
) -> tuple[dict[str, Array], dict[str, str]]:
    """Values that follow from others, where Keras 3 keeps a variable and the source has none."""
    if info is None or ITERATION not in specs:
        return {}, {}
    out: dict[str, Array] = {}
    made: dict[str, str] = {}
    rate = info.inner.config.get("learning_rate")
    if LEARNING_RATE not in specs and isinstance(rate, int | float):
        out[LEARNING_RATE] = np.array(rate, np.float32)
        told = source.optimizer is not None and {"learning_rate", "lr"} & source.optimizer.inner.config.keys()
        made[LEARNING_RATE] = f"{rate:.6g}, {'from the settings' if told else 'the default of its class'}"
    if source.optimizer is not None and source.optimizer.config.get("dynamic") is False:
        scale = info.config.get("initial_scale", 2.0**15)
        fixed: dict[str, Array] = {
            "dynamic_scale": np.array(scale, np.float32),
            "step_counter": np.array(0, np.int64),
        }
        for name in (name for name in fixed if f"{_SCALE}{name}" not in specs):
            out[f"{_SCALE}{name}"] = fixed[name]
            made[f"{_SCALE}{name}"] = f"{fixed[name]:.6g}, from the settings: the scale was fixed"
    if info.inner.class_name == "Nadam" and PRODUCT not in specs:
        steps = int(source.arrays[ITERATION])
        owners = sum(name.startswith("optimizer/momentum/") for name in specs)
        legacy = source.optimizer is not None and source.optimizer.inner.legacy
        beta = float(info.inner.config.get("beta_1", 0.9))
        out[PRODUCT] = nadam_product(steps, beta_1=beta, variables=0 if legacy else owners)
        made[PRODUCT] = (
            f"{float(out[PRODUCT]):.6g}, computed from {steps} iterations; no file of Keras 2 holds it"
        )
    return out, made


def nadam_product(steps: int, *, beta_1: float, variables: int = 0) -> Array:
    """What Nadam's product of momenta is after some steps: beta_1 (1 - 0.96**t / 2) multiplied for t = 1, 2, ...

    With `variables`: as the compiled step of Keras 2.11 and later arrives at it, which multiplies once a variable.
    There a counter of tracings decides whether to (tf_keras.src.optimizers.nadam.update_step), and the step is traced
    twice.
    """
    one, product = np.float32(1), np.float32(1)
    for t in range(steps):
        momentum = np.float32(beta_1) * (
            one - np.float32(0.5) * np.power(np.float32(0.96), np.float32(t + 1))
        )
        skips = int(variables < t + 2 <= 2 * variables)
        times = max(variables, 1) - skips
        product = np.float32(product * np.power(momentum, np.float32(times)))
        if product == 0:
            break
    return np.array(product, np.float32)


def _fresh(moved: TrainState) -> Iterator[str]:
    """What Keras 3 has and Keras 2 never had."""
    info = moved.optimizer
    yield from moved.unheld
    if info is None:
        return
    if info.inner is not info:
        yield from (f"{_SCALE}iteration", f"{_SCALE}learning_rate")
    if info.inner.class_name == "Adafactor":
        small = [
            n.removeprefix("model/") for n, s in moved.specs.items() if n[:6] == "model/" and len(s.shape) < 2
        ]
        yield from (f"optimizer/{role}/{owner}" for owner in small for role in ("r", "c"))
