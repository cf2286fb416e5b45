"""drop_inner_quantization: pairs inside an activation, a norm and attention go, so that recognitions see these whole."""

import numpy as np
import pytest

from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.precision.drop_inner_quantization import drop_inner_quantization
from tests.passes.graphs import read_graph

NUMBERS = "s: f32[] = const 0.03125 z: i8[] = const 3"


def pair(x, y):
    return f"{x}_q = QuantizeLinear({x}, s, z) {y} = DequantizeLinear({x}_q, s, z)"


GELU = f"""graph main(x: f32[2,4]) {{
  {NUMBERS}
  r: f32[] = const 1.4142135
  one: f32[] = const 1.0
  half: f32[] = const 0.5
  a = Div(x, r) {pair("a", "b")}
  c = Erf(b) {pair("c", "d")}
  e = Add(d, one) {pair("e", "f")}
  g = Mul(x, f) {pair("g", "h")}
  i = Mul(h, half) {pair("i", "j")}
  k: f32[4,3] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.0, 2.0, 3.0]
  y = MatMul(j, k)
  return y
}}"""


def ops(graph):
    return [n.op for n in graph]


def cleaned(graph):
    """The graph without what nobody reads."""
    optimize(graph, level=0)
    return graph


def test_the_pieces_of_an_activation_are_left_as_they_are_but_what_a_product_reads():
    graph = read_graph(GELU)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    inner = GELU
    for a, b in ("ab", "cd", "ef", "gh"):
        inner = inner.replace(pair(a, b), f"{b} = Identity({a})")
    (want,) = interpret(read_graph(inner), [x])
    fired = drop_inner_quantization(graph)
    (got,) = interpret(graph, [x])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert (fired, drop_inner_quantization(graph)) == (4, 0)
    verify(graph)
    assert ops(cleaned(graph)) == ["Div", "Erf", "Add", "Mul", "Mul", "QuantizeLinear", "DequantizeLinear", "MatMul"]


def test_recognitions_see_them_whole():
    graph = read_graph(GELU)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    (want,) = interpret(graph, [x])
    optimize(graph)
    (got,) = interpret(graph, [x])
    inner = [n.op for node in graph for n in (node.body or (node,))]
    assert "Gelu" in inner and "Erf" not in inner
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_the_pieces_of_a_norm():
    graph = read_graph(f"""graph main(x: f32[2,8]) {{
      {NUMBERS}
      axes: i64[1] = const [-1]
      two: f32[] = const 2.0
      eps: f32[] = const 0.00001
      g: f32[8] = const [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0]
      b: f32[8] = const [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
      m = ReduceMean(x, axes) {pair("m", "n")}
      d = Sub(x, n) {pair("d", "e")}
      p = Pow(e, two) {pair("p", "o")}
      v = ReduceMean(o, axes) {pair("v", "w")}
      t = Add(w, eps)
      u = Sqrt(t) {pair("u", "k")}
      h = Div(e, k) {pair("h", "i")}
      j = Mul(i, g)
      y = Add(j, b)
      return y
    }}""")
    optimize(graph)
    assert ops(graph) == ["LayerNormalization"]


ATTENTION = f"""graph main(q: f32[2,3,8], k: f32[2,5,8], v: f32[2,5,8]) {{
  {NUMBERS}
  scale: f32[] = const 0.5
  {pair("q", "q1")} {pair("k", "k1")} {pair("v", "v1")}
  kt = Transpose(k1) {{perm=[0, 2, 1]}} {pair("kt", "kt1")}
  a = MatMul(q1, kt1) {pair("a", "b")}
  c = Mul(b, scale) {pair("c", "d")}
  p = Softmax(d) {pair("p", "w")}
  o = MatMul(w, v1) {pair("o", "o1")}
  t = Transpose(o1) {{perm=[1, 0, 2]}}
  return t
}}"""


def test_attention_is_of_floats_and_what_moves_its_result_is_in_front_of_what_quantizes_it():
    graph = read_graph(ATTENTION)
    rng = np.random.default_rng(0)
    feeds = [(rng.standard_normal(shape) / 2).astype(np.float32) for shape in ((2, 3, 8), (2, 5, 8), (2, 5, 8))]
    (want,) = interpret(graph, feeds)
    fired = drop_inner_quantization(graph)
    np.testing.assert_allclose(interpret(graph, feeds)[0], want, atol=0.1)
    assert (fired, drop_inner_quantization(graph)) == (8, 0)
    verify(graph)
    left = cleaned(graph)
    assert ops(left) == [
        "Transpose", "MatMul", "Mul", "Softmax", "MatMul", "Transpose", "QuantizeLinear", "DequantizeLinear"
    ]  # fmt: skip
    (got,) = interpret(left, feeds)
    assert np.abs(got - want).max() < 0.1
    optimize(left)
    assert "Attention" in ops(left)


@pytest.mark.parametrize(
    "text",
    {
        "a softmax that feeds no product":
            f"graph main(x: f32[2,4]) {{ {NUMBERS} {pair('x', 'a')} p = Softmax(a) {pair('p', 'w')} y = Neg(w) return y }}",
        "products by weights":
            f"""graph main(x: f32[2,4]) {{ {NUMBERS}
              i: i8[4,4] = const [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7]
              w = DequantizeLinear(i, s) {pair('x', 'a')} b = MatMul(a, w) {pair('b', 'c')} p = Softmax(c) {pair('p', 'd')}
              y = MatMul(d, w) return y }}""",
        "between a product and an activation":
            f"graph main(x: f32[2,4], w: f32[4,4]) {{ {NUMBERS} a = MatMul(x, w) {pair('a', 'b')} y = Relu(b) return y }}",
        "what else reads it":
            f"graph main(x: f32[2,4], w: f32[4,4]) {{ {NUMBERS} a = Neg(x) {pair('a', 'b')} y = Relu(b) t = MatMul(b, w)"
            " return y, t }",
        "what is returned": f"graph main(x: f32[2,4]) {{ {NUMBERS} a = Neg(x) {pair('a', 'b')} y = Relu(b) return y, b }}",
        "other numbers":
            f"graph main(x: f32[2,4]) {{ {NUMBERS} k: f32[] = const 0.5 a = Neg(x) q = QuantizeLinear(a, s, z)"
            " b = DequantizeLinear(q, k, z) y = Relu(b) return y }",
    }.values(),
)  # fmt: skip
def test_what_stays(text):
    graph = read_graph(text)
    before = print_graph(graph)
    assert drop_inner_quantization(graph) == 0
    assert print_graph(graph) == before
