"""The lists against the libraries that are installed: a new version's new layer must be put on them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any

import pytest

from resume.formats import trust, vocabulary
from resume.formats.trust import Trust

GROUPS = ("layers", "optimizers", "losses", "metrics", "initializers", "regularizers", "constraints")
# Not plain parts of a model: judged one by one in resume.formats.suspects, or no part of any.
JUDGED = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"}


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def library(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def modules(library: Any) -> Iterator[Any]:
    yield from (getattr(library, group) for group in GROUPS)
    yield library.optimizers.schedules
    yield from (
        getattr(library.optimizers, name)
        for name in ("legacy", "experimental")
        if library.__name__ == "tf_keras"
    )


def test_every_class_is_known(library: Any) -> None:
    classes = [item for module in modules(library) for item in vars(module).values() if inspect.isclass(item)]
    names = {kind.__name__ for kind in classes if hasattr(kind, "from_config")} - JUDGED
    assert len(names) > 150
    unknown = {n for n in names if list(trust.doubtful({"class_name": n, "config": {}}, Trust()))}
    assert unknown == set()


def test_every_function_is_known(library: Any) -> None:
    tools = {"get", "serialize", "deserialize"}
    named = {
        name
        for group in ("activations", "losses", "metrics")
        for name, item in vars(getattr(library, group)).items()
        if isinstance(item, types.FunctionType)
    }
    assert named - tools <= vocabulary.ACTIVATIONS | vocabulary.LOSS_FUNCTIONS | vocabulary.METRIC_FUNCTIONS


def test_operations_of_keras_3_are_known() -> None:
    keras = pytest.importorskip("keras")
    functions = {name for name in dir(keras.ops) if name[0] != "_"}
    bare = {name.lower().replace("_", "") for name in functions}
    assert {name.lower() for name in vocabulary.OPERATIONS} & bare  # both speak of the same things
    operation = keras.ops.abs(keras.Input((2,)))._keras_history.operation
    described = keras.saving.serialize_keras_object(operation)
    assert list(trust.doubtful(described, Trust())) == []


@pytest.mark.parametrize(
    "name", ["math.add", "compat.v1.transpose", "nn.relu", "__operators__.getitem", "reshape"]
)
def test_pure_functions_of_tensorflow(name: str) -> None:
    assert vocabulary.TENSORFLOW_FUNCTIONS.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    ["io.write_file", "py_function", "numpy_function", "raw_ops.ReadFile", "random.set_seed", "saved_model.load",
     "keras.backend.set_floatx", "keras.losses.get", "experimental.numpy.experimental_enable_numpy_behavior",
     "load_op_library", "math.add; x", "print", "data.Dataset", "compat.v1.py_func", "function"],
)  # fmt: skip
def test_functions_of_tensorflow_that_do_more(name: str) -> None:
    assert not vocabulary.TENSORFLOW_FUNCTIONS.fullmatch(name)
