"""split_quantized_products: QLinearConv and QLinearMatMul as what dequantizes, a product of floats, and what quantizes."""

import numpy as np
import pytest

from miniinfer_cli.ir import Graph, TensorType, dtype_of
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.split_quantized_products import split_quantized_products
from tests.passes.quantized_graphs import assert_within_a_step

F32 = np.float32


NUMBERS = {"xs": F32(0.03), "xz": np.uint8(120), "ws": F32(0.02), "ys": F32(0.5), "yz": np.uint8(128)}


def product(op, x, w, *, bias=None, known=True, **numbers):
    """The graph of one node of x; y's scale is an input where not ``known``."""
    graph = Graph("main")
    numbers = NUMBERS | numbers
    numbers = {"wz": np.zeros(np.shape(numbers["ws"]), w.dtype), "w": w} | numbers
    values = [graph.add_input("x", TensorType(dtype_of(x), x.shape))]
    for name in ("xs", "xz", "w", "ws", "wz", "ys", "yz"):
        array = np.asarray(numbers[name])
        if name == "ys" and not known:
            values.append(graph.add_input(name, TensorType(dtype_of(array), array.shape)))
        else:
            values.append(graph.add_constant(array, name))
    attrs = {"pads": [1, 1, 1, 1], "strides": [2, 2]} if op == "QLinearConv" else {}
    values += [] if bias is None else [graph.add_constant(bias, "b")]
    graph.set_outputs([insert(graph, op, *values, **attrs)])
    return graph


RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (2, 3, 7, 7)).astype(np.uint8)
KERNELS = RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
ROWS = RNG.integers(0, 256, (2, 5, 6)).astype(np.uint8)
MATRIX = RNG.integers(-128, 128, (6, 4)).astype(np.int8)
COLUMNS = RNG.uniform(0.01, 0.03, 4).astype(F32)
CASES = {
    "a convolution": (("QLinearConv", IMAGE, KERNELS), {}),
    "by feature, with a bias": (
        ("QLinearConv", IMAGE, KERNELS), {"ws": COLUMNS, "wz": np.int8([1, 2, 3, 4]), "bias": np.int32([100, -2000, 3, 40000])},
    ),
    "one zero point for all features": (("QLinearConv", IMAGE, KERNELS), {"ws": COLUMNS, "wz": np.int8(3)}),
    "vectors of one number": (("QLinearConv", IMAGE, KERNELS), {"xs": F32([0.03]), "xz": np.uint8([7]), "yz": np.uint8([0])}),
    "a matrix": (("QLinearMatMul", ROWS, MATRIX), {}),
    "by column": (("QLinearMatMul", ROWS, MATRIX), {"ws": COLUMNS, "wz": np.int8([0, 1, 0, -9])}),
    "signed bytes": (
        ("QLinearMatMul", ROWS.astype(np.int8), MATRIX), {"xz": np.int8(3), "ys": F32(0.3), "yz": np.int8(-20)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_product_is_taken_apart(case):
    operands, options = CASES[case]
    graph = product(*operands, **options)
    (want,) = interpret(graph, [operands[1]])
    fired = split_quantized_products(graph)
    (got,) = interpret(graph, [operands[1]])
    assert_within_a_step(got, want)
    assert (fired, split_quantized_products(graph)) == (1, 0)
    verify(graph)
    left = [n.op for n in graph]
    op = "Conv" if operands[0] == "QLinearConv" else "MatMul"
    own = ["Mul", "DequantizeLinear"] if "bias" in options else []
    assert left == ["DequantizeLinear", "DequantizeLinear", *own, op, "QuantizeLinear"]
    assert len(np.unique(want)) > 20  # and not all of them saturated


@pytest.mark.parametrize(
    ("operands", "options"),
    {
        "a scale that is computed": (CASES["a matrix"][0], {"known": False}),
        "a scale for each row": (CASES["a matrix"][0], {"xs": F32([[0.1]] * 5), "xz": np.uint8([[1]] * 5)}),
        "a stack of matrices by column": (("QLinearMatMul", ROWS, np.stack([MATRIX] * 2)), {"ws": COLUMNS}),
    }.values(),
)
def test_what_stays_whole(operands, options):
    graph = product(*operands, **options)
    before = print_graph(graph)
    assert split_quantized_products(graph) == 0
    assert print_graph(graph) == before
