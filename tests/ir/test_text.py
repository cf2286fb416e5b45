"""Graph text: what is printed is read back to the same graph, and malformed text is refused with its line."""

import numpy as np
import pytest

from engine_format.dtypes import DType
from miniinfer_cli.ir import Graph, TensorType, constant, numpy_dtype, symbol
from miniinfer_cli.ir.constants import Filled, Mapped, MappedConstant, Transposed, reshaped
from miniinfer_cli.ir.text import describe_constant, parse_graph, print_graph

EVERYTHING = """\
graph main(
    x: f32[batch,64],
    "odd name": i64[],
    "s s": seq(f32[?]),
    o: optional(seq(str[])),
    m: map(i64,f32[2]),
    n: str[?]) {
  w: f32[64,10] = const large "mapped model.onnx@128"
  y: f32[batch,10] = MatMul(x, w)
  half: f32[] = const 0.5
  z: f32[batch,10] = Clip(y, -, half) @/head/clip
  z_2: f32[floor((batch)/(2)),min(batch,10),max(0,batch-2)], untyped = Split(z) {axis=0, num_outputs=2}
  p: f32[batch,10], q: f32[batch,10] = miniinfer.FusedPointwise(z) {tag="a \\"b\\""} @"two words"
    body: graph FusedPointwise(z: f32[batch,10]) {
      q: f32[batch,10] = Neg(z)
      r: f32[batch,10] = Exp(z)
      return q, r
    }
  i: i64[] = If("odd name", p) {floats=[1.0, -inf, 1e-05], ints=[1, -2], names=["a"], none=[], value=f16[2,1] [0.1, nan]}
    then_branch: graph then(p: f32[batch,10]) {
      one: i64[] = const 1
      return one
    }
    else_branch: graph else(p: f32[batch,10]) {
      big: f32[1000] = const fill 2.0
      k: i64[] = Size(big)
      return k
    }
  nothing() {flag=1}
  text: str[2] = const ["a", "\\u00e9\\n"]
  bits: bool[3] = const [true, false, true]
  "return": c64[1] = const [1.0-2.5j]
  empty: u4[0,3] = const []
  return probabilities=p, "the index"=i, x, text, bits, "return", empty
}
"""


def test_text_round_trips_whatever_a_graph_may_hold():
    graph = parse_graph(EVERYTHING)
    assert print_graph(graph) == EVERYTHING
    assert graph.output_names == ("probabilities", "the index", "x", "text", "bits", "return", "empty")
    node = graph.nodes[4]
    assert (node.op, node.name, list(node.graphs)) == ("If", "i", ["then_branch", "else_branch"])
    assert node.attrs["value"].dtype == np.float16
    assert node.attrs["ints"] == [1, -2]


def test_many_inputs_stand_on_lines_of_their_own():
    graph = Graph()
    for i in range(12):
        graph.add_input(f"input_number_{i}", TensorType(DType.F32, (i,)))
    text = print_graph(graph)
    assert text.splitlines()[:2] == ["graph main(", "    input_number_0: f32[0],"]
    assert print_graph(parse_graph(text)) == text


@pytest.mark.parametrize("dtype", [d for d in DType if d not in (DType.STR, DType.C64, DType.C128, DType.BOOL)])
def test_small_constants_keep_their_exact_contents(dtype):
    raw = np.random.default_rng(0).standard_normal(8) * 3
    if dtype.value.startswith("u") or dtype is DType.F8E8M0:
        raw = np.abs(raw)
    data = np.clip(raw, -2, 2).astype(np.int8).astype(numpy_dtype(dtype)) if dtype.is_integer else raw.astype(numpy_dtype(dtype))
    graph = Graph()
    value = graph.add_constant(data, "c")
    graph.set_outputs([value])
    again = parse_graph(print_graph(graph)).outputs[0].constant
    assert again.dtype is dtype
    assert again.array().tobytes() == data.tobytes()


def test_large_constants_are_described_and_come_back_without_contents():
    graph = Graph()
    mapped = MappedConstant(DType.F32, (8, 8), bytes(256), "w.bin@0")
    scaled = Mapped(DType.F32, (8, 8), (Transposed(DType.F32, (8, 8), mapped, (1, 0)),), np.negative, "neg")
    value = graph.add_constant(scaled, "w")
    graph.set_outputs([value, graph.add_constant(reshaped(scaled, (64,)), "flat"), graph.add_constant(np.arange(40.0), "a")])
    text = print_graph(graph)
    assert '"neg(transposed [1,0] of mapped w.bin@0)"' in text
    assert '"reshaped neg(' in text
    again = parse_graph(text)
    assert print_graph(again) == text
    with pytest.raises(ValueError, match="carries no contents"):
        again.outputs[0].constant.array()


def test_descriptions_of_different_contents_differ():
    assert describe_constant(constant(np.arange(3.0))) != describe_constant(constant(np.arange(1, 4.0)))
    assert describe_constant(Filled(DType.BF16, (2,), 0.5)) == "fill 0.5"


def test_a_value_may_carry_any_symbolic_dimension():
    graph = Graph()
    batch = symbol("batch")
    graph.set_outputs([graph.add_input("x", TensorType(DType.F32, (batch * 2 + 1, (batch + 1) // 3)))])
    assert parse_graph(print_graph(graph)).inputs[0].type == graph.inputs[0].type


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected 'graph'"),
        ("graph g() {\n  a: f32[] = Neg(b)\n  return a\n}", "line 2: 'b' is not defined"),
        ("graph g(a: f32[]) {\n  a: f32[] = Neg(a)\n  return a\n}", "line 2: 'a' is defined twice"),
        ("graph g(a: f33[]) {\n  return a\n}", "line 1: 'f33' is not an element type"),
        ("graph g() {\n  a: f32[n] = const 1\n  return a\n}", "line 2: a constant needs"),
        ("graph g() {\n  a: f32[3] = const [1, 2]\n  return a\n}", "2 items do not fill"),
        ("graph g() {\n  return\n}\nmore", "line 4: text after the end"),
        ("graph g(a: f32[]) {\n  b = Neg(a\n  return b\n}", "line 3: expected '\\)'"),
    ],
)
def test_malformed_text_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_graph(text)
