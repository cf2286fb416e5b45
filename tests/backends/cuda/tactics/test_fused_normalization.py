"""FusedNormalization, the region of the join "normalization": each of its tactics, its operands' strides, and its memory."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.join import families
from miniinfer_cli.backends.cuda.contract.program import DeviceStep
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.performing import perform_program
from tests.backends.cuda.tactics.every_tactic import check_graph
from tests.backends.nodes import assert_close
from tests.emulation.engine import open_emulated
from tests.graph_text import typed_graph

RNG = np.random.default_rng(5)
SUM = """
graph main(words: f32[7,600], ids: i64[3,2], x: f32[3,2,600], m: f32[3,1,1], g: f32[600], b: f32[600]) {
  w = Gather(words, ids)
  s = Add(w, x)
  y = LayerNormalization(s, g, b)
  z = Mul(y, m)
  return s, z
}
"""


def normal(*shape: int) -> Any:
    return (RNG.standard_normal(shape) * 2 + 1).astype(np.float32)


def region_of(graph: Graph) -> Graph:
    """All of the graph, as the first join has it."""
    join, *_ = families()["normalization"](graph, infer_graph(graph, [v.type for v in graph.inputs]), Target())
    assert join.nodes == graph.nodes
    return join.graph


@pytest.mark.parametrize(
    ("exchanged", "keys"),
    [
        ((), ["rows by 160 threads", "rows by 32 threads", "rows by 96 threads", "rows by 64 threads"]),
        ((("600", "20"),), ["rows by 8 threads", "rows by 32 threads"]),
        ((("600", "2500"),), None),
    ],
)
def test_every_tactic(exchanged: Any, keys: list[str] | None) -> None:
    text = SUM
    for old, new in exchanged:
        text = text.replace(old, new)
    graph = region_of(typed_graph(text))
    length = graph.inputs[0].tensor.shape[1]  # type: ignore[index]
    given = [normal(7, length), np.array([[0, 6], [-1, -7], [3, 3]]), normal(3, 2, length)]
    offered = check_graph([*given, normal(length), normal(length), normal(3, 1, 1)], graph, Target(), 1e-5)
    assert keys in (None, offered)
    assert len(offered) > 1


def test_places_outside_the_table_read_its_ends() -> None:
    graph = region_of(typed_graph(SUM))
    given = [normal(7, 600), np.array([[9, 6], [-9, 0], [3, 3]]), normal(3, 2, 600), normal(600), normal(600), normal(3, 1, 1)]
    inside = [given[0], np.array([[6, 6], [0, 0], [3, 3]]), *given[2:]]
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    for got, want in zip(perform_program(program, given, Target()), interpret(graph, inside), strict=True):
        assert_close(got, want, 1e-5)


STRIDED = """
graph main(x: f32[4,3,80], g: f32[40], r: f32[4,3,1]) {
  k: i64[2] = const [40, 40]
  p, q = Split(x, k) {axis=2}
  s = Mul(p, q)
  y = RMSNormalization(s, g)
  t = Add(y, r)
  return t
}
"""


def test_halves_are_read_where_they_lie() -> None:
    graph = typed_graph(STRIDED)
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [s.kind for s in program.steps] == ["miniinfer.FusedNormalization"]
    given = [normal(4, 3, 80), normal(40), normal(4, 3, 1)]
    (got,), (want,) = perform_program(program, given, Target()), interpret(graph, given)
    assert_close(got, want, 5e-6)


def test_rows_that_begin_anywhere_are_copied_first() -> None:
    graph = typed_graph(STRIDED.replace("80", "78").replace("40", "39"))
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert [s.kind for s in program.steps] == ["Split", "miniinfer.FusedNormalization"]
    given = [normal(4, 3, 78), normal(39), normal(4, 3, 1)]
    (got,), (want,) = perform_program(program, given, Target()), interpret(graph, given)
    assert_close(got, want, 5e-6)


CHAIN = """
graph main(x: f32[3,5,72], w: f32[72,72], g: f32[72], b: f32[72], t: f32[5,72], i: i64[3,5]) {
  m = MatMul(x, w)
  k = Gather(t, i)
  s = Add(m, k)
  y = LayerNormalization(s, g, b)
  u = Add(y, m)
  n = MatMul(u, w)
  v = Add(n, s)
  z = RMSNormalization(v, g)
  q = MatMul(z, w)
  return q, v
}
"""


def test_results_over_operands_in_one_arena() -> None:
    """The sum may take the place of what nobody reads later: not that of m, which is added behind the norm again."""
    graph = typed_graph(CHAIN)
    given = {v.name: normal(*v.tensor.shape) for v in graph.inputs[:-1]}  # type: ignore[misc]
    given["i"] = RNG.integers(0, 5, (3, 5))
    with open_emulated(freeze(graph)) as engine:
        made: Any = engine.program(engine.check(given))
        steps = [s for s in made.made.steps if isinstance(s, DeviceStep) and s.kind == "miniinfer.FusedNormalization"]
        assert [{s.writes.index(slot) for slot in s.in_place} for s in steps] == [{1}, {0, 1}]
        got = engine.run(given)
    with np.errstate(all="ignore"):
        want = interpret(graph, [given[v.name] for v in graph.inputs])
    for g, w in zip(got.values(), want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=2e-3)
