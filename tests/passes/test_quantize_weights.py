"""quantize_weights: matrices as integers of 8 or 4 bits, with a scale for each column, or for groups of its rows."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType
from miniinfer_cli.ir.constants import ArrayConstant
from miniinfer_cli.ir.quantization import KeepFloat
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.quantize_weights import WeightForm, quantize_weights
from miniinfer_cli.wording import as_flags
from tests.graph_text import typed_graph
from tests.passes.graphs import read_graph

PRODUCT = """graph main(x: f32[n,3]) {
  w: f32[3,2] = const [7.0, -1.0, 3.4, 0.25, -3.5, 0.0]
  y = MatMul(x, w) @fc
  return y
}"""


def quantized(text, dtype, group=0):
    graph = read_graph(text)
    count, kept = quantize_weights(graph, KeepFloat(), WeightForm(dtype, group))
    verify(graph)
    return graph, count, kept


def test_a_scale_for_each_column():
    graph, count, kept = quantized(PRODUCT, DType.I4)
    assert (count, kept) == (1, ())
    expected = typed_graph("""graph main(x: f32[n,3]) {
      w_i4: i4[3,2] = const [7, -7, 3, 2, -4, 0]
      w_scale: f32[2] = const [1.0, 0.14285715]
      w_dequantized = DequantizeLinear(w_i4, w_scale) {axis=1}
      y = MatMul(x, w_dequantized) @fc
      return y
    }""")
    assert print_graph(graph) == print_graph(expected)


def test_a_scale_for_each_group_the_last_of_which_is_not_whole():
    graph, _, _ = quantized(PRODUCT, DType.I4, 2)
    expected = typed_graph("""graph main(x: f32[n,3]) {
      w_i4: i4[3,2] = const [7, -7, 3, 2, -7, 0]
      w_scale: f32[2,2] = const [1.0, 0.14285715, 0.5, 1.0]
      w_dequantized = DequantizeLinear(w_i4, w_scale) {axis=0, block_size=2}
      y = MatMul(x, w_dequantized) @fc
      return y
    }""")
    assert print_graph(graph) == print_graph(expected)


@pytest.mark.parametrize("dtype", [DType.I4, DType.I8])
@pytest.mark.parametrize("group", [0, 32, 48, 500])
@pytest.mark.parametrize("turned", [False, True])
def test_results_are_off_by_half_a_step_of_each_weight_at_most(dtype, group, turned):
    shape = "f32[80,96]" if turned else "f32[96,80]"
    product = "y = Gemm(x, w) {transB=1}" if turned else "y = MatMul(x, w)"
    text = f'graph main(x: f32[batch,96]) {{ w: {shape} = const large "mapped w" {product} return y }}'
    graph, count, _ = quantized(text, dtype, group)
    assert count == 1
    source = read_graph(text)
    weights = next(iter(source.constants())).constant.array()
    product = graph.outputs[0].producer
    stored = product.inputs[1].producer
    assert stored.inputs[0].tensor.dtype is dtype
    (got,) = interpret(graph, [np.eye(96, dtype=np.float32)])
    exact = weights.T if turned else weights
    size = min(group, 96) or 96
    for start in range(0, 96, size):
        part = slice(start, start + size)
        step = np.abs(exact[part]).max(axis=0) / WeightForm(dtype).format.largest
        assert (np.abs(got[part] - exact[part]) <= step / 2 * 1.001).all()
    assert np.abs(got - exact).max() > 0


def test_groups_that_are_whole_stay_a_recipe():
    text = 'graph main(x: f32[batch,256]) { w: f32[256,512] = const large "mapped w" y = MatMul(x, w) return y }'
    graph, _, _ = quantized(text, DType.I8, 128)
    handle = graph.outputs[0].producer.inputs[1].producer.inputs[0].constant
    assert not isinstance(handle, ArrayConstant)
    assert np.abs(handle.array().astype(int)).max() == 127


def test_what_keeps_f32():
    graph = read_graph("""graph main(x: f32[1,2,4,4], z: f32[2,2]) {
      k: f32[2,2,1,1] = const [1.0, 2.0, 3.0, 4.0]
      w: f32[2,2] = const [1.0, 2.0, 3.0, 4.0]
      a = Conv(x, k) @conv
      b = MatMul(z, w) @fc
      c = MatMul(b, b) @scores
      return a, c
    }""")
    count, kept = quantize_weights(graph, KeepFloat(nodes=frozenset({"fc"})), WeightForm(DType.I8))
    assert count == 0
    assert {k.node: k.reason for k in kept} == {
        "conv": "rule: only matrices are stored so",
        "fc": "asked for",
        "scores": "its second factor is no constant of f32",
    }


def test_a_weight_that_is_not_finite_names_the_node():
    with pytest.raises(ModelError, match="node 'fc': its weight 'w' holds a number that is not finite") as error:
        quantized(PRODUCT.replace("7.0", "inf"), DType.I8, 2)
    assert (error.value.hint, as_flags(error.value.hint)) == ("give keep_float=['fc']", "give --keep-float fc")
