"""What a file may bring to life: its model, compile and optimizer configs, walked before anything is built from them.

Trust is the configuration's (`trust`, `trusted_modules`, `custom_objects`), never the file's, and nothing asks:

none    Keras's own classes and functions (resume.formats.vocabulary); no custom object, even where one is named
config  those, and the objects that the configuration names (or that the user's own code has registered with Keras, in
        the module that the file says, where it says one);
        a Lambda layer only where its function is named: by the layer's name, or for all of them as "<lambda>"
code    those, and modules whose name begins with one of `trusted_modules`, imported by the name in the file; Lambda
        layers run the bytecode that the file holds; layers may open the files that they name

Keras itself would import whatever module a file names (CVE-2025-1550), run bytecode in old formats (CVE-2024-3660,
CVE-2025-9905), unpickle (CVE-2025-49655) and open other files (CVE-2025-12058): its safe mode covers some of it, in
some formats. Here every object in a config is of a known name, or is refused by name. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from resume.errors import MissingObjectsError, SourceError, UsageError
from resume.formats import suspects, vocabulary
from resume.formats.suspects import ANONYMOUS, CODE, CONFIG, LEVELS, NONE, Doubt, Trust
from resume.state import TrainState

__all__ = [
    "ANONYMOUS", "CODE", "CONFIG", "LEVELS", "NONE", "Doubt", "Trust",
    "configs", "demand", "demand_of", "doubtful", "objects", "unnamed",
]  # fmt: skip

_CLASSES = frozenset().union(
    vocabulary.LAYERS, vocabulary.OPERATIONS, vocabulary.OPTIMIZERS, vocabulary.SCHEDULES, vocabulary.LOSSES,
    vocabulary.METRICS, vocabulary.INITIALIZERS, vocabulary.REGULARIZERS, vocabulary.CONSTRAINTS, vocabulary.POLICIES,
    vocabulary.OTHERS,
)  # fmt: skip
_FUNCTIONS = vocabulary.ACTIVATIONS | vocabulary.LOSS_FUNCTIONS | vocabulary.METRIC_FUNCTIONS
# Keras's marks for plain values; `__lambda__` and `__typespec__` are judged.
_MARKS = frozenset(
    {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__"}
)
_OWN_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras", "builtins")
_INITIALIZER_MODULES = ("tensorflow.python.ops.init_ops", "tensorflow.python.ops.init_ops_v2")
_LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization", "DynamicLookup"})
# Where Keras 2 (and Keras 3 for its own) writes a name instead of an object: end of the key -> the names it may be.
_NAMED_BY_STRING = {
    "activation": vocabulary.ACTIVATIONS,
    "initializer": vocabulary.SHORT_NAMES | vocabulary.INITIALIZERS,
    "regularizer": vocabulary.SHORT_NAMES | vocabulary.REGULARIZERS,
    "constraint": vocabulary.SHORT_NAMES | vocabulary.CONSTRAINTS,
    "loss": vocabulary.LOSS_FUNCTIONS | vocabulary.LOSSES,
    "metrics": vocabulary.METRIC_FUNCTIONS | vocabulary.METRICS | vocabulary.LOSS_FUNCTIONS,
    "fn": vocabulary.METRIC_FUNCTIONS | vocabulary.LOSS_FUNCTIONS,  # of MeanMetricWrapper and its like
}


def demand(state: TrainState, trust: Trust) -> None:
    """Raise UsageError that lists all custom objects that nobody has named, SourceError for what cannot be named."""
    demand_of(state, configs(state), trust)


def demand_of(state: TrainState, found: Iterable[Any], trust: Trust) -> None:
    """The same for some configs of a source."""
    doubts = [doubt for config in found for doubt in doubtful(config, trust)]
    fatal = [doubt for doubt in doubts if doubt.name is None]
    if fatal:
        raise SourceError(f"{state.path}: {fatal[0]}{_more(fatal)}.")
    missing = sorted({str(doubt.name) for doubt in doubts})
    if missing and trust.level == NONE:
        raise UsageError(
            f"{state.path}: needs custom objects, and trust=none allows none: {', '.join(missing)}."
        )
    if missing:
        lines = "\n".join(f"  {_override(name)}" for name in missing)
        raise MissingObjectsError(
            f"{state.path}: needs custom objects that the configuration does not name. Add (in Python: to "
            f"custom_objects):\n{lines}",
            tuple(missing),
        )


def bare(name: str) -> str:
    """`package>Name` -> `Name`; `<lambda>` as it is."""
    return name.rpartition(">")[2] or name


def _override(name: str) -> str:
    own = bare(name)
    return (
        f"'+custom_objects.{own}=YOUR.MODULE.{own}'"
        if own.isidentifier()
        else f"custom_objects: {{{name!r}: ...}}"
    )


def _more(doubts: list[Doubt]) -> str:
    return f" (and {len(doubts) - 1} more like it)" if len(doubts) > 1 else ""


def configs(state: TrainState) -> tuple[Any, ...]:
    """All that a source may have Keras build."""
    return state.model_config, state.compile_config, state.optimizer and {"optimizer": _serialised(state)}


def _serialised(state: TrainState) -> dict[str, Any]:
    assert state.optimizer is not None
    return {"class_name": state.optimizer.class_name, "config": dict(state.optimizer.config)}


def objects(config: Any) -> Iterator[Mapping[str, Any]]:
    """Every serialised object in a config, outermost first."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from objects(item)
    elif isinstance(config, Mapping):
        if isinstance(config.get("class_name"), str):
            yield config
        for item in config.values():
            yield from objects(item)


def unnamed(config: Any, trust: Trust) -> set[str]:
    """Names of the objects in a config that neither Keras nor the configuration knows."""
    return {doubt.name or doubt.kind for doubt in doubtful(config, trust)}


def doubtful(config: Any, trust: Trust, *, where: str = "", own: bool = True) -> Iterator[Doubt]:
    """Whatever in a config is neither Keras's own nor trusted. `own`: Keras's own object has this config."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from doubtful(item, trust, where=where, own=own)
    if not isinstance(config, Mapping):
        return
    if "class_name" in config:
        yield from _of_object(config, trust, where)
        return
    for key, item in config.items():
        if own and (names := _NAMED_BY_STRING.get(str(key).rpartition("_")[2])) is not None:
            yield from _of_strings(item, names, trust, where)
        yield from doubtful(item, trust, where=where, own=own)


def _of_object(item: Mapping[str, Any], trust: Trust, where: str) -> Iterator[Doubt]:
    kind, inner, module = item["class_name"], item.get("config"), item.get("module")
    label = inner.get("name") if isinstance(inner, Mapping) else None
    here = "/".join(part for part in (where, str(label or "")) if part)
    if not isinstance(kind, str):
        yield Doubt(here, None, f"class_name is {kind!r:.40}, no name of a class: damaged")
    elif kind == "function":
        yield from _of_function(inner, item, trust, here)
    elif kind == "Lambda":
        yield from () if trust.names(label) else _of_lambda(item, trust, here)
    elif kind in suspects.JUDGES:
        yield from suspects.JUDGES[kind](item, trust, here)
    elif kind not in _MARKS and not _allowed(kind, item, trust):
        yield _untrusted(kind, item, trust, here)
    elif kind.rpartition(">")[2] in _LOOKUPS:
        yield from suspects.of_vocabulary(kind, inner, trust, here)
    own = str(kind).removeprefix("Custom>") in _CLASSES and not trust.names(kind, item.get("registered_name"))
    for key, value in item.items():
        if key == "config" and kind == "Lambda":
            continue  # has been judged
        yield from doubtful(value, trust, where=here, own=own and key == "config")
    del module


def _is_own(module: object) -> bool:
    return (
        not module
        or str(module) in _OWN_MODULES
        or str(module).startswith(tuple(f"{m}." for m in _OWN_MODULES))
    )


def _is_keras(bare: str, module: object) -> bool:
    """TensorFlow has initialisers of its own, under the same names."""
    if bare in vocabulary.INITIALIZERS and module in _INITIALIZER_MODULES:
        return True
    return bare in _CLASSES and _is_own(module)


def _allowed(kind: str, item: Mapping[str, Any], trust: Trust) -> bool:
    """Keras's own class, or the user's. A class of the process that hides one of Keras's must be named."""
    bare, module, registered = kind.removeprefix("Custom>"), item.get("module"), item.get("registered_name")
    if trust.names(kind, registered):
        return True
    if _is_keras(bare, module) and str(registered or bare).rpartition(">")[0] in ("", "Custom"):
        return bare not in trust.registered
    return trust.has_registered(module, kind, registered) or trust.imports(module)


def _untrusted(kind: str, item: Mapping[str, Any], trust: Trust, here: str) -> Doubt:
    bare = kind.removeprefix("Custom>")
    if bare in _CLASSES and bare in trust.registered and _is_own(item.get("module")):
        cause = (
            f"{bare} is Keras's own, and this process has registered another class under its name: name it"
        )
        return Doubt(here, None, cause)
    return Doubt(here, kind, f"{kind} is not Keras's own")


def _of_function(name: object, item: Mapping[str, Any], trust: Trust, here: str) -> Iterator[Doubt]:
    module, registered = item.get("module"), item.get("registered_name")
    if not isinstance(name, str):
        yield Doubt(here, None, f"a function is called {name!r:.40}: damaged")
    elif (
        trust.names(name, registered)
        or trust.has_registered(module, name, registered)
        or trust.imports(module)
    ):
        return
    elif name in _FUNCTIONS and _is_own(module):
        if name in trust.registered:
            yield Doubt(
                here,
                None,
                f"{name} is Keras's own, and this process has registered another function under its name",
            )
    elif str(module).split(".")[0] in ("keras", "tf_keras"):
        yield Doubt(here, None, f"calls {module}.{name}, which is no part of a model")
    else:
        yield Doubt(here, name, f"calls {name} of {module or 'an unnamed module'}")


def _of_strings(item: Any, names: frozenset[str], trust: Trust, where: str) -> Iterator[Doubt]:
    if isinstance(item, list | tuple):
        for inner in item:
            yield from _of_strings(inner, names, trust, where)
    elif isinstance(item, Mapping) and "class_name" not in item:
        for inner in item.values():
            yield from _of_strings(inner, names, trust, where)
    elif isinstance(item, str) and item not in names and not _known_string(item, trust):
        yield Doubt(where, item, f"{item} is not Keras's own")


def _known_string(name: str, trust: Trust) -> bool:
    return trust.names(name) or trust.has_registered(None, name) or name in _CLASSES


def _of_lambda(item: Mapping[str, Any], trust: Trust, here: str) -> Iterator[Doubt]:
    """A function by name is judged as any function; code is run where code is trusted, or stands for a named one."""
    config = item.get("config")
    if not isinstance(config, Mapping):
        yield Doubt(here, None, "a Lambda layer without a configuration: damaged")
        return
    for key in ("function", "output_shape", "mask"):
        value = config.get(key)
        if config.get(f"{key}_type") in ("lambda", "raw") or _is_code(value):
            if value is not None and not _is_shape(key, value, config):
                yield from _of_code(key, trust, here)
        elif isinstance(value, str) and key == "function":
            origin = {"module": config.get("module"), "registered_name": None}
            yield from _of_function(value, origin, trust, here)
        else:
            yield from doubtful(value, trust, where=here)
    yield from doubtful(config.get("arguments"), trust, where=here)


def _is_code(value: object) -> bool:
    """Bytecode as Keras 2 writes it ([code, defaults, closure]) or as Keras 3 does."""
    if isinstance(value, Mapping):
        return value.get("class_name") == "__lambda__"
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _is_shape(key: str, value: object, config: Mapping[str, Any]) -> bool:
    return key == "output_shape" and config.get("output_shape_type") == "raw" and not _is_code(value)


def _of_code(key: str, trust: Trust, here: str) -> Iterator[Doubt]:
    if trust.level == CODE or (key != "mask" and trust.names(ANONYMOUS)):
        return
    name = here.rpartition("/")[2]
    yield Doubt(
        here,
        None,
        f"a Lambda layer holds Python bytecode ({key}), which is not run. Name its function (trust=code runs it):\n"
        f"  {_override(name)}, or custom_objects: {{{ANONYMOUS!r}: ...}} for all of them",
    )
