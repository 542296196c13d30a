"""The files of real runs, TensorFlow 2.4 to 2.19: every weight, slot and count, bit for bit.

The truth was written by the runs themselves (truth.npz); the expected names come from case.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.formats import savedmodel, tfcheckpoint, tfoptimizers
from resume.formats.graph import Graph, Node, Stored
from resume.formats.trackables import is_numbered
from resume.state import TrainState

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMATS = ("savedmodel", "weights_tf", "tf_checkpoint", "backup")
ROLES = {
    "m": "momentum", "v": "velocity", "vhat": "velocity_hat", "momentum": "momentum", "mg": "average_gradient",
    "accum_grad": "accumulated_grad", "accum_var": "accumulated_delta_var",
}  # fmt: skip


def sources() -> Iterator[tuple[str, str, str]]:
    """(case, format, path) of every file of TensorFlow's own."""
    for file in sorted(FIXTURES.glob("o[0-9]*/case.json")):
        for item in json.loads(file.read_text())["files"]:
            of_keras_3 = item["format"] == "backup" and not (file.parent / item["path"] / "chief").is_dir()
            if item["format"] in FORMATS and item["path"] and not of_keras_3:
                yield file.parent.name, item["format"], item["path"]


def read(case: str, kind: str, path: str) -> TrainState:
    source = FIXTURES / case / path
    if kind == "savedmodel":
        return savedmodel.read(source)
    return tfcheckpoint.read(source / "chief" if kind == "backup" else source)


def expected(case: dict[str, Any], *, nested: bool) -> dict[str, str]:
    """Canonical name -> weight id. `nested`: the file tells what is inside what."""
    out = {}
    for weight in case["weights"]:
        layers, parts = weight["layer"].split("/"), weight["name"].split(":")[0].split("/")
        tail = parts[parts.index(layers[-1]) + 1 :] if layers[-1] in parts else parts[-1:]
        out["/".join([*(layers if nested else layers[-1:]), *tail])] = weight["id"]
    return out


@pytest.mark.parametrize(("case", "kind", "path"), list(sources()))
def test_a_real_run_is_read_bit_for_bit(case: str, kind: str, path: str) -> None:
    facts, truth = (
        json.loads((FIXTURES / case / "case.json").read_text()),
        np.load(FIXTURES / case / "truth.npz"),
    )
    state = read(case, kind, path)
    weights = expected(facts, nested=kind == "savedmodel")
    names = {weight: name for name, weight in weights.items()}
    wanted = {f"model/{name}": truth[f"k/{weight}"] for name, weight in weights.items()}
    for slot in facts["optimizer"]["slots"]:
        wanted[f"optimizer/{ROLES[slot['slot']]}/{names[slot['weight']]}"] = truth[f"k/{slot['suffix']}"]
    assert {*state.weights, *state.slots} == set(wanted)
    for name, array in wanted.items():
        assert (state.arrays[name].dtype, state.arrays[name].shape) == (array.dtype, array.shape)
        assert state.arrays[name].tobytes() == array.tobytes(), name
    assert state.iterations == facts["optimizer"]["iterations"]
    assert state.optimizer is not None
    assert state.optimizer.inner.class_name == facts["optimizer"]["cls"]
    assert state.optimizer.legacy == (facts["optimizer"]["api"] == "legacy")
    assert state.flavour == ("keras" if facts["optimizer"]["api"] == "keras3" else "tf_keras")
    if facts["optimizer"]["lr_kind"] == "constant":
        assert state.learning_rate == facts["optimizer"]["learning_rate_now"]


def test_places_are_paths_of_attributes() -> None:
    state = read("o06_e28_nested_adam_decay", "weights_tf", "weights_tf/ckpt")
    assert state.places["model/enc_bn/gamma"] == "layer_with_weights-0/layer_with_weights-1/gamma"
    state = read("o17_e212_subclassed_adam", "savedmodel", "saved_model")
    assert state.places["model/first/kernel"] == "first/kernel"  # in the file, the key is variables/0
    assert set(state.places) == set(state.weights)


def test_metrics_of_a_savedmodel_carry_their_names() -> None:
    state = read("o08_e210_mlp_adam", "savedmodel", "saved_model")
    metrics = {name for name in state.specs if name.startswith("metrics/")}
    assert metrics == {f"metrics/{name}/{part}" for name in ("loss", "mae") for part in ("total", "count")}


def test_raw_names_are_those_of_the_file() -> None:
    state = read("o27_e215_mlp_named_adam_mixed", "savedmodel", "saved_model")
    assert state.raw_names["optimizer/momentum/hid_a/kernel"] == "m/hid_a/kernel"
    assert {"optimizer/loss_scale/current_loss_scale", "optimizer/loss_scale/good_steps"} <= set(state.specs)


@pytest.mark.parametrize("edge", ["layer-0", "layer_with_weights-12"])
def test_layers_of_keras_2_are_numbered(edge: str) -> None:
    assert is_numbered(edge)


@pytest.mark.parametrize("edge", ["layer", "layer-x", "player-0", "layer-", "layers-1"])
def test_other_attributes_are_not(edge: str) -> None:
    assert not is_numbered(edge)


def test_things_beside_the_model_are_named(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer="sgd", loss="mean_squared_error")
    model.optimizer.build(model.trainable_variables)
    data = iter(tf.data.Dataset.range(9))
    beside = {"step": tf.Variable(4), "draws": tf.random.Generator.from_seed(1), "data": data}
    tf.train.Checkpoint(net=model, opt=model.optimizer, **beside).save(str(tmp_path / "ck"))
    state = tfcheckpoint.read(tmp_path)
    assert set(state.weights) == {"model/dense/kernel", "model/dense/bias"}
    assert set(state.places.values()) >= {"_functional/_operations/1/_kernel"}
    assert "step is stored beside the model and its optimizer: it is not restored" in state.notes
    assert any(note.startswith("data/") and "is no variable" in note for note in state.notes)
    assert any(note.startswith("draws/_state_var is stored beside") for note in state.notes)
    assert not any("save_counter" in note for note in state.notes)


def test_optimizers_beside_each_other_keep_their_slots(tmp_path: Path) -> None:
    import tensorflow as tf
    import tf_keras as keras

    def part(name: str) -> Any:
        return keras.Sequential([keras.layers.Dense(2, input_shape=(3,), name=name)])

    both = {"generator": part("g"), "judge": part("j")}
    optimizers = {f"{n}_optimizer": keras.optimizers.SGD(0.1, momentum=0.9) for n in both}
    for model, optimizer in zip(both.values(), optimizers.values(), strict=True):
        optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(**both, **optimizers).write(str(tmp_path / "ck"))
    state = tfcheckpoint.read(tmp_path / "ck")
    assert set(state.weights) == {f"model/{name}/{part}" for name in "gj" for part in ("kernel", "bias")}
    assert state.places["model/j/kernel"] == "judge/layer_with_weights-0/kernel"
    for name, optimizer in (("generator", "g"), ("judge", "j")):
        assert f"beside/{name}_optimizer/momentum/{optimizer}/kernel" in state.specs
        assert f"beside/{name}_optimizer/iteration" in state.specs
    assert state.iterations is None


def test_a_graph_that_turns_in_circles_ends() -> None:
    nodes = [
        Node({"optimizer": 1, "self": 0}),
        Node({"_variables": 2, "_iterations": 2, "model": 0}),
        Node({"0": 1}),
    ]
    stored = Stored(Graph.of_nodes(nodes), None)  # type: ignore[arg-type]
    assert tfoptimizers.find(stored, model=0).nodes <= {0, 1, 2}
