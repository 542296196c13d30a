"""A model inside a model that was not trained with it: what standalone Keras tells by the optimizer's arrays alone.

There, `inner.trainable = False` of a whole model (a GAN's discriminator) is in no config. The optimizer's variables are
in an order without names, and fit the model's only once those of the inner model are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resume.formats.keras2_layers import Weight
from resume.formats.keras2_optimizers import optimizer_names
from resume.formats.keras2_orders import Owner
from resume.state import NUMBERED, OptimizerInfo


@dataclass(frozen=True)
class Explained:
    """Names of an optimizer's variables, notes, and the inner model that was not trained, if one was not."""

    names: list[str]
    notes: list[str]
    frozen: str | None = None

    @property
    def is_numbered(self) -> bool:
        return any(name.startswith(f"optimizer/{NUMBERED}/") for name in self.names)


def explained(
    info: OptimizerInfo | None,
    variables: Sequence[Weight],
    owners: Callable[[str | None], Sequence[Owner]],
    model_config: Mapping[str, Any],
) -> Explained:
    """The optimizer's variables as optimizer_names gives them, with nothing frozen or with one inner model.

    `owners`: the model's variables, those of one inner model (by its name) not trained. An inner model is taken as
    frozen only where nothing else explains the variables, and no other inner model does.
    """
    plain = Explained(*optimizer_names(info, variables, owners(None)))
    if not plain.is_numbered:
        return plain
    tried = [Explained(*optimizer_names(info, variables, owners(n)), n) for n in _models(model_config)]
    fitting = [found for found in tried if not found.is_numbered]
    if len(fitting) != 1:
        return plain
    note = f"{fitting[0].frozen} is taken as frozen: the optimizer has variables for all but that model's"
    return replace(fitting[0], notes=[*fitting[0].notes, note])


def frozen(model_config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config with one of its inner models, by name, not trained: all of its layers, as Keras itself does it."""

    def changed(item: Any) -> Any:
        return _frozen(item) if isinstance(item, Mapping) and _name(item) == name else item

    return _with_members(model_config, changed)


def _frozen(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    out = _with_members(item, _frozen)
    config = out.get("config")
    if not isinstance(config, Mapping) or "trainable" not in config:  # of inputs and models
        return out
    return {**out, "config": {**config, "trainable": False}}


def _with_members(item: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    config = item.get("config")
    if isinstance(config, list):  # a Sequential before Keras 2.2.3
        return {**item, "config": [change(member) for member in config]}
    if isinstance(config, Mapping) and isinstance(config.get("layers"), list):
        return {**item, "config": {**config, "layers": [change(member) for member in config["layers"]]}}
    return dict(item)


def _models(model_config: Mapping[str, Any]) -> Iterator[str]:
    config = model_config.get("config")
    members = config.get("layers") if isinstance(config, Mapping) else config
    for item in members if isinstance(members, list) else []:
        inner = item.get("config") if isinstance(item, Mapping) else None
        if isinstance(inner, list) or (isinstance(inner, Mapping) and isinstance(inner.get("layers"), list)):
            yield _name(item)


def _name(item: Mapping[str, Any]) -> str:
    config = item.get("config")
    return str(item.get("name") or (config.get("name") if isinstance(config, Mapping) else None))
