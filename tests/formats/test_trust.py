"""What a config may bring to life under each level of trust. No TensorFlow: tests/engine asks Keras itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resume.errors import SourceError, UsageError
from resume.formats import trust
from resume.formats.trust import CODE, CONFIG, NONE, Trust
from resume.state import TrainState

Config = dict[str, Any]
CONFIGURED = Trust()
CODED = Trust(CODE, ("mine",))


def layer(kind: str, module: str | None = "keras.layers", /, **config: Any) -> Config:
    described = {"class_name": kind, "config": {"name": "it", **config}}
    return described if module is None else {"module": module, **described, "registered_name": None}


def function(module: str | None, name: str) -> Config:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def causes(config: object, allowed: Trust = CONFIGURED) -> list[str]:
    return [str(doubt) for doubt in trust.doubtful(config, allowed)]


OWN = {
    "layer of Keras 3": layer("Dense", units=3, kernel_initializer=layer("Zeros", "keras.initializers")),
    "layer of Keras 2": layer("Dense", None, units=3, activation="relu", kernel_initializer="glorot_uniform"),
    "model": layer("Functional", "keras.src.models.functional", layers=[layer("Add", None)]),
    "optimizer of Keras 2.11": layer("Custom>Adam", None, learning_rate=0.1),
    "optimizer in LossScaleOptimizer": layer("LossScaleOptimizer", None, inner_optimizer=layer("Adam", None)),
    "losses by name": {"loss": ["mse", {"a": "huber"}], "metrics": [["accuracy", "MAE"]], "optimizer": "adam"},
    "loss function": {"loss": function("builtins", "mean_squared_error")},
    "activation function": layer("Activation", activation=function("keras.activations", "gelu")),
    "operation": layer("GetItem", "keras.src.ops.numpy"),
    "tensor": {"class_name": "__keras_tensor__", "config": {"shape": [None], "keras_history": ["a", 0, 0]}},
    "policy": layer("Dense", dtype=layer("DTypePolicy", "keras")),
    "TensorFlow function": layer("TFOpLambda", None, function="math.add"),
    "TensorFlow operation": layer("TensorFlowOpLayer", None, node_def={"name": "x", "op": "AddV2"}),
    "TensorFlow initialiser": layer("Constant", "tensorflow.python.ops.init_ops_v2", value=0),
    "named function in a Lambda": layer("Lambda", function=function("keras.activations", "relu")),
    "words of its own": layer("StringLookup", vocabulary=["a", "b"]),
    "nothing": None,
}  # fmt: skip

FOREIGN = {
    "module": (layer("Popen", "subprocess", args=["true"]), "Popen"),
    "module without a config": ({"module": "this", "class_name": "Zen"}, "Zen"),
    "unknown layer": (layer("NoSuchLayer"), "NoSuchLayer"),
    "registered": ({**layer("Scale", "mine"), "registered_name": "mine>Scale"}, "Scale"),
    "registered over Keras's own": ({**layer("Dense"), "registered_name": "mine>Dense"}, "Dense"),
    "Keras's own name in another module": (layer("Dense", "mine.layers"), "Dense"),
    "function": ({"loss": function("os", "makedirs")}, "makedirs"),
    "builtin": ({"loss": function("builtins", "exec")}, "exec"),
    "activation by name": (layer("Dense", None, activation="mine"), "mine"),
    "loss by name": ({"loss": {"a": "mine>my_loss"}}, "mine>my_loss"),
    "function of a Lambda of Keras 2": (
        layer("Lambda", None, function="makedirs", function_type="function", module="os"), "makedirs",
    ),
}  # fmt: skip

CODE_2 = {"function": ["4wEA", None, None], "function_type": "lambda", "module": "__main__"}
CODE_3 = {"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}}
REFUSED = {
    "bytecode of Keras 2": (layer("Lambda", None, **CODE_2), "Python bytecode (function)"),
    "bytecode of Keras 3": (layer("Lambda", function=CODE_3), "Python bytecode (function)"),
    "bytecode for a shape": (layer("Lambda", function="relu", output_shape=CODE_3), "Python bytecode (output_shape)"),
    "bytecode anywhere": ({"loss": CODE_3}, "__lambda__"),
    "bytecode inside": (layer("TimeDistributed", layer=layer("Lambda", function=CODE_3)), "it/it: a Lambda layer"),
    "words of another file": (layer("TextVectorization", vocabulary="/etc/passwd"), "from another file (/etc/passwd)"),
    "SavedModel": (layer("TFSMLayer", filepath="x"), "opens a SavedModel"),
    "pickle": (layer("TorchModuleWrapper", None, module="gASV"), "unpickles"),
    "file of TensorFlow": (layer("TFOpLambda", None, function="io.read_file"), "calls io.read_file"),
    "Python in TensorFlow": (layer("TensorFlowOpLayer", None, node_def={"op": "EagerPyFunc"}), "calls EagerPyFunc"),
    "hidden operation": (layer("TensorFlowOpLayer", None, node_def="\n\x01"), "cannot be read"),
    "method": (layer("InstanceMethod", None, attr_name="__class__"), "calls __class__"),
    "type": ({"class_name": "__typespec__", "spec_name": "Path", "module": "pathlib", "config": []}, "by Path"),
    "no name": ({"class_name": 3, "config": {}}, "no name of a class"),
}  # fmt: skip
HARMLESS_ELSEWHERE = {
    "class_name": "function",
    "config": "enable",
    "module": "keras.config",
    "registered_name": None,
}


@pytest.mark.parametrize("level", [NONE, CONFIG, CODE])
@pytest.mark.parametrize("kind", OWN)
def test_keras_own_needs_no_trust(kind: str, level: str) -> None:
    assert causes(OWN[kind], Trust(level)) == []


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_rest_must_be_named(kind: str) -> None:
    config, name = FOREIGN[kind]
    assert [doubt.name for doubt in trust.doubtful(config, CONFIGURED)] == [name]
    named = frozenset({name.rpartition(">")[2]})
    assert causes(config, Trust(CONFIG, (), named)) == []
    assert causes(config, Trust(NONE, (), named)) != []


@pytest.mark.parametrize("kind", REFUSED)
def test_code_and_files_take_the_highest_level(kind: str) -> None:
    config, cause = REFUSED[kind]
    assert cause in causes(config)[0]
    named = Trust(CONFIG, (), frozenset({"anything"}))
    assert cause in causes(config, named)[0]
    if kind not in ("type", "no name"):
        assert causes(config, CODED) == []


def test_functions_of_keras_that_are_no_part_of_a_model() -> None:
    for allowed in (CONFIGURED, CODED):
        assert (
            "calls keras.config.enable, which is no part of a model" in causes(HARMLESS_ELSEWHERE, allowed)[0]
        )


def test_a_lambda_stands_for_the_function_that_is_named() -> None:
    config = layer("Lambda", None, **CODE_2)
    assert causes(config, Trust(CONFIG, (), frozenset({"it"}))) == []
    assert causes(config, Trust(CONFIG, (), frozenset({"<lambda>"}))) == []
    assert causes(config, Trust(CONFIG, (), frozenset({"another"}))) != []


def test_trusted_modules_are_prefixes_of_whole_words() -> None:
    allowed = Trust(CODE, ("mine.layers",))
    assert causes(layer("A", "mine.layers"), allowed) == []
    assert causes(layer("A", "mine.layers.deep"), allowed) == []
    assert causes(layer("A", "mine.layersmith"), allowed) != []
    assert causes(layer("A", "mine"), allowed) != []
    assert causes(layer("A", "mine.layers"), Trust(CONFIG, ("mine.layers",))) != []


def test_registered_objects_are_those_of_the_same_module() -> None:
    allowed = Trust(registered={"mine>Scale": "mine.layers", "mine>loss": "mine.losses"})
    same = {**layer("Scale", "mine.layers"), "registered_name": "mine>Scale"}
    assert causes(same, allowed) == []
    assert causes({**same, "module": "theirs"}, allowed) != []
    assert causes({"loss": {**function("builtins", "mine>loss")}}, allowed) == []
    assert causes(layer("mine>Scale", None), allowed) == []  # the file says no module
    assert causes(same, Trust(NONE, registered=allowed.registered)) != []


def test_a_class_of_the_process_that_hides_keras_own() -> None:
    allowed = Trust(registered={"Dense": "mine"})
    assert "registered another class" in causes(layer("Dense"), allowed)[0]
    assert causes(layer("Dense"), Trust(named=frozenset({"Dense"}), registered={"Dense": "mine"})) == []


def test_a_class_of_the_users_may_call_its_arguments_as_it_likes() -> None:
    named = Trust(named=frozenset({"Mine"}))
    assert causes(layer("Mine", "mine", activation="anything", loss="nothing"), named) == []
    assert causes(layer("Mine", "mine", inner=layer("Popen", "subprocess")), named) != []


def state(make_state: Callable[..., TrainState], **config: Any) -> TrainState:
    return make_state(model_config=layer("Sequential", "keras", **config))


def test_messages(make_state: Callable[..., TrainState]) -> None:
    two = state(make_state, layers=[layer("A", "mine"), layer("mine>B", None), layer("A", "mine")])
    with pytest.raises(UsageError) as caught:
        trust.demand(two, CONFIGURED)
    assert str(caught.value) == (
        f"{Path()}: needs custom objects that the configuration does not name. Add (in Python: to custom_objects):\n"
        "  '+custom_objects.A=YOUR.MODULE.A'\n  '+custom_objects.B=YOUR.MODULE.B'"
    )
    with pytest.raises(UsageError, match="trust=none allows none: A, mine>B"):
        trust.demand(two, Trust(NONE))
    code = state(make_state, layers=[layer("Lambda", function=CODE_3)])
    with pytest.raises(SourceError, match="it: a Lambda layer holds Python bytecode") as refused:
        trust.demand(code, CONFIGURED)
    assert len(str(refused.value).splitlines()) == 2


def test_levels_have_names() -> None:
    with pytest.raises(UsageError, match="trust: 'all' is none of none, config, code"):
        Trust("all")
