"""fuse_quantized: products with what dequantizes their operands and what quantizes their result become regions."""

import numpy as np
import pytest

from miniinfer_cli.ir import DType
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from tests.passes.graphs import read_graph
from tests.passes.quantized_graphs import CASES, assert_within_a_step, quantized_product, random_feeds

NUMBERS = """s: f32[] = const 0.5
      z: u8[] = const 3
      w: i8[2,3] = const [1, 2, 3, 4, 5, 6]
      ws: f32[3] = const [0.5, 0.25, 0.125]"""


def test_what_dequantizes_and_what_quantizes_stand_in_the_region():
    graph = read_graph(f"""graph main(x: u8[batch,2], r: f32[batch,3]) {{
      {NUMBERS}
      a = DequantizeLinear(x, s, z)
      v = DequantizeLinear(w, ws) {{axis=1}}
      y = MatMul(a, v) @/fc
      u = Add(y, r)
      q = QuantizeLinear(u, s, z)
      return q
    }}""")
    assert fuse_quantized(graph) == 1
    verify(graph)
    (region,) = graph
    assert [n.op for n in region.body] == ["DequantizeLinear", "DequantizeLinear", "MatMul", "Add", "QuantizeLinear"]
    assert (region.op, region.name, [v.name for v in region.inputs]) == ("QuantizedMatMul", "/fc", ["x", "w", "ws", "r"])
    before = print_graph(graph)
    assert fuse_quantized(graph) == 0
    assert print_graph(graph) == before


def test_what_is_added_in_blocks_of_scales_stays_outside():
    """It is no elementwise operation: its scales lie on the blocks of an axis."""
    graph = read_graph(f"""graph main(x: u8[batch,2], r: i8[batch,4], rs: f32[batch,2], t: i8[batch,4]) {{
      {NUMBERS}
      k: i8[2,4] = const [1, 2, 3, 4, 5, 6, 7, 8]
      a = DequantizeLinear(x, s, z)
      v = DequantizeLinear(k, s)
      b = DequantizeLinear(r, rs) {{axis=1, block_size=2}}
      c = DequantizeLinear(t, s)
      y = MatMul(a, v)
      u = Add(y, b)
      w2 = Add(u, c)
      return w2
    }}""")
    assert fuse_quantized(graph) == 1
    verify(graph)
    first, region = graph
    assert (first.op, first.attrs) == ("DequantizeLinear", {"axis": 1, "block_size": 2})
    assert sorted(n.op for n in region.body) == ["Add", "Add", *["DequantizeLinear"] * 3, "MatMul"]


def test_what_others_read_too_is_dequantized_for_each():
    graph = read_graph(f"""graph main(x: u8[batch,2]) {{
      {NUMBERS}
      a = DequantizeLinear(x, s, z)
      v = DequantizeLinear(w, ws) {{axis=1}}
      y = MatMul(a, v)
      b = QuantizeLinear(y, s, z)
      t = MatMul(a, v)
      e = Neg(a)
      return b, t, e
    }}""")
    assert fuse_quantized(graph) == 2
    verify(graph)
    assert sorted(n.op for n in graph) == ["DequantizeLinear", "Neg", "QuantizedMatMul", "QuantizedMatMul"]


def test_a_chain_of_products_passes_integers_on():
    graph = read_graph(f"""graph main(x: u8[batch,2]) {{
      {NUMBERS}
      m: i8[3,2] = const [1, 2, 3, 4, 5, 6]
      a = DequantizeLinear(x, s, z)
      v = DequantizeLinear(w, ws) {{axis=1}}
      y = MatMul(a, v)
      b = QuantizeLinear(y, s, z)
      c = DequantizeLinear(b, s, z)
      n = DequantizeLinear(m, s)
      t = MatMul(c, n)
      u = Relu(t)
      return u
    }}""")
    assert fuse_quantized(graph) == 2
    verify(graph)
    first, second = graph
    assert first.output.tensor.dtype is DType.U8 and second.inputs[0] is first.output
    assert [n.op for n in second.body] == ["DequantizeLinear", "DequantizeLinear", "MatMul", "Relu"]


@pytest.mark.parametrize("case", CASES)
def test_numbers_stay_and_only_one_region_is_left(case):
    graph = quantized_product(**CASES[case])
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    assert fuse_quantized(graph) == 1
    verify(graph)
    (got,) = interpret(graph, feeds)
    assert_within_a_step(got, want)
    left = [n.op for n in graph if not n.op.startswith("Quantized")]
    assert left == (["DequantizeLinear", "Reshape"] if "a turned matrix" in case else [])


def test_convolutions_of_single_pixels_are_products_of_matrices():
    for case, is_matrix in (("single pixels", True), ("single pixels, some", False), ("a convolution", False)):
        graph = quantized_product(**CASES[case])
        fuse_quantized(graph)
        (region,) = graph
        assert region.op == ("QuantizedMatMul" if is_matrix else "QuantizedConv")
        assert ("MatMul" in [n.op for n in region.body]) == is_matrix


@pytest.mark.parametrize(
    "body",
    {
        "floats on the left, no weights": "v = DequantizeLinear(x, s, z) y = MatMul(f, v)",
        "scales of each row": "t: f32[2] = const [0.5, 0.25] a = DequantizeLinear(x, t) {axis=0}"
        " v = DequantizeLinear(w, ws) {axis=1} y = MatMul(a, v)",
        "a scale that is computed": "a = DequantizeLinear(x, k, z) v = DequantizeLinear(w, ws) {axis=1} y = MatMul(a, v)",
        "no product": "a = DequantizeLinear(x, s, z) y = Neg(a)",
        "integers of 32 bits": "i: i32[2,3] = const [1, 2, 3, 4, 5, 6] v = DequantizeLinear(i, s) y = MatMul(f, v)",
    }.values(),
)
def test_what_is_no_region(body):
    graph = read_graph(f"""graph main(x: u8[2,2], f: f32[2,2], k: f32[]) {{
      {NUMBERS}
      {body}
      return y
    }}""")
    before = print_graph(graph)
    assert fuse_quantized(graph) == 0
    assert print_graph(graph) == before


def test_weights_alone_may_be_integers():
    graph = read_graph(f"""graph main(f: f32[2,2]) {{
      {NUMBERS}
      v = DequantizeLinear(w, ws) {{axis=1}}
      y = MatMul(f, v)
      return y
    }}""")
    x = np.float32([[1, 2], [3, 4]])
    (want,) = interpret(graph, [x])
    assert fuse_quantized(graph) == 1
    (got,) = interpret(graph, [x])
    np.testing.assert_array_equal(got, want)
