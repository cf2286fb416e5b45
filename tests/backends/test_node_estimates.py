"""What nodes do at least: operations and bytes by hand, and which ceiling holds."""

import pytest

from miniinfer_cli.backends.ceilings import Rate, Unit
from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.node_estimates import estimate_of, rate_of, weights_nbytes_of
from miniinfer_cli.ir.text_reader import parse_graph
from miniinfer_cli.ops.inference import annotate, infer_graph
from miniinfer_cli.ops.registry import defined

CASES = {
    "graph main(x: f32[4,8], w: f32[8,3]) {\n  y = MatMul(x, w)\n  return y\n}": Estimate(2 * 4 * 3 * 8, 4 * (32 + 24 + 12)),
    "graph main(x: f16[8,4], w: f16[8,3]) {\n  y = Gemm(x, w) {transA=1}\n  return y\n}": Estimate(
        2 * 4 * 3 * 8, 2 * (32 + 24 + 12)
    ),
    "graph main(x: f32[1,4,6,6], w: f32[2,2,3,3]) {\n  y = Conv(x, w) {group=2}\n  return y\n}": Estimate(
        2 * 32 * 18, 4 * (144 + 36 + 32)
    ),
    "graph main(x: f32[1,4,2,2], w: f32[4,3,2,2]) {\n  y = ConvTranspose(x, w)\n  return y\n}": Estimate(
        2 * 16 * 12, 4 * (16 + 48 + 27)
    ),
    "graph main(x: f32[100,8], i: i64[3]) {\n  y = Gather(x, i)\n  return y\n}": Estimate(0, 2 * 3 * 8 * 4 + 24),
    "graph main(x: f32[2,8], b: f32[3,8]) {\n  y = Concat(x, b) {axis=0}\n  return y\n}": Estimate(0, 2 * 160),
    "graph main(x: f32[2,8]) {\n  y = ReduceSum(x)\n  return y\n}": Estimate(16, 64 + 4),
    "graph main(x: f32[2,8]) {\n  y = Flatten(x)\n  return y\n}": Estimate(0, 0),
    "graph main(x: f32[2,3,4], w: f32[1,20,4], r: f32[1,20,5]) {\n  y = LSTM(x, w, r) {hidden_size=5}\n  return y\n}": Estimate(
        2 * 6 * (80 + 100), 4 * (24 + 80 + 100 + 30)
    ),
    'graph main(x: f32[2,3], w: f32[3,5]) {\n  y = Einsum(x, w) {equation="ij,jk->ik"}\n  return y\n}': Estimate(
        2 * 30, 4 * (6 + 15 + 10)
    ),
    "graph main(q: f32[1,2,4,8], k: f32[1,2,6,8], v: f32[1,2,6,8]) {\n  y = Attention(q, k, v)\n  return y\n}": Estimate(
        2 * 6 * (64 + 64), 4 * (64 + 96 + 96 + 64)
    ),
    "graph main(q: f32[1,2,4,8]) {\n  y = Attention(q, q, q) {is_causal=1}\n  return y\n}": Estimate(2 * 10 * 32, 4 * 4 * 64),
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_estimates(text: str, expected: Estimate):
    graph = parse_graph(text)
    (node,) = graph.nodes
    types = infer_graph(graph, [v.type for v in graph.inputs])
    assert estimate_of(node, [types[v] for v in node.inputs if v is not None], [types[v] for v in node.outputs]) == expected


REGION = """graph main(x: f16[4,8], w: f16[8,3]) {
  y = miniinfer.FusedMatMul(x, w) @both
    body: graph main(x: f16[4,8], w: f16[8,3]) {
      h = MatMul(x, w)
      y = Relu(h)
      return y
    }
  return y
}"""


def test_a_region_does_what_its_body_does_and_moves_its_operands_and_results():
    graph = parse_graph(REGION)
    annotate(graph)
    (node,) = graph.nodes
    kinds = [v.type for v in graph.inputs]
    assert estimate_of(node, kinds, [node.output.type]) == Estimate(2 * 4 * 3 * 8 + 12, 2 * (32 + 24 + 12))
    assert rate_of(node, tf32=True, widens=False) == Rate(Unit.MATRIX, "f16")
    assert rate_of(node, tf32=True, widens=True) == Rate(Unit.MATRIX, "f32")


def test_sizes_that_data_decide_count_as_nothing():
    graph = parse_graph("graph main(x: f32[n,8], w: f32[8,3]) {\n  y = MatMul(x, w)\n  return y\n}")
    annotate(graph)
    (node,) = graph.nodes
    assert estimate_of(node, [v.type for v in graph.inputs], [node.output.type]) == Estimate(0, 4 * 24)


@pytest.mark.parametrize(
    ("dtype", "op", "tf32", "expected"),
    [
        ("f32", "MatMul", True, "matrix tf32"), ("f32", "MatMul", False, "matrix f32"), ("f64", "MatMul", True, "matrix f64"),
        ("bf16", "MatMul", True, "matrix bf16"), ("u8", "MatMulInteger", True, "matrix i8"), ("f16", "Add", True, "vector f32"),
        ("f64", "Add", True, "vector f64"),
    ],
)  # fmt: skip
def test_rates(dtype: str, op: str, tf32: bool, expected: str):
    graph = parse_graph(f"graph main(x: {dtype}[4,4], w: {dtype}[4,4]) {{\n  y = {op}(x, w)\n  return y\n}}")
    annotate(graph)
    assert str(rate_of(graph.nodes[0], tf32=tf32, widens=False)) == expected


def test_weights_are_the_constants_that_are_read():
    graph = parse_graph(
        "graph main(x: f32[4,8], i: i64[3]) {\n  w: f32[8,3] = const fill 1\n  t: f32[50,8] = const fill 1\n"
        "  y = MatMul(x, w)\n  z = Gather(t, i)\n  return y, z\n}"
    )
    annotate(graph)
    product, gather = graph.nodes
    assert weights_nbytes_of(product, [product.output.type]) == 4 * 24
    assert weights_nbytes_of(gather, [gather.output.type]) == 4 * 24, "of a table, the rows that are picked"


def test_what_does_more_than_it_touches_says_how_much():
    """Two of the heavy operations interpolate or compare: they hold no products."""
    assert [d.name for d in defined() if d.heavy and d.flops is None] == ["MaxRoiPool", "RoiAlign"]
    assert [d.name for d in defined() if d.flops is not None and not d.heavy] == []
