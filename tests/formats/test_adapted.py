"""What adapt() found, as settings: vocabularies, weights of tf_idf, boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resume.errors import SourceError
from resume.formats import adapted


def lookup(name: str = "string_lookup", kind: str = "StringLookup", **config: Any) -> dict[str, Any]:
    common = {
        "name": name,
        "vocabulary": None,
        "num_oov_indices": 1,
        "mask_token": None,
        "output_mode": "int",
    }
    return {"class_name": kind, "config": {**common, **config}}


def model(*items: Any, **config: Any) -> dict[str, Any]:
    return {"class_name": "Functional", "config": {"name": "model", "layers": list(items), **config}}


def vocabulary(text: bytes, **config: Any) -> Any:
    whole = model(lookup(**config))
    texts = {"layers/string_lookup": text}
    done, (layer,) = adapted.completed(whole, texts, {}, {}, twice=False, path=Path("a.keras"))
    assert layer.config is done["config"]["layers"][0]["config"]
    assert whole["config"]["layers"][0]["config"]["vocabulary"] is None  # the one given is as it was
    return layer.config["vocabulary"]


@pytest.mark.parametrize(
    ("text", "config", "found"),
    [
        (b"[UNK]\na\nb", {}, ["[UNK]", "a", "b"]),
        (b"[UNK]\na\n", {"vocabulary_size": 3}, ["[UNK]", "a", ""]),  # the empty text is a term
        (b"[UNK]\na\n", {"vocabulary_size": None}, ["[UNK]", "a"]),
        (b"[UNK]\r\na\r\nb", {}, ["[UNK]", "a", "b"]),  # written on Windows
        ("[UNK]\né\u2028x\x0cy".encode(), {}, ["[UNK]", "é\u2028x\x0cy"]),  # no line breaks to Keras's writer
        (b"-1\n5\n-9", {"vocabulary_dtype": "int64"}, [-1, 5, -9]),
        (b"[UNK]\n[UNK]\na", {"num_oov_indices": 2}, ["[UNK]", "[UNK]", "a"]),
        (b"\n[UNK]\na", {"mask_token": ""}, ["", "[UNK]", "a"]),
        (b"[UNK]", {}, None),  # never adapted
        (b"[UNK]\na\nb", {"vocabulary_size": 2}, None),  # a term has a line break
    ],
)
def test_terms(text: bytes, config: dict[str, Any], found: Any) -> None:
    assert vocabulary(text, **config) == found


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        (b"[UNK]\n\xff", {}, "is no text in UTF-8"),
        (b"[UNK]\na\na", {}, "a term is there twice: damaged"),
        (b"-1\n5x", {"vocabulary_dtype": "int64"}, "'5x' is no integer"),
        (b"-1\n99999999999999999999", {"vocabulary_dtype": "int64"}, "is no integer"),
        (b"\n" * (1 << 23), {}, "has more than 8388608 lines"),
    ],
)
def test_what_is_no_vocabulary(text: bytes, config: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message) as refused:
        vocabulary(text, **config)
    assert str(refused.value).startswith("a.keras: assets/layers/string_lookup/vocabulary.txt: ")


def test_every_layer_gets_its_own() -> None:
    inner = model(lookup(), lookup("b"))
    inner["config"]["name"] = "inner"
    texts = {
        "layers/functional/layers/string_lookup": b"[UNK]\nx",
        "layers/functional/layers/string_lookup_1": b"[UNK]\ny",
        "layers/string_lookup": b"[UNK]\nz",
    }
    done, found = adapted.completed(model(inner, lookup()), texts, {}, {}, twice=False, path=Path("a"))
    nested, own = done["config"]["layers"]
    assert [item["config"]["vocabulary"][1] for item in (*nested["config"]["layers"], own)] == ["x", "y", "z"]
    assert [layer.address for layer in found] == list(texts)


def test_a_vocabulary_that_names_a_file_stays_as_it_is() -> None:
    assert vocabulary_of("words.txt") == "words.txt"


def vocabulary_of(given: Any) -> Any:
    whole, texts = model(lookup(vocabulary=given)), {"layers/string_lookup": b"[UNK]\na"}
    done, _ = adapted.completed(whole, texts, {}, {}, twice=False, path=Path("a"))
    return done["config"]["layers"][0]["config"]["vocabulary"]


def test_weights_of_tf_idf_are_filled_up_as_the_layer_does() -> None:
    given = {"output_mode": "tf_idf", "vocabulary": ["a", "b"], "idf_weights": [0.25, 0.75]}
    padded = lookup("p", max_tokens=4, pad_to_max_tokens=True, **given)
    special = lookup("s", **{**given, "vocabulary": ["[UNK]", "a"]})
    found = dict(adapted.weights(model(lookup(**given), padded, special, lookup("int"))))
    assert {path: array.tolist() for path, array in found.items()} == {
        "string_lookup/idf_weights": [0.5, 0.25, 0.75],
        "p/idf_weights": [0.5, 0.25, 0.75, 0.0],
        "s/idf_weights": [0.25, 0.75],
    }
    assert {array.dtype.name for array in found.values()} == {"float32"}


def bins(name: str = "bins", **config: Any) -> dict[str, Any]:
    return {"class_name": "Discretization", "config": {"name": name, "num_bins": 2, **config}}


SUMMARY = np.array([[1, 2, 3, 4], [1, 1, 1, 1]], "float32")


def test_boundaries_are_made_of_the_counts() -> None:
    done, names = adapted.discretized(model(bins()), {"bins": SUMMARY})
    assert names == {"bins"}
    assert done["config"]["layers"][0]["config"] == {
        "name": "bins",
        "num_bins": None,
        "bin_boundaries": [2.0],
    }


@pytest.mark.parametrize(
    ("items", "summary"),
    [
        ([bins(num_bins=None)], SUMMARY),
        ([bins()], SUMMARY[:, :0]),
        ([bins()], SUMMARY * np.nan),
        ([bins()], SUMMARY * 0),
        ([bins()], SUMMARY[0]),
        ([bins(), bins()], SUMMARY),  # whose it is, the name does not tell
    ],
)
def test_boundaries_that_cannot_be_made(items: list[Any], summary: Any) -> None:
    done, names = adapted.discretized(model(*items), {"bins": summary})
    assert (done, names) == (model(*items), set())
