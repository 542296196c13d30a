"""Variables find the layers that the config lists, whatever Keras's counters were."""

from __future__ import annotations

from typing import Any

from resume.formats import ownership


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


INNER = layer("Sequential", "encoder", layers=[layer("InputLayer", "in"), layer("Dense", "dense_7")])
MODEL = layer(
    "Functional", "model_3", layers=[layer("InputLayer", "x"), INNER, layer("LSTM", "lstm_2", units=2)]
)


def test_each_variable_has_its_layer() -> None:
    shapes = {"encoder/dense/kernel": (2, 3), "lstm/lstm_cell/kernel": (3, 8), "lstm/lstm_cell/bias": (8,)}
    found = ownership.of(MODEL, shapes)
    assert found.whole
    assert [entry.path for entry in found.layers] == ["x", "encoder/in", "encoder/dense", "lstm"]
    owner = found.of("lstm/lstm_cell/kernel")
    assert owner is not None
    assert (owner.kind, owner.config["units"]) == ("LSTM", 2)
    assert list(owner.variables) == ["lstm/lstm_cell/kernel", "lstm/lstm_cell/bias"]


def test_variables_that_nothing_names() -> None:
    found = ownership.of(MODEL, {"encoder/dense/kernel": (2, 3), "layers/dense/vars/0": (2,)})
    assert not found.whole
    assert found.of("layers/dense/vars/0") is None
    assert not ownership.of(None, {"a/kernel": (1,)}).whole
    assert not ownership.of(MODEL, {}).whole


def test_sequential_as_old_keras_writes_it() -> None:
    found = ownership.of(
        {"class_name": "Sequential", "config": [layer("Dense", "dense_1")]}, {"dense/kernel": (1,)}
    )
    assert [entry.path for entry in found.layers] in (["dense_1"], ["dense"])
