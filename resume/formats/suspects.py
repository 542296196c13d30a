"""Trust, and the objects in a config that are judged one by one: what runs code, opens files, calls TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from resume.errors import UsageError
from resume.formats import vocabulary
from resume.formats.adapted import LOOKUPS

NONE, CONFIG, CODE = "none", "config", "code"
LEVELS = (NONE, CONFIG, CODE)
ANONYMOUS = "<lambda>"

_SPECS = frozenset({"TensorSpec", "RaggedTensorSpec", "SparseTensorSpec", "TensorShape"})
_OPENING = {
    "TFSMLayer": "opens a SavedModel beside this file",
    "TorchModuleWrapper": "unpickles a module of PyTorch",
}
_FOREIGN = {"FlaxLayer": "runs a module of Flax", "JaxLayer": "runs functions of JAX"}
_TENSOR_CLASSES = frozenset({"RaggedTensor", "sparse.SparseTensor", "SparseTensor", "Tensor"})


@dataclass(frozen=True)
class Trust:
    """What the configuration allows. `registered`: what this process has registered with Keras, name -> its module."""

    level: str = CONFIG
    modules: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    registered: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise UsageError(f"trust: {self.level!r} is none of {', '.join(LEVELS)}.")

    def names(self, *names: object) -> bool:
        """Whether the configuration names an object, by its whole name or by the part behind its package."""
        whole = [name for name in names if isinstance(name, str)]
        bare = [name.rpartition(">")[2] for name in whole]
        return self.level != NONE and any(name in self.named for name in (*whole, *bare))

    def imports(self, module: object) -> bool:
        text = str(module or "")
        return self.level == CODE and any(text == m or text.startswith(f"{m}.") for m in self.modules)

    def has_registered(self, module: object, *names: object) -> bool:
        """Whether the user's own code has registered it, in the module that the file says, where it says one.

        Keras 3 says none of what a script itself has made, and "builtins" of functions; .h5 files say none at all.
        """
        found = [self.registered[n] for n in names if isinstance(n, str) and n in self.registered]
        return self.level != NONE and bool(found) and module in (None, "", "builtins", *found)


@dataclass(frozen=True)
class Doubt:
    """Something in a config that is not trusted. `name`: under which the configuration could name it, if it can."""

    where: str
    name: str | None
    cause: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.cause}" if self.where else self.cause


def _of_bytecode(item: Mapping[str, Any], trust: Trust, here: str) -> Iterator[Doubt]:
    if trust.level != CODE:
        cause = "holds Python bytecode (__lambda__), which is not run. Where you trust this file: trust=code"
        yield Doubt(here, None, cause, "__lambda__")


def _of_opening(item: Mapping[str, Any], trust: Trust, here: str) -> Iterator[Doubt]:
    kind = item["class_name"]
    if trust.level != CODE and not trust.names(kind, item.get("registered_name")):
        cause = {**_OPENING, **_FOREIGN}[kind]
        yield Doubt(here, None, f"{kind} {cause}, which only trust=code allows")


def of_vocabulary(kind: str, config: Any, trust: Trust, here: str) -> Iterator[Doubt]:
    """A lookup layer without its vocabulary computes nothing: Keras leaves what adapt() found out of some formats."""
    path = config.get("vocabulary", ()) if isinstance(config, Mapping) else ()
    if path is None and kind in LOOKUPS:
        cause = (
            f"the vocabulary of this {kind} is not in this file, or not in lines (a term has a line break), or it was "
            "never adapted. Build the model with its vocabulary in a function of your own, and name that (model=..., "
            "for convert --model MODULE:FUNCTION)"
        )
        yield Doubt(here, None, cause)
    elif isinstance(path, str) and trust.level != CODE:
        yield Doubt(
            here, None, f"reads its vocabulary from another file ({path:.80}), which only trust=code allows"
        )


def _of_typespec(item: Mapping[str, Any], trust: Trust, here: str) -> Iterator[Doubt]:
    name, module = item.get("spec_name", item.get("type_spec")), str(item.get("module") or "tensorflow")
    if str(name).rpartition(".")[2] not in _SPECS or module.split(".")[0] not in ("tensorflow", "keras"):
        yield Doubt(here, None, f"describes a tensor by {name} of {module}, which is no part of a model")


def _of_tensorflow(item: Mapping[str, Any], trust: Trust, here: str) -> Iterator[Doubt]:
    """Functions of TensorFlow that a functional model of Keras 2 calls."""
    config = item.get("config")
    config = config if isinstance(config, Mapping) else {}
    kind = item["class_name"]
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        name = config.get("function")
        pure = vocabulary.TENSORFLOW_FUNCTIONS.fullmatch(str(name)) is not None
    elif kind == "TensorFlowOpLayer":
        node = config.get("node_def")
        name = node.get("op") if isinstance(node, Mapping) else "an operation that cannot be read"
        pure = name in vocabulary.TENSORFLOW_OPERATIONS
    elif kind == "ClassMethod":
        name, pure = config.get("cls_symbol"), config.get("cls_symbol") in _TENSOR_CLASSES
    else:
        name = config.get("attr_name")
        pure = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    if not pure and trust.level != CODE:
        yield Doubt(
            here,
            None,
            f"calls {name} of TensorFlow, which is no function of tensors alone; only trust=code allows it",
        )


def _of_value(item: Mapping[str, Any], trust: Trust, here: str) -> Iterator[Doubt]:
    return iter(())


Judge = Callable[[Mapping[str, Any], Trust, str], Iterator[Doubt]]
JUDGES: dict[str, Judge] = {
    "__lambda__": _of_bytecode,
    "__typespec__": _of_typespec,
    "TypeSpec": _of_typespec,
    "CompositeTensor": _of_value,
    "TensorShape": _of_value,
    **dict.fromkeys((*_OPENING, *_FOREIGN), _of_opening),
    **dict.fromkeys(("TFOpLambda", "SlicingOpLambda"), _of_tensorflow),
    **dict.fromkeys(
        ("TensorFlowOpLayer", "ClassMethod", "InstanceMethod", "InstanceProperty"), _of_tensorflow
    ),
}
