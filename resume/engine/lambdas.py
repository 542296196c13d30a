"""Lambda layers whose function the configuration names; the code that a file holds for them is never run.

`custom_objects: {"<lambda>": my.module.scale}` stands for every anonymous function of a source, `{"lambda_1": ...}`
for the one of the layer called `lambda_1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANONYMOUS = "<lambda>"


def named(config: Any, custom: Mapping[str, Any]) -> Any:
    """A serialised model with the functions of Lambda layers replaced by references to objects of `custom`."""
    if isinstance(config, list | tuple):
        return [named(item, custom) for item in config]
    if not isinstance(config, Mapping):
        return config
    if config.get("class_name") == "Lambda" and isinstance(config.get("config"), Mapping):
        name = next((n for n in (config["config"].get("name"), ANONYMOUS) if n in custom), None)
        if name is not None:
            return {**config, "config": _referring(config["config"], name, custom)}
    return {key: named(item, custom) for key, item in config.items()}


def _referring(config: Mapping[str, Any], name: str, custom: Mapping[str, Any]) -> dict[str, Any]:
    """Keras 2 keeps code and `function_type` side by side; Keras 3 an object of the class `__lambda__`.

    The shape of the output is then found by running the function, not by code in the file.
    """
    if "function_type" in config:
        shapeless = (
            {"output_shape": None, "output_shape_type": "raw"} if "output_shape_type" in config else {}
        )
        return {**config, "function": custom[name], "function_type": "raw", "module": None, **shapeless}
    reference = {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}
    return {**config, "function": reference}
