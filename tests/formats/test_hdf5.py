"""JSON out of foreign files."""

from __future__ import annotations

from pathlib import Path

import pytest

from resume.errors import SourceError
from resume.formats.hdf5 import strict_json

BAD = {
    "a list": ("[1]", "a JSON object is expected, not list"),
    "a number": ("3", "a JSON object is expected"),
    "nothing": ("", "Expecting value"),
    "cut off": ('{"a": ', "Expecting value"),
    "a key twice": ('{"a": {"b": 1, "b": 2}}', "the key 'b' occurs twice"),
    "hundreds of digits": (f'{{"a": 1{"0" * 400}}}', "has 401 digits"),
    "twenty digits": ('{"a": 99999999999999999999}', "has 20 digits"),
    "deep": ('{"a": ' + "[" * 300 + "]" * 300 + "}", "nested more than 200 deep"),
    "very deep": ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "recursion"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_no_file_of_keras_says(kind: str) -> None:
    text, cause = BAD[kind]
    with pytest.raises(SourceError, match=r"a\.keras: config\.json cannot be read") as caught:
        strict_json(text, Path("a.keras"), "config.json")
    assert cause in str(caught.value)


def test_what_keras_says() -> None:
    text = '{"a": [NaN, -Infinity, 1e400, -9223372036854775808, 18446744073709551615], "b": {"c": null}}'
    found = strict_json(text, Path("a.keras"), "config.json")
    assert found["a"][3:] == [-(2**63), 2**64 - 1]
    assert found["b"] == {"c": None}
    assert strict_json(('{"a": ' * 150 + "1" + "}" * 150).encode(), Path("a"), "x")
