"""A model inside a model that was not trained with it: what standalone Keras tells by the optimizer's arrays alone.

There, `inner.trainable = False` of a whole model (a GAN's discriminator) is in no config. The optimizer's variables are
in an order without names, and fit the model's only once those of the inner model are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resume.formats import keras2_layers
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
    config = model_config["config"]
    members = [keras2_layers.frozen(item) if _name(item) == name else item for item in _members(model_config)]
    return {**model_config, "config": members if isinstance(config, list) else {**config, "layers": members}}


def _members(model_config: Mapping[str, Any]) -> list[Any]:
    config = model_config.get("config")
    members = config.get("layers") if isinstance(config, Mapping) else config  # a list, before Keras 2.2.3
    return members if isinstance(members, list) else []


def _models(model_config: Mapping[str, Any]) -> Iterator[str]:
    for item in _members(model_config):
        inner = item.get("config") if isinstance(item, Mapping) else None
        if isinstance(inner, list) or (isinstance(inner, Mapping) and isinstance(inner.get("layers"), list)):
            yield _name(item)


def _name(item: Mapping[str, Any]) -> str:
    config = item.get("config")
    return str(item.get("name") or (config.get("name") if isinstance(config, Mapping) else None))
