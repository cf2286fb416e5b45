"""triangles: causal masks are known as such in whatever way they are computed or stored, and near ones are not."""

import numpy as np
import pytest

from miniinfer_cli.passes.triangles import Triangle, triangle, uniform
from tests.passes.graphs import read_graph, run_graph

# up = 0, 1 ... seq - 1; square = [seq, seq]
START = """
  s = Shape(x) {start=1, end=2}
  n = Squeeze(s)
  zero: i64[] = const 0
  i1: i64[] = const 1
  two: i64[] = const 2
  first: i64[1] = const [0]
  last: i64[1] = const [-1]
  minus2: i64[1] = const [-2]
  lead: i64[2] = const [0, 1]
  up = Range(zero, n, i1)
  row = Unsqueeze(up, first)
  column = Unsqueeze(up, last)
  square = Concat(s, s) {axis=0}
  f0: f32[] = const 0.0
  f1: f32[] = const 1.0
  low: f32[] = const -inf
  ones = Expand(f1, square)
  lows = Expand(low, square)
  causal = LessOrEqual(row, column)
"""
TRIL = "f32[3,3] = const [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]"


def graph_of(body: str):
    return read_graph(f"graph main(x: f32[batch,seq], m: bool[seq,seq], f: f32[seq,seq]) {{ {START} {body} return y }}")


@pytest.mark.parametrize(
    ("body", "lower", "upper"),
    [
        ("y = LessOrEqual(row, column)", True, False),
        ("y = GreaterOrEqual(column, row)", True, False),
        ("y = Less(column, row)", False, True),
        ("y = Greater(row, column)", False, True),
        ("a = Sub(row, i1) y = Less(a, column)", True, False),
        ("a = Add(row, i1) y = LessOrEqual(a, column)", None, None),
        ("y = GreaterOrEqual(row, column)", None, None),
        ("y = Less(row, column)", None, None),
        ("y = LessOrEqual(column, row)", None, None),
        ("a = Mul(row, two) y = LessOrEqual(a, column)", None, None),
        ("y = LessOrEqual(row, zero)", None, None),
        ("y = Trilu(ones) {upper=0}", 1.0, 0.0),
        ("y = Trilu(ones, zero) {upper=0}", 1.0, 0.0),
        ("y = Trilu(ones, i1) {upper=1}", 0.0, 1.0),
        ("y = Trilu(lows, i1)", 0.0, -np.inf),
        ("y = Trilu(ones, i1) {upper=0}", None, None),
        ("y = Trilu(ones) {upper=1}", None, None),
        ("y = Trilu(ones, n) {upper=0}", None, None),
        ("y = Trilu(f) {upper=0}", None, None),
        ("t = Trilu(lows, i1) y = Trilu(t) {upper=0}", 0.0, 0.0),
        ("t = Trilu(ones) {upper=0} y = Equal(t, f0)", False, True),
        ("t = Trilu(ones) {upper=0} y = Cast(t) {to=9}", True, False),
        ("y = Not(causal)", False, True),
        ("y = Where(causal, f0, low)", 0.0, -np.inf),
        ("y = Where(causal, ones, low)", 1.0, -np.inf),
        ("y = Where(causal, f, low)", None, None),
        ("t = Cast(causal) {to=1} a = Sub(f1, t) b: f32[] = const -10000.0 y = Mul(a, b)", -0.0, -10000.0),
        ("o = ConstantOfShape(square) {value=f32[1] [1.0]} y = Trilu(o) {upper=0}", 1.0, 0.0),
        ("y = ConstantOfShape(square)", 0.0, 0.0),
        ("t = Greater(f1, f0) y = And(causal, t)", True, False),
        ("t = Greater(row, zero) y = And(causal, t)", None, None),
        ("y = And(causal, m)", None, None),
        ("n1 = Not(causal) y = Or(n1, causal)", True, True),
        ("y = Unsqueeze(causal, lead)", True, False),
        ("p: i64[4] = const [1, 1, 0, 0] u = Unsqueeze(causal, lead) y = Reshape(u, p)", True, False),
        ("y = Unsqueeze(causal, last)", None, None),
        ("y = Transpose(causal)", None, None),
        ("y = Slice(causal, first, s, last)", True, False),
        ("k: i64[1] = const [1] y = Slice(causal, k, s, last)", None, None),
        ("k: i64[1] = const [2] y = Slice(causal, first, s, minus2, k)", None, None),
        ("k: i64[1] = const [1] u = Unsqueeze(causal, lead) y = Slice(u, first, k, first)", True, False),
        (f"y: {TRIL}", 1.0, 0.0),
        (f"c: {TRIL} y = Equal(c, f0)", False, True),
        (f"c: {TRIL} y = Slice(c, first, s, last)", 1.0, 0.0),
        ("y: bool[2,2,2] = const [true, false, true, true, true, false, true, true]", True, False),
        ("y: bool[2,2,2] = const [true, false, true, true, true, true, true, true]", None, None),
        ("y: f32[2,2] = const [0.0, 2.0, 1.0, 0.0]", None, None),
        ("y: f32[2,3] = const [0.0, 2.0, 3.0, 0.0, 0.0, 2.0]", None, None),
        ("y: f32[2] = const [0.0, 2.0]", None, None),
        ("c: bool[1,3] = const [true, false, false] o: bool[3,3] = const fill true y = And(c, o)", None, None),  # a repeated row
        ("y: f32[2] = const [2.0, 2.0]", 2.0, 2.0),
        ('y: f32[300,200] = const large "mapped y"', None, None),
        ("y: f32[3000,3000] = const fill 2.0", 2.0, 2.0),
        ("y = Identity(f1)", 1.0, 1.0),
        ("c = Sub(up, up) y = Equal(c, zero)", True, True),
        ("y = Expand(causal, square)", True, False),
        ("y = Sigmoid(f0)", 0.5, 0.5),
        ("t = Trilu(ones) {upper=0} y = Sigmoid(t)", None, None),  # not worth knowing
        ("y = Where(m, f0, f0)", None, None),
    ],
)
def test_a_triangle_is_known_and_right(body, lower, upper):
    graph = graph_of(body)
    found = triangle(graph.outputs[0])
    assert found == (None if lower is None else Triangle(lower, upper))
    if found is not None:
        (actual,) = run_graph(graph)
        expected = np.where(np.tri(*actual.shape[-2:], dtype=bool), lower, upper) if lower != upper else lower
        np.testing.assert_array_equal(actual, np.broadcast_to(expected, actual.shape))


def test_a_large_stored_triangle_is_known():
    graph = graph_of('y: f32[300,300] = const large "mapped y"')
    (value,) = graph.outputs
    assert triangle(value) is None
    data = np.tri(300, dtype=np.float32)
    graph.set_constant(value, type(value.constant)(value.constant.dtype, value.constant.shape, data.tobytes(), "triangle"))
    assert triangle(value) == Triangle(1.0, 0.0)
    data[299, 298] = 0
    graph.set_constant(value, type(value.constant)(value.constant.dtype, value.constant.shape, data.tobytes(), "triangle"))
    assert triangle(value) is None


def test_a_uniform_tensor_is_one_number():
    graph = graph_of("y = Where(causal, f0, low)")
    values = {value.name: value for value in graph.values()}
    assert [uniform(values[name]) for name in ("ones", "low", "causal", "f")] == [1.0, -np.inf, None, None]
    assert uniform(None) is None
