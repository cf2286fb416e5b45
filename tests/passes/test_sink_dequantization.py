"""sink_dequantization: what moves data moves integers, under one scale."""

import numpy as np
import pytest

from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.sink_dequantization import sink_dequantization
from tests.passes.graphs import read_graph
from tests.passes.moves_of_integers import MOVES, X, graph_of


@pytest.mark.parametrize("op", MOVES)
def test_what_moves_data_moves_integers(op):
    graph, want = graph_of(f"a = DequantizeLinear(x, s, z) {MOVES[op]}")
    while sink_dequantization(graph):
        pass
    for g, w in zip(interpret(graph, [X]), want, strict=True):
        np.testing.assert_array_equal(g, w)
    verify(graph)
    (maker,) = (n for n in graph if n.op == op)
    assert maker.output.tensor.dtype.value == "u8"
    assert graph.outputs[0].producer.op == "DequantizeLinear"


def test_each_part_of_a_split_is_dequantized():
    graph, want = graph_of("a = DequantizeLinear(x, s, z) y, u = Split(a) {axis=2, num_outputs=2}", "y, u")
    assert sink_dequantization(graph) == 1
    verify(graph)
    assert [n.op for n in graph] == ["DequantizeLinear", "Split", "DequantizeLinear", "DequantizeLinear"]
    for g, w in zip(interpret(graph, [X]), want, strict=True):
        np.testing.assert_array_equal(g, w)


@pytest.mark.parametrize(
    "body",
    {
        "scales of their own": "k: f32[3] = const [0.5, 0.25, 1.0] a = DequantizeLinear(x, k) {axis=1}"
        " y = Transpose(a) {perm=[0, 2, 3, 1]}",
        "two scales": "k: f32[] = const 0.25 a = DequantizeLinear(x, s, z) c = DequantizeLinear(x, k, z)"
        " y = Concat(a, c) {axis=1}",
        "a part that is of floats": "a = DequantizeLinear(x, s, z) c = Exp(a) y = Concat(a, c) {axis=1}",
        "a pool, which takes no 16 bits": "h: u16[] = const 3 i = Cast(x) {to=4} a = DequantizeLinear(i, s, h)"
        " y = MaxPool(a) {kernel_shape=[2, 2]}",
        "what computes": "a = DequantizeLinear(x, s, z) y = Softmax(a)",
        "a mean": "a = DequantizeLinear(x, s, z) y = AveragePool(a) {kernel_shape=[2, 2]}",
    }.values(),
)
def test_what_does_not_move_under_one_scale_stays(body):
    graph, _ = graph_of(body)
    before = print_graph(graph)
    assert sink_dequantization(graph) == 0
    assert print_graph(graph) == before


def test_weights_are_turned_once():
    graph = read_graph("""graph main(x: f32[2,2]) {
      w: i8[3,2] = const [1, 2, 3, 4, 5, 6]
      k: f32[3] = const [0.5, 0.25, 1.0]
      a = DequantizeLinear(w, k) {axis=0}
      t = Transpose(a) {perm=[1, 0]}
      y = MatMul(x, t)
      return y
    }""")
    x = np.float32([[1, 2], [3, 4]])
    want = interpret(graph, [x])
    assert sink_dequantization(graph) == 1
    assert sink_dequantization(graph) == 0
    verify(graph)
    product = graph.outputs[0].producer
    stored = product.inputs[1].producer.inputs[0]
    np.testing.assert_array_equal(stored.constant.array(), [[1, 3, 5], [2, 4, 6]])
    np.testing.assert_array_equal(interpret(graph, [x]), want)


def test_weights_of_blocks_are_turned_with_their_scales():
    graph = read_graph("""graph main(x: f32[2,4]) {
      w: i8[2,4] = const [1, 2, 3, 4, 5, 6, 7, 8]
      k: f32[2,2] = const [0.5, 0.25, 1.0, 2.0]
      z: i8[2,2] = const [1, 0, 0, -1]
      a = DequantizeLinear(w, k, z) {axis=1, block_size=2}
      t = Transpose(a) {perm=[1, 0]}
      y = MatMul(x, t)
      return y
    }""")
    x = np.float32([[1, 2, 3, 4], [5, 6, 7, 9]])
    want = interpret(graph, [x])
    assert sink_dequantization(graph) == 1
    verify(graph)
    source = graph.outputs[0].producer.inputs[1].producer
    assert (source.op, source.attrs["axis"], source.attrs["block_size"]) == ("DequantizeLinear", 0, 2)
    np.testing.assert_array_equal(interpret(graph, [x]), want)
