"""sink_dequantization and raise_quantization: what moves data moves integers, under one scale."""

import numpy as np
import pytest

from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.move_quantization import raise_quantization, sink_dequantization
from tests.passes.graphs import read_graph

NUMBERS = "s: f32[] = const 0.5 z: u8[] = const 3"
X = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)


def sunk(body, returned="y", x="x: u8[2,3,4,4]"):
    graph = read_graph(f"graph main({x}) {{ {NUMBERS} {body} return {returned} }}")
    want = interpret(graph, [X] if "u8" in x else [X.astype(np.float32)])
    return graph, want


MOVES = {
    "Transpose": "y = Transpose(a) {perm=[0, 2, 3, 1]}",
    "Reshape": "t: i64[2] = const [2, -1] y = Reshape(a, t)",
    "Slice": "b: i64[1] = const [1] e: i64[1] = const [3] x1: i64[1] = const [2] y = Slice(a, b, e, x1)",
    "MaxPool": "y = MaxPool(a) {kernel_shape=[2, 2], pads=[1, 1, 0, 0]}",
    "Concat": "c = DequantizeLinear(x, s, z) y = Concat(a, c) {axis=1}",
    "Gather": "i: i64[2] = const [2, 0] y = Gather(a, i) {axis=1}",
    "DepthToSpace": "p = Transpose(a) {perm=[0, 2, 1, 3]} y = DepthToSpace(p) {blocksize=2}",
}


@pytest.mark.parametrize("op", MOVES)
def test_what_moves_data_moves_integers(op):
    graph, want = sunk(f"a = DequantizeLinear(x, s, z) {MOVES[op]}")
    while sink_dequantization(graph):
        pass
    verify(graph)
    (maker,) = (n for n in graph if n.op == op)
    assert maker.output.tensor.dtype.value == "u8"
    assert graph.outputs[0].producer.op == "DequantizeLinear"
    for g, w in zip(interpret(graph, [X]), want, strict=True):
        np.testing.assert_array_equal(g, w)


def test_each_part_of_a_split_is_dequantized():
    graph, want = sunk("a = DequantizeLinear(x, s, z) y, u = Split(a) {axis=2, num_outputs=2}", "y, u")
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
    graph, _ = sunk(body)
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


@pytest.mark.parametrize("op", [op for op in MOVES if op not in ("Concat", "DepthToSpace")])
def test_quantizing_goes_in_front_of_what_moves(op):
    graph, want = sunk(f"a = Relu(x) {MOVES[op].replace('y =', 'm =')} y = QuantizeLinear(m, s, z)", x="x: f32[2,3,4,4]")
    assert raise_quantization(graph) == 1
    assert raise_quantization(graph) == 0
    verify(graph)
    assert [n.op for n in graph] == ["Relu", "QuantizeLinear", op]
    np.testing.assert_array_equal(interpret(graph, [X.astype(np.float32)]), want)


def test_each_part_that_is_joined_is_quantized():
    body = "a = Relu(x) b = Neg(x) m = Concat(a, b) {axis=1} y = QuantizeLinear(m, s, z)"
    graph, want = sunk(body, x="x: f32[2,3,4,4]")
    assert raise_quantization(graph) == 1
    assert [n.op for n in graph] == ["Relu", "Neg", "QuantizeLinear", "QuantizeLinear", "Concat"]
    np.testing.assert_array_equal(interpret(graph, [X.astype(np.float32)]), want)


@pytest.mark.parametrize(
    ("body", "returned"),
    {
        "others read it as it is": ("m = Transpose(x) {perm=[0, 2, 3, 1]} e = Exp(m) y = QuantizeLinear(m, s, z)", "y, e"),
        "it is returned": ("m = Transpose(x) {perm=[0, 2, 3, 1]} y = QuantizeLinear(m, s, z)", "y, m"),
        "scales of their own": (
            "k: f32[3] = const [0.5, 0.25, 1.0] m = Transpose(x) {perm=[0, 2, 3, 1]} y = QuantizeLinear(m, k) {axis=3}", "y",
        ),
        "padded with a number": ("p: i64[8] = const [0, 0, 1, 1, 0, 0, 1, 1] v: f32[] = const 1.0 m = Pad(x, p, v)"
                                 " y = QuantizeLinear(m, s, z)", "y"),
    }.values(),
)  # fmt: skip
def test_what_is_read_as_floats_stays(body, returned):
    graph, _ = sunk(body, returned, x="x: f32[2,3,4,4]")
    before = print_graph(graph)
    assert raise_quantization(graph) == 0
    assert print_graph(graph) == before


def test_what_is_quantized_as_it_was_is_as_it_was():
    graph, want = sunk("a = DequantizeLinear(x, s, z) y = QuantizeLinear(a, s, z)")
    assert raise_quantization(graph) == 1
    assert graph.outputs[0] is graph.inputs[0]
    np.testing.assert_array_equal(interpret(graph, [X]), want)
    for other in ("k: f32[] = const 0.25 y = QuantizeLinear(a, k, z)", "k: u8[] = const 4 y = QuantizeLinear(a, s, k)",
                  "k: i8[] = const 3 y = QuantizeLinear(a, s, k)"):  # fmt: skip
        graph, _ = sunk(f"a = DequantizeLinear(x, s, z) {other}")
        assert raise_quantization(graph) == 0
