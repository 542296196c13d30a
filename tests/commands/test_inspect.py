"""`resume inspect`: what a source holds, as lines and as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from resume import rundir
from resume.commands import inspect
from resume.errors import SourceError
from resume.formats.h5 import NO_OPTIMIZER
from resume.state import Arrays, OptimizerInfo, TrainState

Make = Callable[..., TrainState]

KEYS = [
    "format", "keras_version", "flavour", "optimizer", "iterations", "learning_rate", "num_weights", "num_slots",
    "complete", "custom_objects", "epoch", "batch", "bytes",
]  # fmt: skip


def test_lines(tmp_path: Path, make_state: Make, capsys: pytest.CaptureFixture[str]) -> None:
    path = rundir.publish(tmp_path, make_state(7)).path
    assert inspect.run([str(path)]) == 0
    assert capsys.readouterr().out == (
        f"path            {path}\n"
        "format          native\n"
        "keras version   3.12.0\n"
        "flavour         keras\n"
        "optimizer       SGD\n"
        "iterations      7\n"
        "learning rate   0.125\n"
        "num weights     2\n"
        "num slots       2\n"
        "complete        yes\n"
        "custom objects  -\n"
        "epoch           1\n"
        "batch           2\n"
        "bytes           76\n"
    )


def test_json_of_a_run_is_of_its_newest(
    tmp_path: Path, make_state: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (7, 8):
        rundir.publish(tmp_path, make_state(step))
    assert inspect.run([str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["path", *KEYS]
    assert found == {
        "path": f"{tmp_path}/checkpoints/step-00000008",
        "format": "native",
        "keras_version": "3.12.0",
        "flavour": "keras",
        "optimizer": "SGD",
        "iterations": 8,
        "learning_rate": 0.125,
        "num_weights": 2,
        "num_slots": 2,
        "complete": True,
        "custom_objects": [],
        "epoch": 1,
        "batch": 2,
        "bytes": 76,
    }


def test_arrays(tmp_path: Path, make_state: Make, capsys: pytest.CaptureFixture[str]) -> None:
    path = rundir.publish(tmp_path, make_state(7)).path
    assert inspect.run([str(path), "--arrays"]) == 0
    assert capsys.readouterr().out.split("\n\n")[1] == (
        "name                             dtype    shape  slot\n"
        "model/dense/kernel               float32  3, 2   no\n"
        "model/dense/bias                 float32  2      no\n"
        "optimizer/iteration              int64    -      no\n"
        "optimizer/learning_rate          float32  -      no\n"
        "optimizer/momentum/dense/kernel  float32  3, 2   yes\n"
        "optimizer/momentum/dense/bias    float32  2      yes\n"
    )


def test_a_foreign_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.h5"
    with h5py.File(file, "w") as handle:
        handle.attrs["keras_version"] = "3.12.0"
        layers = [{"class_name": "Mine", "module": "my.layers", "config": {"name": "mine"}}]
        config = {"class_name": "Sequential", "module": "keras", "config": {"name": "s", "layers": layers}}
        handle.attrs["model_config"] = json.dumps(config)
        weights = handle.create_group("model_weights")
        weights.attrs["layer_names"] = ["mine"]
        weights.create_group("mine").attrs["weight_names"] = ["mine/w"]
        weights["mine/mine/w"] = np.ones(3, "float32")
        weights.create_group("top_level_model_weights").attrs["weight_names"] = []
    assert inspect.run([str(file)]) == 0
    out = capsys.readouterr().out
    assert "custom objects  Mine\n" in out
    assert "complete        no\n" in out
    assert "not complete: this file was saved without its optimizer\n" in out
    assert out.count("saved without its optimizer") == 1
    assert out.endswith("  custom_objects:\n    Mine: YOUR.MODULE.Mine\n")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent: no such file or directory\.$"):
        inspect.run([str(tmp_path / "absent")])
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(SourceError, match=r"text\.h5: this file is not a checkpoint that can be read"):
        inspect.run([str(tmp_path / "text.h5")])


# ---- complete ----

VARIABLES = {"a/kernel": (3, 2), "a/bias": (2,), "b/kernel": (2, 2)}


def state(class_name: str, config: dict[str, Any], *slots: str) -> TrainState:
    """A state whose slots are given by role, for every variable, or as `role/variable`, for one."""
    shapes = {f"model/{name}": shape for name, shape in VARIABLES.items()} | {"optimizer/iteration": ()}
    for slot in slots:
        for name in VARIABLES:
            if slot in (name, f"{slot.split('/')[0]}/{name}") or "/" not in slot:
                shapes[f"optimizer/{slot.split('/')[0]}/{name}"] = VARIABLES[name]
    return of(shapes, class_name, config)


def of(shapes: dict[str, tuple[int, ...]], class_name: str, config: dict[str, Any]) -> TrainState:
    arrays = Arrays.of({name: np.ones(shape, "int64") for name, shape in shapes.items()})
    return TrainState(format="h5", path=Path(), arrays=arrays, optimizer=OptimizerInfo(class_name, config))


ADAM = ("momentum", "velocity")


@pytest.mark.parametrize(
    ("class_name", "config", "roles"),
    [
        ("SGD", {"momentum": 0.0}, ()),
        ("SGD", {"momentum": 0.9}, ("momentum",)),
        ("RMSprop", {}, ("velocity",)),
        ("RMSprop", {"momentum": 0.9, "centered": True}, ("velocity", "momentum", "average_gradient")),
        ("Adam", {"amsgrad": False}, ADAM),
        ("AdamW", {"amsgrad": True}, (*ADAM, "velocity_hat")),
        ("Adamax", {}, ("momentum", "norm")),
        ("Nadam", {}, ADAM),
        ("Lamb", {}, ADAM),
        ("ScheduleFreeAdamW", {}, ADAM),
        ("Lion", {}, ("momentum",)),
        ("Adagrad", {}, ("accumulator",)),
        ("Adadelta", {}, ("accumulated_grad", "accumulated_delta_var")),
        ("Ftrl", {}, ("accumulator", "linear")),
        ("Adafactor", {}, ("r", "c", "velocity")),
        ("Muon", {}, ("momentum",)),
        ("Adam", {"use_ema": True}, (*ADAM, "average")),
        ("SGD", {"gradient_accumulation_steps": 4}, ("gradient_accumulator",)),
        ("Custom", {"use_ema": True}, ("average",)),
        ("Custom", {}, ("anything",)),
    ],
)
def test_each_role_that_an_optimizer_demands(
    class_name: str, config: dict[str, Any], roles: tuple[str, ...]
) -> None:
    assert inspect.complete(state(class_name, config, *roles))
    for role in roles:
        if role != "anything":
            assert not inspect.complete(state(class_name, config, *(r for r in roles if r != role)))


@pytest.mark.parametrize(
    ("class_name", "slots", "answer"),
    [
        ("Adam", ("momentum", "velocity/a/kernel", "velocity/a/bias"), False),
        ("Custom", ("first", "second/a/kernel"), False),
        ("Muon", ("momentum", "velocity/a/bias"), True),
        ("Muon", ("momentum/a/kernel", "velocity/a/bias"), False),
        ("Adafactor", ("velocity", "r/a/kernel", "c/a/kernel"), True),
        ("Adafactor", ("velocity/a/kernel", "r", "c"), False),
        ("MultiOptimizer", ("momentum", "velocity/a/bias"), True),
    ],
)
def test_each_role_covers_what_any_role_covers(class_name: str, slots: tuple[str, ...], answer: bool) -> None:
    assert inspect.complete(state(class_name, {}, *slots)) is answer


def test_numbered_slots_are_counted() -> None:
    def numbered(count: int, class_name: str = "Adam", config: dict[str, Any] | None = None) -> bool:
        slots = [shape for shape in VARIABLES.values() for _ in range(2)][:count]
        shapes = {"model/a/kernel": (3, 2), "optimizer/iteration": (), "optimizer/vars/1": ()}
        shapes |= {f"optimizer/vars/{n}": shape for n, shape in enumerate(slots, start=2)}
        described = of(shapes, class_name, config or {})
        assert inspect.described(described)["num_slots"] == count
        return inspect.complete(described)

    assert [numbered(count) for count in range(7)] == [False, False, True, False, True, False, True]
    assert not numbered(6, config={"use_ema": True})  # three of each shape it would take
    assert numbered(5, "Custom")
    assert numbered(5, "MultiOptimizer")


def test_weights_counter_and_optimizer(make_state: Make) -> None:
    whole = make_state(7)
    assert inspect.complete(whole)

    def without(prefix: str) -> TrainState:
        kept = {name: array for name, array in whole.arrays.items() if not name.startswith(prefix)}
        return replace(whole, arrays=Arrays.of(kept))

    for part in ("model/", "optimizer/iteration", "optimizer/momentum"):
        assert not inspect.complete(without(part)), part
    assert inspect.complete(without("optimizer/learning_rate"))
    assert inspect.complete(replace(whole, optimizer=None))  # the settings are no part of the arrays


def test_a_wrapped_optimizer_is_judged_by_the_inner_one() -> None:
    config = {"inner_optimizer": {"class_name": "Adam", "config": {"amsgrad": True}}}
    assert not inspect.complete(state("LossScaleOptimizer", config, *ADAM))
    whole = state("LossScaleOptimizer", config, *ADAM, "velocity_hat")
    assert inspect.complete(whole)
    assert inspect.described(whole)["optimizer"] == "Adam"


def test_custom_objects(make_state: Make) -> None:
    config = {
        "class_name": "Sequential",
        "module": "keras",
        "registered_name": None,
        "config": {"layers": [
            {"class_name": "Gate", "module": "my.layers", "registered_name": "my>Gate", "config": {}},
            {"class_name": "Dense", "module": "keras.layers", "registered_name": None, "config": {
                "activation": {"class_name": "function", "module": "builtins", "config": "wavy",
                               "registered_name": "my>wavy"},
                "kernel_initializer": {"class_name": "Zeros", "module": "keras.initializers", "config": {}},
            }},
        ]},
    }  # fmt: skip
    optimizer = OptimizerInfo(
        "Adam", {"learning_rate": {"class_name": "Warmup", "module": "my", "config": {}}}
    )
    described = inspect.described(make_state(1, model_config=config, optimizer=optimizer))
    assert described["custom_objects"] == ["Gate", "Warmup", "wavy"]


# ---- what it says of what is missing ----


@pytest.mark.parametrize(
    ("class_name", "slots", "said"),
    [
        ("Adam", ("momentum",), ["no velocity slots, which Adam has"]),
        ("Adam", (), ["no momentum slots, which Adam has", "no velocity slots, which Adam has"]),
        ("Adam", ("momentum", "velocity/a/kernel"), ["no velocity slot for a/bias and 1 more"]),
        ("Adam", ("momentum", "velocity/a/kernel", "velocity/a/bias"), ["no velocity slot for b/kernel"]),
        ("Adam", ADAM, []),
    ],
)
def test_which_slots_are_missing(class_name: str, slots: tuple[str, ...], said: list[str]) -> None:
    assert inspect.lacking(state(class_name, {}, *slots)) == said


def test_numbered_slots_that_do_not_come_out_even() -> None:
    shapes: dict[str, tuple[int, ...]] = {"model/a/kernel": (3, 2), "optimizer/iteration": ()}
    odd = of(shapes | {"optimizer/vars/2": (3, 2)}, "Adam", {})
    assert inspect.lacking(odd) == ["1 numbered slots, which is not 2 for every variable"]


def test_an_optimizer_that_has_made_no_step_needs_no_slots(make_state: Make) -> None:
    def without_slots(step: int) -> TrainState:
        state = make_state(step)
        kept = {n: a for n, a in state.arrays.items() if "momentum" not in n}
        return replace(state, arrays=Arrays.of(kept))

    assert inspect.complete(without_slots(0))
    assert inspect.lacking(without_slots(1)) == ["no momentum slots, which SGD has"]
    zeroed = replace(make_state(0), arrays=Arrays.of(
        {n: a for n, a in make_state(0).arrays.items() if n != "optimizer/momentum/dense/bias"}
    ))  # fmt: skip
    assert inspect.complete(make_state(0))
    assert inspect.described(zeroed)["num_slots"] == 1


def test_why_a_source_is_not_complete(make_state: Make) -> None:
    whole = make_state(7)

    def kept(*prefixes: str, **facts: Any) -> list[str]:
        arrays = {n: a for n, a in whole.arrays.items() if n.startswith(prefixes)}
        return inspect.lacking(replace(whole, arrays=Arrays.of(arrays), **facts))

    assert kept("model/", "optimizer/") == []
    assert (
        kept("model/")
        == kept("model/", "optimizer/learning_rate")
        == ["this file was saved without its optimizer"]
    )
    assert kept("optimizer/") == ["no weights"]
    assert kept("model/", "optimizer/momentum") == ["no iteration count"]
    assert kept("model/", "optimizer/", optimizer=None) == []
    assert kept("model/", "optimizer/iteration", optimizer=None) == [
        "no slots, and no settings of the optimizer that would say whether it has any"
    ]


def test_remarks_say_each_thing_once(make_state: Make) -> None:
    bare = replace(
        make_state(7),
        arrays=Arrays.of({"model/a": np.zeros(1)}),
        notes=("this file was saved without its optimizer", "guessed"),
    )
    assert list(inspect.remarks(bare)) == [
        "not complete: this file was saved without its optimizer",
        "note: guessed",
    ]
    assert list(inspect.remarks(make_state(7))) == []


# ---- custom objects ----


def lambda_layer(name: str, function: Any, **more: Any) -> dict[str, Any]:
    return {"class_name": "Lambda", "config": {"name": name, "function": function, **more}}


CODE2: dict[str, Any] = {"function": ["4wEAAAA=\n", None, None], "function_type": "lambda"}
CODE3 = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}


def with_layers(make_state: Make, *layers: dict[str, Any], **facts: Any) -> TrainState:
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}
    return make_state(1, model_config=model, **facts)


@pytest.mark.parametrize("layer", [lambda_layer("half", **CODE2), lambda_layer("half", CODE3)])
def test_one_lambda(make_state: Make, layer: dict[str, Any]) -> None:
    state = with_layers(make_state, layer)
    assert inspect.described(state)["custom_objects"] == ["<lambda>"]
    assert list(inspect.remarks(state)) == [
        "custom objects: add to the configuration where each is imported from",
        "  custom_objects:",
        '    "<lambda>": YOUR.MODULE.FUNCTION',
        "  (layer half: the code in the file is never run; name a function of yours that computes the same)",
    ]


def test_several_lambdas_are_told_by_their_layers(make_state: Make) -> None:
    nested = {"class_name": "Sequential", "config": {"name": "in", "layers": [lambda_layer("b", CODE3)]}}
    state = with_layers(make_state, lambda_layer("a", **CODE2), nested)
    assert inspect.described(state)["custom_objects"] == ["<lambda>"]
    assert list(inspect.remarks(state))[2:4] == [
        '    "a": YOUR.MODULE.FUNCTION',
        '    "b": YOUR.MODULE.FUNCTION',
    ]


def test_a_lambda_of_a_named_function_is_that_name(make_state: Make) -> None:
    layer = lambda_layer("half", "halved", function_type="function", module="mine")
    assert inspect.described(with_layers(make_state, layer))["custom_objects"] == ["halved"]


def test_all_names_of_a_keras_2_file_at_once(make_state: Make) -> None:
    """Keras 2 says no module: whatever is not Keras's own by name."""
    state = with_layers(
        make_state,
        {"class_name": "Dense", "config": {"name": "d", "activation": "wavy", "kernel_initializer": {
            "class_name": "GlorotUniform", "config": {"seed": None}}}},
        {"class_name": "fx>ScaledDense", "config": {"name": "s"}},
        compile_config={"loss": "huberish", "metrics": ["mae"], "optimizer_config": {
            "class_name": "Custom>Mine", "config": {}}},
        keras_version="2.8.0",
    )  # fmt: skip
    assert inspect.described(state)["custom_objects"] == ["Mine", "ScaledDense", "huberish", "wavy"]


FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize(
    ("run", "names"),
    [
        ("o14_e212_custom_reg_adam", ["BiasMetric", "ScaledDense", "fx_huberish"]),
        ("o30_e215_custom_unreg_legacy_adam", ["PlainScale", "plain_loss", "plain_mae"]),
        ("o40_k38_custom_reg_adam", ["BiasMetric", "ScaledDense", "fx_huberish"]),
        ("o45_k315_mlp_adam_control", []),
    ],
)
def test_real_files(run: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    case = json.loads((FIXTURES / run / "case.json").read_text())
    for file in case["files"]:
        assert inspect.run([str(FIXTURES / run / file["path"]), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["custom_objects"] == (names if not file["format"].startswith("weights") else [])
        assert found["complete"] is True
        assert found["iterations"] == case["optimizer"]["iterations"]
        assert found["num_weights"] == len(case["weights"])
        assert found["flavour"] == ("keras" if case["generator"]["keras"][0] == "3" else "tf_keras")


@pytest.mark.parametrize(
    "path",
    [
        "o31_e215_mlp_adam_noopt/model.h5",
        "o18_e215_mlp_adam/weights.h5",
        "o19_e215_mlp_legacy_adam/model.keras",
    ],
)
def test_files_without_their_optimizer_say_so(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.run([str(FIXTURES / path)]) == 0
    out = capsys.readouterr().out
    assert "complete        no\n" in out
    assert "not complete: this file was saved without its optimizer\n" in out


def test_optimizers_beside_the_models_own(make_state: Make) -> None:
    """An actor and a critic saved together: neither is the model's own, and both are there."""
    state = make_state(3, extra={
        "beside/actor/iteration": np.array(9), "beside/actor/momentum/dense/kernel": np.ones((3, 2), "float32"),
        "beside/critic/iteration": np.array(8),
    })  # fmt: skip
    specs = {n: s for n, s in state.specs.items() if not n.startswith("optimizer/")}
    arrays = Arrays(specs, read=state.arrays.__getitem__)
    state = replace(state, arrays=arrays, optimizer=None, notes=(NO_OPTIMIZER,))
    assert inspect.described(state)["num_slots"] == 1
    assert inspect.complete(state)
    assert list(inspect.remarks(state)) == [
        "beside the model's own optimizer: actor, 9 iterations, 1 slots",
        "beside the model's own optimizer: critic, 8 iterations, 0 slots",
    ]


def test_a_loss_that_is_a_lambda(make_state: Make) -> None:
    state = make_state(1, compile_config={"loss": ["<lambda>"], "optimizer_config": {}})
    assert inspect.custom_objects(state) == ["<lambda>"]
    assert list(inspect.remarks(state))[-1] == '    "<lambda>": YOUR.MODULE.FUNCTION'
