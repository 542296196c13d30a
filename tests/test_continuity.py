"""The proof: findings name what differs, the verdict says whether to train."""

from __future__ import annotations

import numpy as np
import pytest

from resume.continuity import NEVER_HELD, Finding, Proof, Remedy, accept_name, accepts, prove, summary
from resume.errors import ContinuityError
from resume.state import Spec, spec_of

KERNEL = spec_of(np.ones((2, 2), "float32"))
OTHER = spec_of(np.zeros((2, 2), "float32"))
BFLOAT = Spec("bfloat16", (2, 2), KERNEL.digest)
WIDE = Spec("float32", (2, 3), KERNEL.digest)
STATE = {
    "model/d/kernel": KERNEL,
    "optimizer/iteration": spec_of(np.asarray(7)),
    "optimizer/m/d/kernel": KERNEL,
}


def test_exact() -> None:
    proof = prove(STATE, dict(reversed(STATE.items())), iterations=(7, 7))
    assert (proof.verdict, proof.findings) == ("exact", ())
    assert (proof.arrays, proof.slots, proof.nbytes) == (3, 1, 40)
    assert proof.lines() == [
        "continuity: exact (3 arrays re-read and bit-equal, 1 of them slot variables)",
        "optimizer iterations: 7 saved -> 7 restored",
    ]
    proof.demand(source="run42.h5")


@pytest.mark.parametrize(
    ("saved", "live", "said"),
    [
        (KERNEL, OTHER, f"model/k: restored, but reads back different: {KERNEL.digest} -> {OTHER.digest}"),
        (KERNEL, WIDE, "model/k: shape differs: [2, 2] -> [2, 3]"),
        (KERNEL, BFLOAT, "model/k: dtype differs: float32 -> bfloat16"),
        (None, KERNEL, "model/k: not in the source, started fresh: None -> float32[2, 2]"),
        (KERNEL, None, "model/k: in the source, nothing live takes it: float32[2, 2] -> None"),
    ],
)
def test_every_difference_breaks_it(saved: Spec | None, live: Spec | None, said: str) -> None:
    proof = prove({"model/k": saved} if saved else {}, {"model/k": live} if live else {})
    assert (proof.verdict, proof.arrays) == ("broken", 0)
    assert [str(f) for f in proof.findings] == [said]
    with pytest.raises(
        ContinuityError, match=r"^run42\.h5: continuity broken, nothing was trained\.\n"
    ) as raised:
        proof.demand(source="run42.h5")
    assert said in str(raised.value)
    assert raised.value.exit_code == 3


def test_one_bit_breaks_it() -> None:
    array = np.ones(4, "float32")
    flipped = (array.view("uint32") ^ np.array([0, 0, 1, 0], "uint32")).view("float32")
    assert prove({"a": spec_of(array)}, {"a": spec_of(flipped)}).verdict == "broken"


def test_the_iteration_count_is_judged_on_its_own() -> None:
    proof = prove(STATE, STATE, iterations=(7, 0))
    assert proof.verdict == "broken"
    assert [str(f) for f in proof.findings] == ["optimizer/iteration: iteration count differs: 7 -> 0"]
    assert proof.lines()[1] == "optimizer iterations: 7 saved -> 0 restored"
    assert prove(STATE, STATE, iterations=(7, None)).findings[0].found == "none"


def test_what_was_accepted_is_partial() -> None:
    fresh = {**STATE, "model/head/kernel": KERNEL}
    assert prove(STATE, fresh).verdict == "broken"
    proof = prove(STATE, fresh, accept=["model/head"])
    assert (proof.verdict, proof.arrays) == ("partial", 3)
    assert [(f.name, f.kind, f.accepted) for f in proof.findings] == [("model/head/kernel", "missing", True)]
    proof.demand(source="run42.h5")


def test_accepting_does_not_excuse_values_shapes_or_types() -> None:
    for found in (OTHER, WIDE, BFLOAT):
        assert prove({"model/k": KERNEL}, {"model/k": found}, accept=["model/k"]).verdict == "broken"


def test_a_fresh_optimizer_has_another_iteration_count() -> None:
    weights = {"model/d/kernel": KERNEL}
    assert prove(weights, STATE, accept=["optimizer"], iterations=(None, 0)).verdict == "partial"
    assert prove(weights, STATE, accept=["optimizer/m"], iterations=(None, 0)).verdict == "broken"


def test_what_a_format_never_held_is_named() -> None:
    proof = prove(STATE, STATE, absent=["position"], accept=NEVER_HELD)
    assert proof.verdict == "partial"
    assert [str(f) for f in proof.findings] == ["position: not in the source, started fresh"]
    assert prove(STATE, STATE, absent=["position"]).verdict == "broken"


def test_the_message_says_what_to_type() -> None:
    proof = prove({"model/old": KERNEL}, {"optimizer/m/a": KERNEL, "optimizer/m/b": KERNEL})
    with pytest.raises(ContinuityError) as raised:
        proof.demand(source="a.keras")
    assert str(raised.value) == (
        "a.keras: continuity broken, nothing was trained.\n"
        "  optimizer/m/a: not in the source, started fresh: None -> float32[2, 2]\n"
        "  optimizer/m/b: not in the source, started fresh: None -> float32[2, 2]\n"
        "  model/old: in the source, nothing live takes it: float32[2, 2] -> None\n"
        "To go on all the same and lose that: 'checkpoint.accept=[model/old,optimizer]'"
        " (in Python: accept=['model/old', 'optimizer'])"
    )
    with pytest.raises(
        ContinuityError, match=r"nothing was written\.\n(.*\n)*.*: --accept model/old,optimizer \("
    ):
        proof.demand(source="a.keras", remedy=Remedy("nothing was written", "--accept {}"))


def test_no_remedy_is_offered_that_would_not_do() -> None:
    proof = prove({"model/k": KERNEL}, {"model/k": WIDE, "model/new": KERNEL})
    with pytest.raises(ContinuityError) as raised:
        proof.demand(source="a.keras")
    assert "checkpoint.accept" not in str(raised.value)


def test_accepted_findings_are_not_in_the_error() -> None:
    proof = prove({}, {"model/new": KERNEL, "seeds/x": KERNEL}, accept=["seeds"])
    with pytest.raises(ContinuityError) as raised:
        proof.demand(source="a.keras")
    assert "seeds/x" not in str(raised.value)
    assert "checkpoint.accept=[model/new]" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "accepted", "answer"),
    [
        ("optimizer/m/k", ["optimizer"], True),
        ("optimizer/m/k", ["optimizer/m/"], True),
        ("optimizer/m/k", ["optimizer/m/k"], True),
        ("optimizer/momentum/k", ["optimizer/m"], False),
        ("model/k", [], False),
    ],
)
def test_accepts(name: str, accepted: list[str], answer: bool) -> None:
    assert accepts(name, accepted) is answer


def test_accept_name() -> None:
    names = [
        accept_name(Finding(n, "missing", None, None)) for n in ("optimizer/m/k", "seeds/d", "model/d/k")
    ]
    assert names == ["optimizer", "seeds", "model/d/k"]


def test_many_findings_become_few_lines() -> None:
    slots = [Finding(f"optimizer/m/{i}", "missing", None, "float32[2]") for i in range(100)]
    weights = [Finding(f"model/{i}", "unused", "float32[2]", None) for i in range(9)]
    assert summary(slots[:8]) == [str(f) for f in slots[:8]]
    lines = summary([*slots, *weights])
    assert lines[0] == (
        "optimizer/m/0: not in the source, started fresh: None -> float32[2] (and 99 more like it)"
    )
    assert len(lines) == 9
    assert lines[-1] == "... and 2 more"


def test_json_is_plain() -> None:
    proof = Proof("partial", (Finding("seeds", "missing", None, None, accepted=True),), 3, 3)
    assert proof.json() == {
        "verdict": "partial",
        "findings": ({"name": "seeds", "kind": "missing", "saved": None, "found": None, "accepted": True},),
        "iterations_saved": 3,
        "iterations_restored": 3,
        "arrays": 0,
        "slots": 0,
        "nbytes": 0,
    }
