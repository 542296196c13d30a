"""Layers of Keras 1 and 2, and the objects in their configs, as Keras 3 describes them.

Every object becomes {"module", "class_name", "config", "registered_name"}, the form of
keras.src.saving.serialization_lib. What each class takes was compared between tf_keras 2.21 and Keras 3.15, class by
class; what earlier versions wrote is known from their files. Nothing is imported and nothing is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resume.formats import vocabulary

ANY = object()

# Arguments that Keras 3 does not have, and the values that may be left out without a change of meaning.
_DROPPED: dict[str, tuple[Any, ...]] = {
    "adjustment": (None,),
    "autocast": (True, None),
    "batch_input_shape": (ANY,),
    "causal": (False,),
    "conv_op": (None,),
    "dynamic": (False, None),
    "experimental_autocast": (ANY,),
    "force_generator": (ANY,),
    "fused": (ANY,),
    "input_length": (ANY,),
    "num_constants": (None, 0),
    "query_shape": (ANY,),
    "key_shape": (ANY,),
    "value_shape": (ANY,),
    "reverse_state_order": (False,),
    "rng_type": (ANY,),
    "robust_masking": (ANY,),
    "softmax_robust_masking": (ANY,),
    "time_major": (False, None),
    "virtual_batch_size": (None,),
}
_KERNEL: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("kernel_initializer", "kernel_regularizer", "kernel_constraint"), (ANY,)
)
_GROUPS: dict[str, tuple[Any, ...]] = {"groups": (1, None)}
_DEPTHWISE = _KERNEL | {"filters": (ANY,), "groups": (ANY,)}
_SPATIAL: dict[str, tuple[Any, ...]] = {"noise_shape": (ANY,), "trainable": (ANY,)}
# The same for some classes only.
_DROPPED_OF: dict[str, dict[str, tuple[Any, ...]]] = {
    "Conv1DTranspose": _GROUPS,
    "Conv2DTranspose": _GROUPS,
    "Conv3DTranspose": _GROUPS,
    "DepthwiseConv1D": _DEPTHWISE,
    "DepthwiseConv2D": _DEPTHWISE,
    "Discretization": {"trainable": (ANY,)},
    "Embedding": {"sparse": (False, None)},
    "InputLayer": {"type_spec": (None,), "input_tensor": (None,)},
    "SeparableConv1D": _GROUPS | _KERNEL,
    "SeparableConv2D": _GROUPS | _KERNEL,
    "SpatialDropout1D": _SPATIAL,
    "SpatialDropout2D": _SPATIAL,
    "SpatialDropout3D": _SPATIAL,
    "TextVectorization": {"vocabulary_size": (ANY,)},
}
_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "GRUCellV1": "GRUCell",
    "GRUCellV2": "GRUCell",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "LSTMCellV1": "LSTMCell",
    "LSTMCellV2": "LSTMCell",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "ThresholdedReLU": "ReLU",
}
_GONE = {
    **dict.fromkeys(("CuDNNLSTM", "CuDNNGRU"), "its two biases are one in Keras 3, and its optimizer state with them"),
    **dict.fromkeys(
        ("LocallyConnected1D", "LocallyConnected2D", "DenseFeatures", "RandomHeight", "RandomWidth", "Highway",
         "MaxoutDense", "Merge", "SequenceFeatures", "LinearModel", "WideDeepModel", "AtrousConvolution1D",
         "AtrousConvolution2D"),
        "Keras 3 has no such layer",
    ),
    **dict.fromkeys(
        ("AddLoss", "AddMetric"), "Keras 3 has no such layer: add the loss or metric in a layer or model of your own"
    ),
}  # fmt: skip
_GONE_CONSTRAINTS = frozenset({"RadialConstraint", "radial_constraint"})
_MODULES = {
    "initializer": "keras.initializers",
    "regularizer": "keras.regularizers",
    "constraint": "keras.constraints",
}
_KNOWN = {
    "initializer": vocabulary.INITIALIZERS,
    "regularizer": vocabulary.REGULARIZERS,
    "constraint": vocabulary.CONSTRAINTS,
}
_OWN = frozenset({"Lambda", "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"}).union(
    _GONE, vocabulary.LAYERS, vocabulary.POLICIES, *_KNOWN.values()
)
_ANONYMOUS = "__lambda__"


@dataclass
class Context:
    """What a translation has to know, and what it could not translate, a sentence each."""

    custom: frozenset[str] = frozenset()  # names of the user's own objects, whole or without their package
    keras_version: str | None = None
    problems: list[str] = field(default_factory=list)

    def is_custom(self, *names: object) -> bool:
        whole = [name for name in names if isinstance(name, str)]
        return any(n in self.custom or n.rpartition(">")[2] in self.custom for n in whole)

    def refuse(self, where: str, why: str) -> None:
        sentence = f"{where}: {why}"
        if sentence not in self.problems:
            self.problems.append(sentence)


def serialised(module: str, class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """One of Keras 3's own objects."""
    return {"module": module, "class_name": class_name, "config": dict(config), "registered_name": None}


def function(name: str) -> dict[str, Any]:
    """A function by its name: Keras's own, or a custom object."""
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def bare(item: Mapping[str, Any]) -> str:
    """The class's own name, without the package that it may be registered under."""
    return str(item.get("class_name")).rpartition(">")[2]


def renamed(kind: str) -> str:
    """What Keras 3 calls one of Keras's own classes."""
    return _RENAMED.get(kind, kind)


def is_own(item: Mapping[str, Any], context: Context) -> bool:
    """Whether an object is of one of Keras's own classes."""
    kind, registered = str(item.get("class_name")), item.get("registered_name")
    module = str(item.get("module") or "keras").split(".")[0]
    if bare(item) not in _OWN:
        return False
    if context.is_custom(kind, registered) or ">" in str(registered or "").removeprefix("Custom>"):
        return False
    return ">" not in kind.removeprefix("Custom>") and module in (
        "keras",
        "tf_keras",
        "tensorflow",
        "builtins",
    )


def settings(item: Mapping[str, Any], context: Context) -> tuple[str, dict[str, Any]]:
    """(class, config) of one of Keras's own layers in Keras 3; objects in the config are translated as well."""
    kind = bare(item)
    config = dict(item.get("config") or {})
    where = f"{kind} {config.get('name', '')!r}"
    if kind in _GONE:
        context.refuse(where, _GONE[kind])
    config = _without(kind, config, where, context)
    config = {key: value(key, inner, where, context) for key, inner in config.items()}
    if config.get("dtype", "") is None:
        del config["dtype"]
    return renamed(kind), _REWRITTEN.get(kind, _as_is)(config, where, context)


def _without(kind: str, config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    dropped = _DROPPED | _DROPPED_OF.get(kind, {})
    for key in [key for key in config if key in dropped]:
        if kind == "InputLayer" and key == "batch_input_shape":
            continue
        found, neutral = config.pop(key), dropped[key]
        if ANY not in neutral and found not in neutral:
            context.refuse(where, f"{key}={found!r:.60} has no equivalent in Keras 3")
    return config


# ---- objects inside a config ----


def value(key: str, found: Any, where: str, context: Context) -> Any:
    """What a layer's config has under `key`, in Keras 3's form."""
    role = key.rpartition("_")[2]
    if key == "dtype":
        return dtype(found)
    if role == "activation":
        return activation(found, where, context)
    if role in _MODULES:
        return _part(role, found, where, context)
    return nested(found, where, context)


def dtype(found: Any) -> Any:
    """A policy by its name; None for one that was to be inferred."""
    if isinstance(found, Mapping):
        inner = found.get("config")
        if bare(found) not in vocabulary.POLICIES or not isinstance(inner, Mapping):
            return found
        found = inner.get("name")
    if found in (None, "infer", "_infer", "infer_with_float32_vars"):
        return None
    return serialised("keras", "DTypePolicy", {"name": found}) if str(found).startswith("mixed_") else found


def activation(found: Any, where: str, context: Context) -> Any:
    if isinstance(found, str):
        own = found in vocabulary.ACTIVATIONS and not context.is_custom(found)
        return found if own else function(found)
    if isinstance(found, Mapping) and found.get("class_name") == "function":
        return activation(_function_name(found), where, context)
    return nested(found, where, context)


def _function_name(item: Mapping[str, Any]) -> Any:
    registered = str(item.get("registered_name") or "")
    return registered if ">" in registered else item.get("config")


def _part(role: str, found: Any, where: str, context: Context) -> Any:
    """An initialiser, a regulariser or a constraint."""
    if isinstance(found, str):
        own = (found in vocabulary.SHORT_NAMES or found in _KNOWN[role]) and not context.is_custom(found)
        if found in _GONE_CONSTRAINTS and own:
            context.refuse(where, f"Keras 3 has no {found}")
        return _SHORT.get(found, found) if own else function(found)
    if not isinstance(found, Mapping) or "class_name" not in found:
        return found
    kind, inner = bare(found), found.get("config")
    if kind == "function":
        return function(str(_function_name(found)))
    if kind not in _KNOWN[role] or not is_own(found, context):
        return custom(found, context)
    if kind in _GONE_CONSTRAINTS:
        context.refuse(where, f"Keras 3 has no {kind}")
    config = {k: v for k, v in (inner or {}).items() if k != "dtype"}
    if config.get("distribution") == "normal":  # Keras 2's first word for it
        config["distribution"] = "truncated_normal"
    if kind[-2:] in ("V1", "V2") and kind[:-2] in _KNOWN[role]:
        kind = kind[:-2]
    return serialised(_MODULES[role], kind, {k: nested(v, where, context) for k, v in config.items()})


_SHORT = {
    "zero": "zeros",
    "one": "ones",
    "normal": "random_normal",
    "uniform": "random_uniform",
    "maxnorm": "max_norm",
    "nonneg": "non_neg",
    "unitnorm": "unit_norm",
    "variancescaling": "variance_scaling",
}


def nested(found: Any, where: str, context: Context) -> Any:
    """Layers in a config (of wrappers, of recurrent layers), in any nesting; other values as they are."""
    if isinstance(found, list | tuple):
        return [nested(item, where, context) for item in found]
    if not isinstance(found, Mapping):
        return found
    if "class_name" not in found:
        return {key: nested(item, where, context) for key, item in found.items()}
    if found["class_name"] == "function":
        return function(str(_function_name(found)))
    if str(found["class_name"]).startswith("__") or "config" not in found:
        return dict(found)
    if bare(found) in vocabulary.POLICIES and is_own(found, context):
        return dtype(found)
    from resume.formats import translate_model  # a layer may hold a model, which holds layers

    return translate_model.layer(found, context)


def custom(item: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """An object of the user's own: its class as it is, what it holds of Keras's own translated."""
    name = str(item.get("registered_name") or item.get("class_name")).removeprefix("Custom>")
    config, label = item.get("config"), bare(item)
    if isinstance(config, Mapping):
        inner = {k: v for k, v in config.items() if k != "batch_input_shape"}
        config = {key: value(key, v, label, context) for key, v in inner.items()}
        if config.get("dtype", "") is None:
            del config["dtype"]
    out = {"module": None, "class_name": label, "config": config, "registered_name": name}
    return out | {key: item[key] for key in ("build_config",) if item.get(key)}


# ---- classes whose arguments changed ----


def _as_is(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    return config


def _input(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    if "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    return config


def _normalisation(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    axis = config.get("axis")
    if isinstance(axis, list | tuple):
        if len(axis) != 1:
            context.refuse(where, f"axis={list(axis)}: Keras 3 normalises over one axis")
        config["axis"] = axis[0] if axis else -1
    return config


def _synchronised(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    return {**_normalisation(config, where, context), "synchronized": True}


def _leaky(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    if "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    return config


def _thresholded(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    return {**{k: v for k, v in config.items() if k != "theta"}, "threshold": config.get("theta", 1.0)}


def _gru(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    return {"reset_after": False, **config}  # what it was before there was an argument for it


def _lambda(config: dict[str, Any], where: str, context: Context) -> dict[str, Any]:
    """Code stays code, which nothing runs; a function that is called by its name stays one."""
    held = {k: v for k, v in config.items() if k in ("name", "trainable", "dtype", "mask", "arguments")}
    kind, found = config.get("function_type"), config.get("function")
    if config.get("mask_type") in ("lambda", "raw") or not isinstance(held.get("mask"), str | None):
        held.pop("mask", None)
    if kind == "function" and isinstance(found, str):
        held["function"] = function(found)
    elif isinstance(found, Mapping):
        held["function"] = dict(found)
    else:
        code = found if isinstance(found, list | tuple) else [found, None, None]
        parts = dict(zip(("code", "defaults", "closure"), code, strict=False))
        held["function"] = {"class_name": _ANONYMOUS, "config": parts}
    shape = config.get("output_shape")
    if config.get("output_shape_type", "raw") == "raw" and isinstance(shape, list | tuple | None):
        held["output_shape"] = shape
    return held


_REWRITTEN = {
    "BatchNormalization": _normalisation,
    "BatchNormalizationV1": _normalisation,
    "BatchNormalizationV2": _normalisation,
    "SyncBatchNormalization": _synchronised,
    "GRU": _gru,
    "GRUCell": _gru,
    "GRUCellV1": _gru,
    "GRUV1": _gru,
    "InputLayer": _input,
    "Lambda": _lambda,
    "LeakyReLU": _leaky,
    "ThresholdedReLU": _thresholded,
}
