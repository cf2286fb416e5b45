"""choose_quantized and quantize_floats: which products multiply integers, who reads what, and the pairs that say so."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir.quantization import FP8, KeepFloat
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.choose_quantized import choose_quantized
from miniinfer_cli.passes.precision.quantize_floats import quantize_floats
from miniinfer_cli.passes.precision.sink_dequantization import sink_dequantization
from tests.graph_text import typed_graph
from tests.passes.graphs import read_graph

PRODUCT = """graph main(x: f32[n,2]) {
  w: f32[2,3] = const [1.0, -2.0, 0.0, 0.5, 4.0, 0.0]
  y = MatMul(x, w)
  z = Relu(y)
  return z
}"""
BLOCK = """graph main(x: f32[1,2,4,4]) {
  w: f32[2,2,1,1] = const [1.0, 2.0, 3.0, 4.0]
  a = Conv(x, w) @first
  b = Relu(a)
  c = Conv(b, w) @second
  d = Add(c, b) @join
  e = Relu(d)
  return e
}"""


def test_a_product_gets_pairs_and_weights_of_bytes_by_column():
    graph = read_graph(PRODUCT)
    chosen = choose_quantized(graph, KeepFloat())
    assert quantize_floats(graph, chosen, {"x": 0.25}) == 1
    verify(graph)
    expected = typed_graph("""graph main(x: f32[n,2]) {
      x_scale: f32[] = const 0.25
      zero_point: i8[] = const 0
      x_int8 = QuantizeLinear(x, x_scale, zero_point)
      x_dequantized = DequantizeLinear(x_int8, x_scale, zero_point)
      w_int8: i8[2,3] = const [127, -63, 0, 63, 127, 0]
      w_scale: f32[3] = const [0.007874016, 0.031496063, 1.0]
      w_dequantized = DequantizeLinear(w_int8, w_scale) {axis=1}
      y = MatMul(x_dequantized, w_dequantized)
      z = Relu(y)
      return z
    }""")
    assert print_graph(graph) == print_graph(expected)
    x = np.float32([[1.1, -0.3], [100.0, 0.0]])  # 100 is beyond 127 * 0.25
    (got,) = interpret(graph, [x])
    (exact,) = interpret(read_graph(PRODUCT), [np.float32([[1.0, -0.25], [31.75, 0.0]])])
    np.testing.assert_allclose(got, exact, atol=0.03)


def test_the_residual_of_a_convolution_is_read_quantized_too():
    graph = read_graph(BLOCK)
    chosen = choose_quantized(graph, KeepFloat())
    assert [n.name for n in chosen.products] == ["first", "second"]
    assert {v.name: [(n.name, i) for n, i in r] for v, r in chosen.readers.items()} == {
        "x": [("first", 0)],
        "b": [("second", 0), ("join", 1)],
    }
    quantize_floats(graph, chosen, {"x": 0.1, "b": 0.1})
    verify(graph)
    nodes = {n.name: n for n in graph}
    assert nodes["join"].inputs[1] is nodes["second"].inputs[0]  # one pair for both
    assert nodes["first"].inputs[1] is nodes["second"].inputs[1]  # and one for a weight that two share


def test_a_product_that_keeps_f32_leaves_what_is_added_to_it_alone():
    graph = read_graph(BLOCK)
    chosen = choose_quantized(graph, KeepFloat())
    assert {v.name for v in chosen.without({"second"}).readers} == {"x"}
    assert [n.name for n in chosen.without({"first"}).products] == ["second"]
    kept = choose_quantized(read_graph(BLOCK), KeepFloat(nodes=frozenset({"second"})))
    assert [(k.node, k.reason) for k in kept.kept] == [("second", "asked for")]
    assert {v.name for v in kept.readers} == {"x"}
    assert not choose_quantized(read_graph(BLOCK), KeepFloat(ops=frozenset({"Conv"}))).products


@pytest.mark.parametrize(
    ("body", "reason"),
    {
        "two results": ("y = MatMul(x, x)", "its second factor is no constant of f32"),
        "a stack of weights": (
            "w: f32[1,2,2] = const [1.0, 2.0, 3.0, 4.0] y = MatMul(x, w)",
            "rule for MatMul: its weights are no matrix on the right",
        ),
        "a turned factor": (
            "w: f32[2,2] = const [1.0, 2.0, 3.0, 4.0] y = Gemm(x, w) {transA=1}",
            "rule for Gemm: its weights are no matrix on the right",
        ),
        "another product": ('y = Einsum(x, x) {equation="ab,bc->ac"}', "rule for Einsum: no integers are multiplied in it"),
    }.values(),
)  # fmt: skip
def test_what_keeps_f32_by_rule(body, reason):
    graph = read_graph(f"graph main(x: f32[2,2]) {{ {body} return y }}")
    chosen = choose_quantized(graph, KeepFloat())
    assert not chosen.products and not chosen.readers
    assert [k.reason for k in chosen.kept] == [reason]


def test_products_of_f64_and_elementwise_nodes_are_none():
    chosen = choose_quantized(read_graph("graph main(x: f64[2,2]) { y = MatMul(x, x) z = Relu(y) return z }"), KeepFloat())
    assert not chosen.products and not chosen.kept


def test_a_scale_that_is_missing_or_none_and_a_weight_that_is_not_finite():
    for scales, told in (({}, "has no scale"), ({"x": 0.0}, "has the scale 0"), ({"x": np.inf}, "has the scale inf")):
        graph = read_graph(PRODUCT)
        with pytest.raises(ModelError, match=f"node 'y': 'x', which it is to read as int8, {told}"):
            quantize_floats(graph, choose_quantized(graph, KeepFloat()), scales)
    graph = read_graph(PRODUCT.replace("-2.0", "nan"))
    with pytest.raises(ModelError, match="node 'y': its weight 'w' holds a number that is not finite"):
        quantize_floats(graph, choose_quantized(graph, KeepFloat()), {"x": 1.0})


def test_the_weights_of_an_output_keep_their_sum():
    text = 'graph main(x: f32[batch,300]) { w: f32[300,40] = const large "mapped w" y = MatMul(x, w) return y }'
    graph = read_graph(text)
    weights = next(iter(graph.constants())).constant.array()
    quantize_floats(graph, choose_quantized(graph, KeepFloat()), {"x": 1.0})
    stored, scales = (v.constant.array() for v in graph.outputs[0].producer.inputs[1].producer.inputs)
    lacking = np.abs((weights / scales).sum(axis=0) - stored.astype(np.int64).sum(axis=0))
    assert lacking.max() < 0.51
    nearest = np.abs((weights / scales).sum(axis=0) - np.rint(weights / scales).sum(axis=0))
    assert nearest.max() > 2
    assert np.abs(weights / scales - stored).max() < 1
    assert np.abs(stored.astype(int)).max() == 127


@pytest.mark.parametrize(
    ("body", "unsigned"),
    {
        "Relu": ("a = Relu(x)", True),
        "what moves one": ("r = Relu(x) a = Transpose(r) {perm=[1, 0]}", True),
        "all that are joined": ("r = Relu(x) s = Sigmoid(x) a = Concat(r, s) {axis=0}", True),
        "one of two that are not": ("r = Relu(x) a = Concat(r, x) {axis=0}", False),
        "bounds from 0 on": ("o: f32[] = const 0.0 h: f32[] = const 6.0 a = Clip(x, o, h)", True),
        "bounds from below": ("o: f32[] = const -1.0 h: f32[] = const 6.0 a = Clip(x, o, h)", False),
        "anything": ("a = Neg(x)", False),
        "an input": ("a = Identity(x)", False),
    }.values(),
)
def test_what_is_never_negative_has_no_sign(body, unsigned):
    graph = read_graph(f"graph main(x: f32[2,2]) {{ {body} w: f32[2,2] = const [1.0, 2.0, 3.0, 4.0] y = MatMul(a, w) return y }}")
    chosen = choose_quantized(graph, KeepFloat())
    quantize_floats(graph, chosen, {"a": 2.0, "x": 2.0})
    (narrow,) = (n for n in graph if n.op == "QuantizeLinear")
    scale = 2.0 * 127 / 255 if unsigned else 2.0
    assert narrow.output.tensor.dtype.value == ("u8" if unsigned else "i8")
    assert narrow.inputs[1].constant.array() == np.float32(scale)


def test_pools_of_what_is_never_negative_are_not_either():
    graph = read_graph("""graph main(x: f32[1,2,4,4]) {
      r = Relu(x)
      a = MaxPool(r) {kernel_shape=[2, 2]}
      b = AveragePool(a) {kernel_shape=[2, 2]}
      w: f32[2,2,1,1] = const [1.0, 2.0, 3.0, 4.0]
      y = Conv(b, w)
      return y
    }""")
    quantize_floats(graph, choose_quantized(graph, KeepFloat()), {"b": 1.0})
    assert [n.output.tensor.dtype.value for n in graph if n.op == "QuantizeLinear"] == ["u8"]


def test_a_product_of_8_bit_floats():
    graph = read_graph(PRODUCT.replace("y = MatMul(x, w)", "r = Relu(x) y = MatMul(r, w)"))
    chosen = choose_quantized(graph, KeepFloat(), FP8)
    assert quantize_floats(graph, chosen, {"r": 0.25}) == 1
    verify(graph)
    expected = typed_graph("""graph main(x: f32[n,2]) {
      r = Relu(x)
      r_scale: f32[] = const 0.25
      zero_point: f8e4m3fn[] = const 0.0
      r_fp8 = QuantizeLinear(r, r_scale, zero_point)
      r_dequantized = DequantizeLinear(r_fp8, r_scale, zero_point)
      w_fp8: f8e4m3fn[2,3] = const [448.0, -224.0, 0.0, 224.0, 448.0, 0.0]
      w_scale: f32[3] = const [0.002232143, 0.008928572, 1.0]
      w_dequantized = DequantizeLinear(w_fp8, w_scale) {axis=1}
      y = MatMul(r_dequantized, w_dequantized)
      z = Relu(y)
      return z
    }""")
    assert print_graph(graph) == print_graph(expected)


@pytest.mark.parametrize(
    ("body", "read"),
    {
        "two results": ("a = Neg(x) y = MatMul(x, a)", ["x", "a"]),
        "attention": ("q = Neg(x) y = Attention(q, q, x) {q_num_heads=2, kv_num_heads=2}", ["q", "x"]),
        "integers leave them": ("y = MatMul(x, x)", None),
    }.values(),
)
def test_floats_are_multiplied_in_products_of_results_too(body, read):
    graph = read_graph(f"graph main(x: f32[2,4,4]) {{ {body} return y }}")
    if read is None:
        assert not choose_quantized(graph, KeepFloat()).products
        return
    chosen = choose_quantized(graph, KeepFloat(), FP8)
    assert sorted(v.name for v in chosen.readers) == sorted(read)
    x = np.random.default_rng(0).standard_normal((2, 4, 4)).astype(np.float32)
    (want,) = interpret(graph, [x])
    quantize_floats(graph, chosen, dict.fromkeys(read, 0.01))
    verify(graph)
    product = graph.outputs[0].producer
    assert all(v.producer.op == "DequantizeLinear" for v in product.inputs[:3])
    (got,) = interpret(graph, [x])
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-3 < error < 0.06


def test_what_keeps_its_floats_where_floats_of_8_bits_are_multiplied():
    graph = read_graph("""graph main(x: f32[2,4,4], p: f32[2,2,3,2]) {
      y = Attention(x, x, x, -, p, p) {q_num_heads=2, kv_num_heads=2}
      w: f32[4,4] = const large "mapped w"
      z = MatMul(w, x)
      e = Einsum(x, x) {equation="abc,abd->acd"}
      return y, z, e
    }""")
    reasons = {k.op: k.reason for k in choose_quantized(graph, KeepFloat(), FP8).kept}
    assert reasons == {
        "Attention": "rule for Attention: it reads a past",
        "MatMul": "a factor of it is no result of f32",
        "Einsum": "rule for Einsum: no floats of 8 bits are multiplied in it",
    }


PACKED = """graph main(x: f32[2,4,12], h: i64[4]) {{
  p = Tanh(x)
  q, k, v = Split(p) {{axis=2, num_outputs=3}}
  {heads}
  y = Attention({operands}) {attrs}
  {rest}
  return y{more}
}}"""


def quantized_attention(heads="", operands="q, k, v", attrs="{q_num_heads=2, kv_num_heads=2}", rest="", more=""):
    graph = read_graph(PACKED.format(heads=heads, operands=operands, attrs=attrs, rest=rest, more=more))
    return graph, choose_quantized(graph, KeepFloat(), FP8)


def test_what_is_moved_to_attention_alone_is_quantized_once_in_front_of_the_moves():
    for options in (
        {},
        {
            "heads": "i = Reshape(q, h) j = Transpose(i) {perm=[0, 2, 1, 3]} k4 = Reshape(k, h)"
            " kt = Transpose(k4) {perm=[0, 2, 1, 3]}"
            " v4 = Reshape(v, h) vt = Transpose(v4) {perm=[0, 2, 1, 3]}",
            "operands": "j, kt, vt",
            "attrs": "",
        },
    ):  # fmt: skip
        graph, chosen = quantized_attention(**options)
        assert {v.name: [(n.op, i) for n, i in found] for v, found in chosen.readers.items()} == {"p": [("Split", 0)]}
        assert not chosen.without({chosen.products[0].name}).readers
        quantize_floats(graph, chosen, {"p": 1 / 448})
        verify(graph)
        split = next(n for n in graph if n.op == "Split")
        assert split.inputs[0].producer.op == "DequantizeLinear"
        assert sink_dequantization(graph) == 0  # attention reads floats


def test_what_others_read_is_quantized_for_attention_alone():
    for options, read in (
        ({"rest": "n = Neg(q)", "more": ", n"}, {"q", "k", "v"}),
        ({"more": ", v"}, {"q", "k", "v"}),
        ({"heads": "m = Cast(q) {to=9}", "operands": "q, k, v, m", "rest": ""}, {"q", "k", "v"}),
    ):
        _, chosen = quantized_attention(**options)
        assert {v.name for v in chosen.readers} == read


@pytest.mark.parametrize(
    ("ending", "kept"),
    [
        ("y = MatMul(p, v) @last\n  return y", ["last"]),
        ("y = MatMul(p, v) @last\n  z = Softmax(y)\n  return z", ["last"]),
        ("y = MatMul(p, v) @last\n  return y, r", ["last"]),
        ("q = MatMul(p, v) @last\n  y = ReduceMean(q)\n  return y", []),  # something comes behind it
        ("q = MatMul(p, v) @last\n  e: f32[2,2] = const [1.0, 2.0, 3.0, 4.0]\n  y = MatMul(q, e) @end\n  return y", ["end"]),
        ("u: f32[90,90] = const large \"u\"\n  y = MatMul(p, u) @last\n  return y", []),  # it is a part of the work
    ],
)  # fmt: skip
def test_last_products_that_are_little_work_keep_f32(ending, kept):
    first = 'w: f32[90,90] = const large "w"\n  s = MatMul(x, w) @first\n  r = Relu(s)\n  a: i64[1] = const [1]'
    mean = 'p = ReduceMean(r, a)\n  v: f32[90,2] = const large "v"'
    graph = typed_graph(f"graph main(x: f32[n,8,90]) {{\n  {first}\n  {mean}\n  {ending}\n}}")
    chosen = choose_quantized(graph, KeepFloat())
    assert [(k.node, k.reason.partition(":")[0]) for k in chosen.kept] == [(name, "rule for the last product") for name in kept]
    assert "first" in {n.name for n in chosen.products}
