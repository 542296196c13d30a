"""Drift: what today's configuration declares against what the checkpoint was made with.

Compared is what was *declared* (a learning rate that a callback has lowered since is no drift). What only steers the
run (epochs, callbacks, checkpoint schedule, verbosity) may change freely and is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resume import names
from resume.continuity import Finding
from resume.errors import DriftError

_FRESH = "\nAnother class of optimizer cannot take over the state; for a fresh one: 'checkpoint.accept=[optimizer]'"

_OTHER_DATA = (
    "\nThe rows are others, or in another order: whatever draws them (a split, a permutation) needs a seed."
)
_SHOWN = 8  # another architecture differs in every layer: the first ones say so
PREFER = ("checkpoint", "config")

# Of a serialised layer: names, places in Keras's modules and wiring; what is left is what it computes.
_NOT_SETTINGS = frozenset({
    "name", "module", "registered_name", "build_config", "compile_config", "shared_object_id", "inbound_nodes",
    "input_layers", "output_layers", "batch_shape", "batch_input_shape", "optional", "sparse", "ragged",
})  # fmt: skip


def layers(model_config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings of each layer of a serialised model, by place and class; empty for a model without such a config."""
    found: dict[str, Any] = {}
    config = (model_config or {}).get("config")
    for index, layer in enumerate(config.get("layers", []) if isinstance(config, Mapping) else []):
        inner = layers(layer)
        settings = {f"inside {k}": v for k, v in inner.items()} or _settings(layer.get("config"))
        found[f"{index} {layer.get('class_name')}"] = settings
    return found


def _settings(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "class_name" in value and "config" in value:
            return {str(value["class_name"]): _settings(value["config"])}
        return {k: _settings(v) for k, v in value.items() if k not in _NOT_SETTINGS and k != "dtype"}
    if isinstance(value, list | tuple):
        return [_settings(item) for item in value]
    return value


def optimizer(class_name: str | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """An optimizer's class and hyperparameters, wrapped optimizers included."""
    return {"class": class_name, **_settings(config or {})}


def compare(saved: Mapping[str, Any], today: Mapping[str, Any]) -> list[Finding]:
    """Differences between two declarations, leaf by leaf; a part that either side did not declare is not compared."""
    both = [part for part in today if part in saved and saved[part] is not None and today[part] is not None]
    found = [
        f for part in both for f in _differences(part, _unnumbered(saved[part]), _unnumbered(today[part]))
    ]
    # Of another class of optimizer every hyperparameter differs, which says nothing more.
    other = [f for f in found if f.name == "optimizer.class"]
    return other + [f for f in found if not (other and f.name.startswith("optimizer."))]


def _unnumbered(value: Any) -> Any:
    """Without names that count the objects of a class (`focal`, `focal_1`), as Keras gives them to a user's losses."""
    if isinstance(value, list | tuple):
        return [_unnumbered(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _unnumbered(item) for key, item in value.items()}
    made, config = str(value.get("class_name", "")).rpartition(">")[2], found.get("config")
    name = str(config.get("name")) if isinstance(config, dict) else ""
    if name and names.split_number(name)[0] == names.snake_case(made):
        del found["config"]["name"]
    return found


def _differences(name: str, saved: Any, found: Any) -> Iterator[Finding]:
    if isinstance(saved, Mapping) and isinstance(found, Mapping):
        for key in [*saved, *(k for k in found if k not in saved)]:
            yield from _differences(f"{name}.{key}", saved.get(key), found.get(key))
    elif _plain(saved) != _plain(found):
        yield Finding(name, "drift", _shown(saved), _shown(found))


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def lines(findings: Sequence[Finding]) -> list[str]:
    shown = [f"{f.name}: {f.saved} saved -> {f.found} configured" for f in findings[:_SHOWN]]
    return shown + ([f"... and {len(findings) - _SHOWN} more"] if len(findings) > _SHOWN else [])


def demand(findings: Sequence[Finding], *, prefer: str | None, source: str) -> None:
    """Raises DriftError when there is drift and nobody has said which side holds."""
    if findings and prefer is None:
        raise DriftError(
            f"{source}: today's configuration differs from the one it was made with; nothing was trained.\n"
            + "\n".join(f"  {line}" for line in lines(findings))
            + "\nSay which one holds: checkpoint.prefer=checkpoint or checkpoint.prefer=config"
            + (_FRESH if any(f.name == "optimizer.class" for f in findings) else "")
            + (_OTHER_DATA if any(f.name.startswith("arrays.") for f in findings) else "")
        )
