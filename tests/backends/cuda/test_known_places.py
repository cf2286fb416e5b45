"""Gathers at known places in equal steps: what they give is read where it lies."""

import numpy as np
import pytest

from miniinfer_cli.ops.interpreter import interpret
from tests.backends.cuda.graph_runs import kinds, run, views
from tests.backends.nodes import assert_close
from tests.emulation.engine import open_emulated, plan_of
from tests.graph_text import typed_graph


@pytest.mark.parametrize(
    ("at", "lies"),
    [
        ("i64[] = const 2", (32, (112, 1))),
        ("i64[1] = const [-1]", (96, (112, 16, 1))),
        ("i64[3] = const [2, 3, 4]", (32, (112, 16, 1))),
        ("i64[3] = const [-6, 3, 5]", (16, (112, 32, 1))),
        ("i64[2,2] = const [0, 1, 2, 3]", (0, (112, 32, 16, 1))),
        ("i64[3] = const [0, 1, 3]", None),
        ("i64[2] = const [2, 2]", None),
        ("i64[2] = const [3, 2]", None),
    ],
)
def test_known_places_in_equal_steps_are_read_where_they_lie(at: str, lies: tuple[int, tuple[int, ...]] | None) -> None:
    text = f"""
graph main(x: f16[3,7,16]) {{
  at: {at}
  p = Neg(x)
  a = Gather(p, at) {{axis=1}}
  y = Sigmoid(a)
  return y
}}
"""
    program = run(text)
    assert kinds(program) == (["Neg", "Gather", "Sigmoid"] if lies is None else ["Neg", "Sigmoid"])
    assert lies is None or views(program) == [(2 * lies[0], lies[1])]


@pytest.mark.parametrize("batch", [1, 3])
def test_one_row_of_each_sequence_is_multiplied_where_it_lies(batch: int) -> None:
    text = f"""
graph main(x: f32[{batch},5,32], w: f32[24,32], b: f32[24]) {{
  at: i64[] = const -1
  p = Neg(x)
  a = Gather(p, at) {{axis=1}}
  g = Gemm(a, w, b) {{transB=1}}
  y = Tanh(g)
  return y, p
}}
"""
    assert kinds(run(text)) == ["Neg", "Gemm", "Tanh"]


def test_rows_of_a_weight_at_known_places_are_read_where_it_lies() -> None:
    text = """
graph main(x: f32[batch,seq,1200]) {
  axis: i64[] = const 0
  table: f32[8,1200] = const TABLE
  one: i64[] = const 1
  sizes = Shape(x) {start=1, end=2}
  length = Squeeze(sizes)
  end = Add(length, one)
  at = Range(one, end, one)
  e = Gather(table, at)
  y = Add(x, e)
  z = CumSum(e, axis)
  return y, z
}
"""
    text = text.replace("TABLE", str([i % 97 / 8 for i in range(9600)]))
    x = np.ones((3, 5, 1200), np.float32)
    with open_emulated(plan_of(text)) as engine:
        got = engine.run({"x": x})
        program = engine.program(engine.check({"x": x}))
        assert [s.kind for s in program.steps] == ["Add", "CumSum"]
        for value, want in zip(got.values(), interpret(typed_graph(text), [x]), strict=True):
            assert_close(value, want)
