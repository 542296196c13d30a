"""Plain values make a round trip through strict JSON, bit for bit."""

from __future__ import annotations

import json
import math
import random
from collections import OrderedDict, defaultdict, deque
from enum import IntEnum
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from resume import plain
from resume.plain import NotPlainError


def trip(value: Any) -> Any:
    """Through JSON text and back; arrays set aside."""
    aside: dict[str, np.ndarray] = {}

    def keep(array: np.ndarray) -> str:
        aside[f"a/{len(aside)}"] = array
        return f"a/{len(aside) - 1}"

    text = json.dumps(plain.encode(value, keep=keep), allow_nan=False)
    return plain.decode(json.loads(text), find=aside.__getitem__)


@pytest.mark.parametrize(
    "value",
    [
        [0.1, -0.0, math.inf, math.nan, 5e-324] * 250,
        [3, -(2**63), 2**63 - 1] * 400,
        [2**63, *range(2000)],
        [*range(2000), True],
        [True, False] * 600,
        [1.5, 2] * 600,
        [0.5] * 1000 + [None],
        [np.float32(1.5), np.float32("nan")] * 600,
        [np.float64(0.1)] * 1000,
        [np.complex128(1j)] * 1000,
        [np.bool_(True)] * 1000,
        [ml_dtypes.bfloat16(1.5)] * 1000,
        [np.str_("a")] * 1000,
        ["a"] * 1000,
        [[0.5] * 1000, {"loss": [1.0] * 1000}],
        deque([0.5] * 1200, maxlen=1300),
    ],
    ids=lambda value: f"{type(value).__name__} of {type(value[0]).__name__}",
)
def test_long_lists(value: Any) -> None:
    """As if they were short: what cannot be held, and what comes back, member by member."""
    short = value[:3] if isinstance(value, list) else value
    try:
        trip(short)
    except NotPlainError:
        with pytest.raises(NotPlainError):
            trip(value)
        return
    assert same(trip(value), value)
    aside: list[np.ndarray] = []
    plain.encode([0.5] * 100_000, keep=lambda array: aside.append(array) or "")
    assert [array.shape for array in aside] == [(100_000,)]
    assert plain.encode([0.5] * 2000) == [0.5] * 2000  # where no arrays can be set aside


class Text:
    numpy = None  # as if it were a tensor

    def __str__(self) -> str:
        return "text"


def test_bare() -> None:
    value = {
        "f": np.float64(0.5),
        3: np.int64(2),
        "a": [np.arange(2), (np.float32(1.5),)],
        "t": Text(),
        "n": None,
    }
    found = plain.bare(value)
    assert same(found, {"f": 0.5, 3: 2, "a": [[0, 1], [1.5]], "t": "text", "n": None})
    assert plain.decode(plain.encode(found)) == found


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, float | np.generic):
        return repr(a) == repr(b)
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(map(same, a.values(), b.values()))
    return bool(a == b)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        2**200,
        "",
        "ünï \ud800",
        1e-07,
        0.1 + 0.2,
        -0.0,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
        [],
        (),
        (1, [2, (3,)]),
        {},
        {"a": {"b": None}},
        {"$tuple": [1]},
        {"$dict": 1, "x": 2},
        {1: "a", (2, 3): "b", None: "c"},
        {1, 2},
        frozenset({1, (2,)}),
        deque([1, 2, 3], maxlen=3),
        deque(),
        b"\x00\xff",
        complex(-0.0, math.inf),
        Path("a b/c.h5"),
    ],
    ids=repr,
)
def test_round_trip(value: Any) -> None:
    assert same(trip(value), value)
    assert same(trip([value, {"inside": value}]), [value, {"inside": value}])


def test_a_deque_keeps_its_limit() -> None:
    assert trip(deque([1], maxlen=4)).maxlen == 4


def test_an_ordered_dict_becomes_a_dict_in_the_same_order() -> None:
    assert list(trip(OrderedDict([("b", 1), ("a", 2)])).items()) == [("b", 1), ("a", 2)]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "bfloat16", "float64", "complex64"])
def test_arrays_are_set_aside(dtype: str) -> None:
    array = np.arange(4).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    back = trip({"best": array, "scalar": array[1]})
    assert back["best"] is array
    assert type(back["scalar"]) is type(array[1])
    assert back["scalar"] == array[1]


@pytest.mark.parametrize(
    "generator",
    [random.Random(3), np.random.RandomState(3)]
    + [
        np.random.Generator(bits(3))
        for bits in (
            np.random.PCG64,
            np.random.PCG64DXSM,
            np.random.MT19937,
            np.random.Philox,
            np.random.SFC64,
        )
    ],
    ids=lambda g: type(getattr(g, "bit_generator", g)).__name__,
)
def test_generators_go_on_where_they_were(generator: Any) -> None:
    draw = getattr(generator, "standard_normal", getattr(generator, "gauss", None))
    assert draw is not None
    ahead = (0.0, 1.0) if isinstance(generator, random.Random) else ()
    draw(*ahead)
    back = trip(generator)
    again = getattr(back, draw.__name__)
    assert [again(*ahead) for _ in range(5)] == [draw(*ahead) for _ in range(5)]


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        (print, "builtin_function_or_method"),
        (Colour.RED, "Colour"),
        (defaultdict(list), "defaultdict"),
        (np.array(["a"]), "ndarray of <U1"),
        (np.array([None]), "ndarray of object"),
        (np.zeros(2, "complex128"), "ndarray of complex128"),
        (np.str_("a"), "ndarray of <U1"),
        ([1, {"a": object()}], "object"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_is_not_plain_is_named(value: Any, named: str) -> None:
    with pytest.raises(NotPlainError) as raised:
        trip(value)
    assert str(raised.value) == named


def test_no_arrays_unless_they_can_be_set_aside() -> None:
    with pytest.raises(NotPlainError, match=r"^ndarray$"):
        plain.encode(np.zeros(1))
    with pytest.raises(KeyError, match="a/0"):
        plain.decode({"$array": "a/0"})


def test_an_unknown_tag_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^unknown tag \$module$"):
        plain.decode({"x": [{"$module": "os"}]})


def test_a_file_does_not_choose_the_bit_generator() -> None:
    with pytest.raises(KeyError, match="system"):
        plain.decode({"$generator": {"bit_generator": "system"}})
