"""A short run of the semantic fuzzing (``python -m tests.fuzz.semantic`` runs it for hours), and tests of its own parts."""

import collections
import random
from pathlib import Path

import onnx
import pytest

import miniinfer_cli
from tests.fuzz.opening import SCALE
from tests.fuzz.semantic import farm, oracle
from tests.fuzz.semantic.cases import KINDS, Outcome, signature_of
from tests.fuzz.semantic.known import KNOWN, Known, reason_of
from tests.fuzz.semantic.models import edited_model

COUNTS = {"models": 80, "plans": 80, "cli": 40, "inputs": 40}
# A share of the cases must get past the door: what is refused there tells nothing of the rooms behind it.
LEAST_DONE = {"models": 0.1, "plans": 0.15, "cli": 0.1, "inputs": 0.1}


@pytest.mark.timeout(120 + 60 * SCALE)
@pytest.mark.parametrize("kind", KINDS)
def test_cases_end_as_promised(kind: str):
    count = COUNTS[kind] * SCALE
    seen = list(farm.outcomes(kind, 0, count, workers=2))
    assert sorted(o.seed for o in seen) == list(range(count))
    assert [o for o in seen if o.broken] == []
    assert [o for o in seen if o.difference] == []
    ends = collections.Counter(o.codes[-1] for o in seen)
    assert ends[0] >= LEAST_DONE[kind] * count, ends


def test_a_case_follows_from_its_seed():
    first, again, other = (edited_model(random.Random(f"models {seed}"))[1] for seed in (5, 5, 6))
    assert first == again
    assert first != other


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: k.example.__name__.strip("_"))
def test_a_difference_that_is_excused_is_still_there(known: Known, tmp_path: Path):
    model, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
    onnx.save(known.example(), model)
    miniinfer_cli.build(model, plan)
    assert reason_of(known.example()) == known.reason
    assert oracle.difference(model, plan, 0) != ""


def test_a_model_without_an_excuse_has_none(tmp_path: Path):
    sound = KNOWN[0].example()
    sound.graph.node[0].attribute[0].i = 1
    assert reason_of(sound) == ""
    model, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
    onnx.save(sound, model)
    miniinfer_cli.build(model, plan)
    assert oracle.difference(model, plan, 0) == ""


def test_a_traceback_is_known_by_its_exception_and_innermost_functions():
    try:
        random.Random(0).choice([])
    except IndexError as error:
        import traceback

        text = "".join(traceback.format_exception(error))
    assert signature_of(text).startswith("IndexError @ random.py:choice < test_semantic.py:test_a_traceback")


def test_what_a_promise_is():
    assert not Outcome("models", 0, [3]).broken
    for broken in (
        Outcome("models", 0, [70]), Outcome("models", 0, [-11]), Outcome("models", 0, [0], seconds=31),
        Outcome("models", 0, [0], peak_nbytes=3 << 30), Outcome("models", 0, [3], unhinted="error: x"),
    ):  # fmt: skip
        assert broken.broken
