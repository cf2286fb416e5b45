"""raise_quantization: what is going to be integers is moved as integers, under one scale."""

import numpy as np
import pytest

from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.raise_quantization import raise_quantization
from tests.passes.moves_of_integers import MOVES, X, graph_of


@pytest.mark.parametrize("op", [op for op in MOVES if op not in ("Concat", "DepthToSpace")])
def test_quantizing_goes_in_front_of_what_moves(op):
    graph, want = graph_of(f"a = Relu(x) {MOVES[op].replace('y =', 'm =')} y = QuantizeLinear(m, s, z)", x="x: f32[2,3,4,4]")
    fired = raise_quantization(graph)
    np.testing.assert_array_equal(interpret(graph, [X.astype(np.float32)]), want)
    assert (fired, raise_quantization(graph)) == (1, 0)
    verify(graph)
    assert [n.op for n in graph] == ["Relu", "QuantizeLinear", op]


def test_each_part_that_is_joined_is_quantized():
    body = "a = Relu(x) b = Neg(x) m = Concat(a, b) {axis=1} y = QuantizeLinear(m, s, z)"
    graph, want = graph_of(body, x="x: f32[2,3,4,4]")
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
    graph, _ = graph_of(body, returned, x="x: f32[2,3,4,4]")
    before = print_graph(graph)
    assert raise_quantization(graph) == 0
    assert print_graph(graph) == before


def test_what_is_quantized_as_it_was_is_as_it_was():
    graph, want = graph_of("a = DequantizeLinear(x, s, z) y = QuantizeLinear(a, s, z)")
    assert raise_quantization(graph) == 1
    assert graph.outputs[0] is graph.inputs[0]
    np.testing.assert_array_equal(interpret(graph, [X]), want)
    for other in ("k: f32[] = const 0.25 y = QuantizeLinear(a, k, z)", "k: u8[] = const 4 y = QuantizeLinear(a, s, k)",
                  "k: i8[] = const 3 y = QuantizeLinear(a, s, k)"):  # fmt: skip
        graph, _ = graph_of(f"a = DequantizeLinear(x, s, z) {other}")
        assert raise_quantization(graph) == 0
