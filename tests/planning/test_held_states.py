"""Which nodes may write rows into a state itself, and what becomes of the others: they give what they should all the same."""

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import Graph, StatePair, States
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.planning.held_states import appending_nodes, state_values
from tests.emulation.engine import open_emulated
from tests.graph_text import typed_graph

TEXT = """
graph main(new: f32[2,3,1,4], past: f32[2,3,8,4], at: i64[2]) {
  sizes = Shape(past)
  present = TensorScatter(past, new, at) {axis=2}
  y = ReduceSum(present)
  return y, present
}
"""
OTHERS = {
    "read besides": ("y = ReduceSum(present)", "z = ReduceSum(past)\n  w = ReduceSum(present)\n  y = Sub(w, z)"),
    "circular": ("{axis=2}", '{axis=2, mode="circular"}'),
    "handed out": ("return y, present", "return past, present"),
    "behind more work": ("present = TensorScatter", "written = TensorScatter"),
}


def graph_of(name: str = "", axis: int = 2) -> Graph:
    text = TEXT if not name else TEXT.replace(*OTHERS[name])
    if name == "behind more work":
        text = text.replace("  y = ReduceSum", "  present = Neg(written)\n  y = ReduceSum")
    graph = typed_graph(text)
    graph.states = States((StatePair("past", "present", axis),), 8, "at", "", (1,))
    return graph


def test_rows_are_written_into_the_state():
    graph = graph_of()
    assert [n.op for n in appending_nodes(graph)] == ["TensorScatter"]
    assert [(past.name, new.name) for past, new in state_values(graph)] == [("past", "present")]
    with load(freeze(graph), "cpu") as engine:
        program = engine.program(engine.check({"new": np.zeros((2, 3, 1, 4), "f")}))
        assert program.steps[0].tactic == "append"
        assert [s.in_place for s in program.states] == [True]  # type: ignore[attr-defined]
    with open_emulated(freeze(graph)) as engine:
        made = engine.program(engine.check({"new": np.zeros((2, 3, 1, 4), "f")})).made  # type: ignore[attr-defined]
        assert [s.present for s in made.states] == [None]
        assert [type(a).__name__ for s in made.steps if s.kind == "TensorScatter" for a in s.actions] == ["Launch"]


def test_a_graph_without_states_has_none():
    graph = typed_graph(TEXT)
    assert (appending_nodes(graph), state_values(graph)) == (frozenset(), ())


@pytest.mark.parametrize("name", [*OTHERS, "another axis"])
def test_what_may_not_write_into_the_state(name):
    graph = graph_of(axis=1) if name == "another axis" else graph_of(name)
    assert appending_nodes(graph) == frozenset()


@pytest.mark.parametrize("name", ["", *OTHERS])
@pytest.mark.parametrize("opened", [lambda plan: load(plan, "cpu"), open_emulated], ids=["cpu", "cuda"])
def test_turns_are_the_same_wherever_rows_are_written(name, opened):
    rng, past = np.random.default_rng(0), np.zeros((2, 3, 8, 4), "f")
    sign = -1 if name == "behind more work" else 1
    with opened(freeze(graph_of(name))) as engine, engine.create_context() as context:
        for row in range(5):
            new = rng.integers(-9, 9, (2, 3, 1, 4)).astype("f")
            (got,) = context.run({"new": new}).values()
            present = past.copy()
            present[:, :, row : row + 1] = new
            present *= sign
            want = past if name == "handed out" else present.sum() - (past.sum() if name == "read besides" else 0)
            np.testing.assert_allclose(got.reshape(np.shape(want)), want, rtol=1e-6)
            past = present
