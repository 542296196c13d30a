"""The objects that a source may use, by the names it calls them: the configuration's, and those of trusted modules."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from keras.src.backend.common import global_state

from resume.engine import flavour
from resume.errors import UsageError
from resume.formats import trust
from resume.formats.trust import Trust
from resume.state import TrainState


def here(allowed: Trust) -> Trust:
    """With what the user's own code has registered in this process, before any scope of ours is entered."""
    return replace(allowed, registered=_registered())


def _registered() -> dict[str, str]:
    """Name -> module. tf_keras registers classes of its own the same way; these are its own."""
    found = _in_scope()
    for library in flavour.imported():
        found |= library.saving.get_custom_objects()
    modules = {name: str(getattr(item, "__module__", "")) for name, item in found.items()}
    return {n: module for n, module in modules.items() if module.split(".")[0] not in ("keras", "tf_keras")}


def _in_scope() -> dict[str, Any]:
    """What the caller has put into a `custom_object_scope` around us."""
    found = dict(global_state.get_global_attribute("custom_objects_scope_dict", {}) or {})
    if flavour.TF_KERAS in {library.__name__ for library in flavour.imported()}:
        registration = importlib.import_module("tf_keras.src.saving.object_registration")
        found |= registration._THREAD_LOCAL_CUSTOM_OBJECTS.__dict__
    return found


def objects(state: TrainState | None, custom: Mapping[str, Any], allowed: Trust) -> dict[str, Any]:
    """All that Keras is to find by name: `custom`, each object under every name that the source has for it
    (`package>Name`); what may be imported; and what is in scope, which Keras 3 hides behind an inner scope.

    Raises UsageError for a trusted module that cannot be imported.
    """
    configs = trust.configs(state) if state is not None else ()
    spelled = {name for config in configs for name in _names(config) if name.rpartition(">")[2] in custom}
    found = {**_in_scope(), **custom}
    found |= {name: custom[name.rpartition(">")[2]] for name in spelled - custom.keys()}
    if allowed.level != trust.CODE:
        return found
    for item in (item for config in configs for item in trust.objects(config)):
        name = item.get("config") if item["class_name"] == "function" else item["class_name"]
        if isinstance(name, str) and name not in found and allowed.imports(item.get("module")):
            found[name] = _imported(str(item["module"]), name)
            found.setdefault(str(item.get("registered_name") or name), found[name])
    return found


def safety(born: str, allowed: Trust) -> Any:
    """The library's own safe mode as a context: off only where code is trusted, so that bytecode may run."""
    library = "keras" if born == flavour.KERAS else flavour.TF_KERAS
    module = importlib.import_module(f"{library}.src.saving.serialization_lib")
    return module.SafeModeScope(safe_mode=allowed.level != trust.CODE)


def _names(config: Any) -> Iterator[str]:
    if isinstance(config, str) and ">" in config:
        yield config
    elif isinstance(config, list | tuple | Mapping):
        for item in config.values() if isinstance(config, Mapping) else config:
            yield from _names(item)


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"trusted_modules: {module}.{name}: {error}") from error
