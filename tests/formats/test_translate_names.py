"""Layer names with slashes, which Keras 3 refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from resume.formats import translate_names
from resume.state import TrainState

Make = Callable[..., TrainState]


def layer(name: str, *inputs: str) -> dict[str, Any]:
    nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
    return {"class_name": "Dense", "name": name, "config": {"name": name}, "inbound_nodes": nodes}


def model(*layers: dict[str, Any], end: str) -> dict[str, Any]:
    config = {"name": "m", "layers": list(layers), "output_layers": [[end, 0, 0]]}
    return {"class_name": "Functional", "config": config}


def test_nothing_to_rename(make_state: Make) -> None:
    state = make_state(1, model_config=model(layer("a"), end="a"))
    assert translate_names.without_slashes(state) == (state, ())


def test_everywhere_at_once(make_state: Make) -> None:
    arrays = {
        name: np.ones(2, "float32")
        for name in ("model/conv1/conv/kernel", "optimizer/momentum/conv1/conv/kernel")
    }
    given = model(layer("conv1"), layer("conv1/conv", "conv1"), layer("b", "conv1/conv"), end="conv1/conv")
    state = make_state(
        1,
        extra=arrays,
        model_config=given,
        compile_config={"loss": {"conv1/conv": "mse"}},
        places={"model/conv1/conv/kernel": "conv1/conv/0"},
    )
    found, said = translate_names.without_slashes(state)
    assert said == ("layer names may have no slash in Keras 3: conv1/conv is conv1_conv now",)
    assert found.model_config == model(
        layer("conv1"), layer("conv1_conv", "conv1"), layer("b", "conv1_conv"), end="conv1_conv"
    )
    assert found.compile_config == {"loss": {"conv1_conv": "mse"}}
    assert {"model/conv1_conv/kernel", "optimizer/momentum/conv1_conv/kernel"} <= set(found.specs)
    assert found.places == {"model/conv1_conv/kernel": "conv1/conv/0"}
    np.testing.assert_array_equal(found.arrays["model/conv1_conv/kernel"], arrays["model/conv1/conv/kernel"])


def test_a_name_in_use_is_not_taken(make_state: Make) -> None:
    state = make_state(1, model_config=model(layer("a/b"), layer("a_b", "a/b"), layer("a/b/c"), end="a_b"))
    found, said = translate_names.without_slashes(state)
    names = [item["name"] for item in (found.model_config or {})["config"]["layers"]]
    assert names == ["a_b_", "a_b", "a_b_c"]
    assert said == ("layer names may have no slash in Keras 3: a/b is a_b_ now (and 1 more like it)",)
