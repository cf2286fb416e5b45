"""The harness of lowerings fails when it should: for who did the work, for wrong numbers, and for stray writes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.choice import tactics
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Copy, Fill, Lowered, Operand
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.performing import RunsOnTheHost

X, ROW = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(4, np.float32)
Y = Operand.output(0)


@pytest.fixture
def lowered_as(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``lowered_as(op, lowering)``: the operation has this lowering for the test, None for none."""

    def put(op: str, lowering: Callable[[Site], Lowered | None] | None) -> None:
        find = tactics.find_lowering
        monkeypatch.setattr(tactics, "find_lowering", lambda node: lowering if node.op == op else find(node))

    return put


def test_an_expansion_does_not_pass_for_a_lowering(lowered_as: Any) -> None:
    check_op("LayerNormalization", X, ROW, tolerance=1e-5)
    lowered_as("LayerNormalization", lambda site: None)
    with pytest.raises(AssertionError, match=r"LayerNormalization is not done by its own lowering, but by .*ReduceMean"):
        check_op("LayerNormalization", X, ROW, tolerance=1e-5)
    check_op("LayerNormalization", X, ROW, tolerance=1e-5, instead=["ReduceMean", "Sub"])
    with pytest.raises(AssertionError, match=r"not by .'ArgMax'"):
        check_op("LayerNormalization", X, ROW, tolerance=1e-5, instead=["ArgMax"])


@pytest.mark.parametrize(("lowering", "why"), [(None, "no lowering"), (lambda site: None, "this form has no lowering")])
def test_the_host_does_not_pass_for_a_lowering(lowered_as: Any, lowering: Any, why: str) -> None:
    lowered_as("Erf", lowering)
    with pytest.raises(RunsOnTheHost, match=f"Erf runs on the host: {why}"):
        check_op("Erf", X)


def test_another_tactic_does_not_pass(lowered_as: Any) -> None:
    check_op("LayerNormalization", X, ROW, tolerance=1e-5, by="rows")
    with pytest.raises(AssertionError, match=r"as 'statistics', but by .*'rows\b"):
        check_op("LayerNormalization", X, ROW, tolerance=1e-5, by="statistics")


def test_what_is_meant_to_be_done_by_others_must_be() -> None:
    with pytest.raises(AssertionError, match="Relu is done by"):
        check_op("Relu", X, instead=["Max"])
    with pytest.raises(AssertionError, match="Relu is done by"):
        check_op("Relu", X, instead=())


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ((), "nan location mismatch"),
        ((Copy(Y, Operand.input(0), 40),), "nan location mismatch"),
        ((Copy(Operand.output(0, 4), Operand.input(0), 48),), "wrote behind its buffer"),
        ((Copy(Operand.output(0, -4), Operand.input(0), 48),), "wrote before its buffer"),
        (
            (Copy(Y, Operand.input(0), 48), Fill(Operand.input(0), 0, 4), Fill(Operand.input(0, 4), 0, 4)),
            "into an input",
        ),
    ],
)
def test_a_lowering_that_does_something_else(lowered_as: Any, actions: Any, message: str) -> None:
    lowered_as("Relu", lambda site: Lowered(actions))
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError, match=message):
        check_op("Relu", X)


def test_outputs_are_cut_to_their_count() -> None:
    (got,) = run_op("NonZero", np.array([0, 3, 0, 5], np.int32))
    np.testing.assert_array_equal(got, [[1, 3]])
