"""narrow_floats: f32 becomes f16 or bf16 where a graph is asked to, but for what rules and names keep, with few Casts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.ir import DType, Graph, Numerics
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops import annotate, defined
from miniinfer_cli.ops.half_floats import Bearing, bearing_of
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.precision.narrow_floats import ask, narrow_floats
from tests.graph_text import typed_graph
from tests.passes.graphs import read_graph, run_graph

TOLERANCE = {DType.F16: 1e-2, DType.BF16: 5e-2}
# What knows no type of 16 bits: it runs sub-graphs, holds sequences, or has no definition of ours.
UNKNOWN = {
    *("If", "Loop", "Scan", "SequenceMap", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
    *("SequenceLength", "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"),
    *("CastMap", "CategoryMapper", "ZipMap", "FlexAttention", "OnnxReference"),
}


def asked(text: str, half: DType = DType.F16, nodes: frozenset[str] = frozenset(), ops: frozenset[str] = frozenset()) -> Graph:
    """The graph of a text, asked to be of 16 bits, its large constants filled."""
    graph = read_graph(text)
    ask(graph, Numerics(half, nodes, ops))
    return graph


def narrowed(text: str, half: DType = DType.F16, nodes: frozenset[str] = frozenset(), ops: frozenset[str] = frozenset()) -> Graph:
    """The same, narrowed, sub-graphs too: sound, with the types of its shape rules, and left as it is by a second run."""
    graph = asked(text, half, nodes, ops)
    before = run_graph(graph)
    for within in list(with_subgraphs(graph)):
        narrow_floats(within)
    verify(graph)
    text = print_graph(graph)
    assert [narrow_floats(within) for within in with_subgraphs(graph)] == [0] * len(list(with_subgraphs(graph)))
    annotate(graph)
    assert print_graph(graph) == text, "the pass left types that are not what the shape rules say"
    for expected, got in zip(before, run_graph(graph), strict=True):
        assert got.dtype == expected.dtype
        if expected.dtype == np.float32:
            assert np.array_equal(np.isfinite(got), np.isfinite(expected))
            got, expected = (np.where(np.isfinite(v), v, 0) for v in (got, expected))
            off = np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30)
            np.testing.assert_array_less(off, TOLERANCE[half])
    return graph


def wide_ops(graph: Graph) -> dict[str, str]:
    """What keeps f32, by name of the node's result, with the reason."""
    assert graph.numerics is not None
    return {k.node: k.reason for k in graph.numerics.kept}


def same(graph: Graph, text: str) -> None:
    assert print_graph(graph) == print_graph(typed_graph(text))


def test_a_product_with_its_bias_and_activation_is_of_16_bits():
    graph = narrowed("""graph main(x: f32[batch,4]) {
      w: f32[4,2] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
      b: f32[2] = const [0.5, 1.5]
      h = MatMul(x, w)
      y = Add(h, b)
      return y
    }""")
    same(graph, """graph main(x: f32[batch,4]) {
      x_f16 = Cast(x) {to=10}
      w_1: f16[4,2] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
      h = MatMul(x_f16, w_1)
      b_1: f16[2] = const [0.5, 1.5]
      y = Add(h, b_1)
      y_f32 = Cast(y) {to=1}
      return y=y_f32
    }""")  # fmt: skip
    assert wide_ops(graph) == {}


def test_without_numerics_nothing_happens(leaves):
    leaves(narrow_floats, "graph main(x: f32[2]) { y = Relu(x) return y }")


def test_each_value_is_cast_once_and_constants_are_shared():
    graph = narrowed("""graph main(x: f32[2,2], z: f32[2,2]) {
      w: f32[2,2] = const [1.0, 2.0, 3.0, 4.0]
      a = MatMul(x, w)
      b = MatMul(w, x)
      c = MatMul(z, w)
      d = Add(a, b)
      e = Add(d, c)
      return e, d
    }""")
    assert sum(n.op == "Cast" for n in graph) == 4  # x, z, d and e
    assert [str(v.type) for v in graph.constants()] == ["f16[2,2]"]


KEPT = {
    "exp": ("y = Exp(x)", "rule for Exp"),
    "pow": ("two: f32[] = const 2.0\n y = Pow(x, two)", "rule for Pow"),
    "square": ("y = Mul(x, x)", "rule for Mul"),
    "sum": ("y = ReduceSum(x)", "rule for ReduceSum"),
    "sine": ("y = Sin(x)", "rule for Sin"),
    "large": ("c: f32[] = const 1e6\n m = Mul(x, c)\n i: f32[] = const 1e-6\n y = Mul(m, i)", "constant 'c' is beyond f16"),
    "a small factor": ("c: f32[] = const 1e-6\n y = Mul(x, c)", "constant 'c' is too small for f16"),
    "small": ("c: f32[] = const 1e-12\n a = Abs(x)\n y = Add(a, c)", "constant 'c' is too small for f16"),
}


@pytest.mark.parametrize(("body", "reason"), KEPT.values(), ids=KEPT.keys())
def test_what_keeps_f32_by_rule(body, reason):
    graph = narrowed(f"graph main(x: f32[2,3], w: f32[3,3]) {{ {body}\n z = MatMul(x, w)\n return y, z }}")
    assert any(told.startswith(reason) for told in wide_ops(graph).values())


BORN = {
    "a root": "half: f32[] = const 0.5\n a = Abs(x)\n y = Pow(a, half)",
    "a bound beyond the type": "low: f32[] = const -1e6\n high: f32[] = const 1e6\n y = Clip(x, low, high)",
    "a masked score": "c: bool[2,3] = const [true, false, true, true, true, true]\n m: f32[] = const -inf\n y = Where(c, x, m)",
    "a norm": "s: f32[3] = const [1.0, 2.0, 3.0]\n y = LayerNormalization(x, s)",
    "a mean": "y = ReduceMean(x)",
    "a maximum": "y = ReduceMax(x)",
    "a softmax": "y = Softmax(x)",
    "a small bias": "b: f32[3] = const [1e-6, 2e-6, 3e-6]\n y = Add(x, b)",
    "a truth": "b = Greater(x, x)\n y = Cast(b) {to=1}",
}


@pytest.mark.parametrize("body", BORN.values(), ids=BORN.keys())
def test_what_16_bits_suffice_for(body):
    assert wide_ops(narrowed(f"graph main(x: f32[2,3]) {{ {body}\n return y }}")) == {}


def test_f32_spreads_forward_to_the_next_product_and_no_further():
    graph = narrowed("""graph main(x: f32[3,3]) {
      e = Exp(x)
      t = Transpose(e)
      r = Relu(t)
      p = MatMul(r, x)
      y = Relu(p)
      return y
    }""")
    assert wide_ops(graph).keys() == {"e", "t", "r"}
    assert [(n.op, str(n.output.tensor.dtype)) for n in graph if n.op in ("Exp", "Relu", "MatMul")] == [
        ("Exp", "f32"), ("Relu", "f32"), ("MatMul", "f16"), ("Relu", "f16"),
    ]  # fmt: skip


def test_what_bounds_large_numbers_computes_on_f32_and_gives_16_bits():
    graph = narrowed("""graph main(x: f32[3,3]) {
      low: f32[] = const -3e38
      c: bool[3,3] = const [true, true, false, true, true, true, true, true, true]
      m = Where(c, x, low)
      p = Softmax(m)
      y = MatMul(p, x)
      return y
    }""")
    assert wide_ops(graph).keys() == {"m", "p"}
    assert [n.op for n in graph] == ["Where", "Softmax", "Cast", "Cast", "MatMul", "Cast"]


def test_f32_spreads_backward_to_what_nobody_else_reads():
    text = """graph main(x: f32[3,3]) {{
      p = MatMul(x, x)
      s = Neg(p)
      y = Exp(s)
      return y{more}
    }}"""
    assert wide_ops(narrowed(text.format(more=""))).keys() == {"s", "y"}
    assert wide_ops(narrowed(text.format(more=", s"))).keys() == {"y"}


def test_positions_times_frequencies_keep_their_digits():
    graph = narrowed("""graph main(x: f32[4,2], positions: i64[4,1]) {
      f: f32[1,2] = const [1.0, 0.37]
      p = Cast(positions) {to=1}
      angles = MatMul(p, f)
      c = Cos(angles)
      r = Mul(x, c)
      t = Transpose(f)
      y = MatMul(r, t)
      return y
    }""")
    assert wide_ops(graph).keys() == {"p", "angles", "c"}
    assert graph.numerics is not None and not graph.numerics.lost


def test_what_coordinates_are_made_of_keeps_f32_whoever_else_reads_it():
    graph = narrowed("""graph main(x: f32[1,2,4,4], d: f32[1,2,4,4], w: f32[2,2,1,1]) {
      half: f32[] = const 0.5
      delta = Conv(d, w)
      place = Add(delta, half)
      turned = Transpose(place) {perm=[0, 2, 3, 1]}
      grid = Mul(turned, half)
      sample = GridSample(x, grid)
      flow = Conv(place, w)
      return sample, flow
    }""")
    assert wide_ops(graph) == dict.fromkeys(("place", "turned", "grid"), "coordinates are made of it")
    dtypes = {n.output.name: str(n.output.tensor.dtype) for n in graph if n.op in ("Conv", "GridSample")}
    assert dtypes == {"delta": "f16", "sample": "f16", "flow": "f16"}


def test_pixels_that_are_counted_do_not_keep_a_convolution():
    graph = narrowed("""graph main(x: i32[1,2,4,4]) {
      w: f32[3,2,3,3] = const large "mapped w"
      p = Cast(x) {to=1}
      y = Conv(p, w)
      return y
    }""")
    assert wide_ops(graph).keys() == {"p"}


def test_nodes_and_operations_that_are_asked_for_keep_f32():
    text = """graph main(x: f32[2,2]) {
      a = MatMul(x, x)
      b = Relu(a)
      y = MatMul(b, x)
      return y
    }"""
    assert wide_ops(narrowed(text, nodes=frozenset({"a"}))) == {"a": "asked for", "b": "it reads 'a', which keeps f32"}
    graph = narrowed(text, ops=frozenset({"MatMul"}))
    assert wide_ops(graph).keys() == {"a", "b", "y"}
    assert len(graph) == 3


def test_a_mask_keeps_its_type():
    graph = narrowed("""graph main(q: f32[1,2,4,8], m: f32[4,4]) {
      y = Attention(q, q, q, m)
      return y
    }""")
    attention = next(n for n in graph if n.op == "Attention")
    assert [str(v.tensor.dtype) for v in attention.inputs if v is not None] == ["f16", "f16", "f16", "f32"]


@pytest.mark.parametrize(("number", "dtype"), [("-100.0", "f16"), ("-inf", "f16"), ("-3e38", "f32")])
def test_a_constant_mask_is_rounded_where_16_bits_hold_it(number, dtype):
    graph = narrowed(f"""graph main(q: f32[1,2,2,8]) {{
      m: f32[2,2] = const [0.0, {number}, 0.5, 0.0]
      y = Attention(q, q, q, m)
      return y
    }}""")
    attention = next(n for n in graph if n.op == "Attention")
    assert str(attention.inputs[3].tensor.dtype) == dtype


def test_casts_of_the_model_from_16_bits_go():
    graph = asked("""graph main(x: f16[2,2]) {
      wide = Cast(x) {to=1}
      a = Relu(wide)
      b = Neg(a)
      narrow = Cast(b) {to=10}
      y = Relu(narrow)
      return y
    }""")
    optimize(graph, 1, check=True)
    assert [n.op for n in graph] == ["Relu", "Neg", "Relu"]


def test_whole_numbers_of_8_bits_are_exact_in_16():
    text = "graph main(x: u8[2,2], w: f32[2,2]) { f = Cast(x) {to=1}\n y = MatMul(f, w) return y }"
    assert wide_ops(narrowed(text)) == {}
    assert wide_ops(narrowed(text, DType.BF16)) == {}
    wider = text.replace("u8", "u16")
    assert wide_ops(narrowed(wider)).keys() == wide_ops(narrowed(wider, DType.BF16)).keys() == {"f"}


def test_f64_and_integers_stay():
    graph = asked("""graph main(x: f64[2], i: i64[2], f: f32[2]) {
      a = Relu(x)
      b = Add(i, i)
      d = Relu(f)
      return a, b, d
    }""")
    narrow_floats(graph)
    assert [str(n.output.tensor.dtype) for n in graph] == ["f64", "i64", "f16", "f16", "f32"]


LOOP = """graph main(x: f32[2,2], w: f32[2,2]) {
  n: i64[] = const 3
  t: bool[] = const true
  p = MatMul(x, w)
  y = Loop(n, t, p, w) {n_captures=1}
    body: graph body(i: i64[], going: bool[], c: f32[2,2], k: f32[2,2]) {
    a = MatMul(c, k)
    b = Tanh(a)
    return going, b
  }
  z = Relu(y)
  return z
}"""


def test_what_a_loop_carries_keeps_its_type_and_its_body_is_narrowed():
    graph = narrowed(LOOP)
    loop = next(n for n in graph if n.op == "Loop")
    body = loop.graphs["body"]
    assert [str(v.type) for v in (*body.inputs, *body.outputs)] == [
        "i64[]",
        "bool[]",
        "f32[2,2]",
        "f32[2,2]",
        "bool[]",
        "f32[2,2]",
    ]
    assert [n.op for n in body] == ["Cast", "Cast", "MatMul", "Cast", "Tanh"]
    assert next(n for n in body if n.op == "MatMul").output.tensor.dtype is DType.F16


def test_what_a_loop_adds_up_is_added_up_in_f32():
    """2000 rounds of a thousandth: in f16 the sum would stand still at 2, or before."""
    text = """graph main(x: f32[2,2]) {
      n: i64[] = const 2000
      t: bool[] = const true
      y = Loop(n, t, x)
        body: graph body(i: i64[], going: bool[], sum: f32[2,2]) {
          step: f32[2,2] = const fill 0.001
          m = MatMul(sum, sum)
          h = Sigmoid(m)
          one = Div(h, h)
          s = Mul(one, step)
          next = Add(sum, s)
          return going, next
        }
      return y
    }"""
    graph = asked(text)
    for within in list(with_subgraphs(graph)):
        narrow_floats(within)
    body = next(n for n in graph if n.op == "Loop").graphs["body"]
    assert {n.op: str(n.output.tensor.dtype) for n in body if n.op != "Cast"}["MatMul"] == "f16"
    (y,) = interpret(graph, [np.zeros((2, 2), np.float32)])
    np.testing.assert_allclose(y, 2, rtol=1e-3)


def test_weights_that_are_lost_are_told_and_kept_ones_are_not():
    text = """graph main(x: f32[2,2]) {
      w: f32[2,2] = const [1e5, 2.0, 3.0, 4.0]
      v: f32[2,2] = const [1e-9, 0.0, 0.0, 0.0]
      a = MatMul(x, w)
      b = MatMul(a, v)
      c = MatMul(x, x)
      y = Add(b, c)
      return y
    }"""
    graph = asked(text)
    narrow_floats(graph)
    assert graph.numerics is not None
    assert [(w.origins, w.weight, w.loss) for w in graph.numerics.lost] == [
        (("a",), "w", "reaches 1e+05, and f16 ends at 65504"), (("b",), "v", "is 1e-09 at most, which is 0 in f16"),
    ]  # fmt: skip
    graph = asked(text, nodes=frozenset({"a", "b"}))
    narrow_floats(graph)
    assert graph.numerics is not None and not graph.numerics.lost
    graph = asked(text, DType.BF16)
    narrow_floats(graph)
    assert graph.numerics is not None and not graph.numerics.lost


def test_scales_go_into_weights_only_as_far_as_16_bits_hold_them():
    text = """graph main(x: f32[2,2]) {
      w: f32[2,2] = const [300.0, 2.0, 3.0, 4.0]
      s: f32[] = const SCALE
      a = MatMul(x, w)
      y = Mul(a, s)
      return y
    }"""
    for scale, folded in (("8.0", True), ("1000.0", False), ("1e-8", False)):
        graph = asked(text.replace("SCALE", scale))
        optimize(graph, 1, check=True)
        assert ("Mul" not in [n.op for n in graph]) is folded
        graph.numerics = None
        plain = read_graph(text.replace("SCALE", scale))
        optimize(plain, 1)
        assert "Mul" not in [n.op for n in plain]


def test_weights_of_convolutions_keep_the_sums_of_their_channels():
    graph = asked("""graph main(x: f32[1,8,4,4]) {
      w: f32[4,8,3,3] = const large "mapped w"
      y = Conv(x, w)
      return y
    }""")
    exact = next(graph.constants()).constant
    narrow_floats(graph)
    rounded = next(graph.constants()).constant
    assert exact is not None and rounded is not None and rounded.dtype is DType.F16
    sums = [c.array().astype(np.float64).sum(axis=(1, 2, 3)) for c in (exact, rounded)]
    plain = exact.array().astype(np.float16).astype(np.float64).sum(axis=(1, 2, 3))
    assert np.abs(sums[1] - sums[0]).max() < np.abs(plain - sums[0]).max() / 3


def test_every_operation_says_how_it_bears_16_bits():
    unknown = {
        d.name
        for d in defined()
        if bearing_of(d.domain, d.name) is None and d.domain in ("", "miniinfer", "ai.onnx.ml", "ai.onnx.preview")
    }
    assert unknown == UNKNOWN
    assert bearing_of("com.example", "Exp") is None
    assert {b for d in defined() if (b := bearing_of(d.domain, d.name))} == set(Bearing)


_UNARY = ("Relu", "Tanh", "Sigmoid", "Neg", "Exp", "Softmax", "Abs", "ReduceSum", "Cos", "Identity", "Transpose")
_BINARY = ("Add", "Sub", "Mul", "MatMul", "Max")


@st.composite
def graphs(draw):
    """A graph of a few nodes on f32[3,3], constants among its operands, and several of its values as outputs."""
    lines, names = [], ["x", "z"]
    for number in range(draw(st.integers(1, 9))):
        name = f"v{number}"
        if draw(st.booleans()):
            op, operand = draw(st.sampled_from(_UNARY)), draw(st.sampled_from(names))
            attrs = " {keepdims=1}" if op == "ReduceSum" else ""
            lines.append(f"{name} = {op}({operand}){attrs}")
            if op == "ReduceSum":
                lines[-1] = f"s{number} = ReduceSum({operand}){attrs}\n {name} = Add(s{number}, x)"
        else:
            operands = [draw(st.sampled_from(names)), draw(st.sampled_from(names))]
            if draw(st.booleans()):
                lines.append(f"c{number}: f32[3,3] = const fill {draw(st.sampled_from(('0.5', '1e-9', '-0.25')))}")
                operands[draw(st.integers(0, 1))] = f"c{number}"
            lines.append(f"t{number} = {draw(st.sampled_from(_BINARY))}({', '.join(operands)})\n {name} = Tanh(t{number})")
        names.append(name)
    outputs = draw(st.lists(st.sampled_from(names[2:]), min_size=1, max_size=3, unique=True))
    body = "\n ".join(lines)
    return f"graph main(x: f32[3,3], z: f32[3,3]) {{\n {body}\n return {', '.join(outputs)}\n}}"


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from((DType.F16, DType.BF16)))
def test_small_graphs_compute_the_same_with_few_casts(text, half):
    graph = asked(text, half)
    inputs = [np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3) * f for f in (1, 0.7)]
    before = interpret(graph, inputs)
    narrow_floats(graph)
    verify(graph)
    assert narrow_floats(graph) == 0
    for expected, got in zip(before, interpret(graph, inputs), strict=True):
        assert np.linalg.norm(got - expected) <= 2 * TOLERANCE[half] * max(np.linalg.norm(expected), 1)
    casts = [n for n in graph if n.op == "Cast"]
    assert len({(n.inputs[0], n.attrs["to"]) for n in casts}) == len(casts), "a value is cast twice"
    assert all(n.inputs[0] is not None and (n.inputs[0].producer is None or n.inputs[0].producer.op != "Cast") for n in casts)
    assert all(n.output.users or graph.is_output(n.output) for n in casts)


def test_a_floor_below_a_norm_is_no_zero_in_f16():
    """x / max(|x|, 1e-12), of a row of zeros."""
    graph = asked("""graph main(x: f32[2,3]) {
      floor: f32[] = const 1e-12
      axes: i64[1] = const [1]
      n = ReduceL2(x, axes)
      m = Clip(n, floor)
      y = Div(x, m)
      return y
    }""")
    narrow_floats(graph)
    x = np.array([[0, 0, 0], [1, 2, 2]], np.float32)
    (y,) = interpret(graph, [x])
    np.testing.assert_allclose(y, [[0, 0, 0], [1 / 3, 2 / 3, 2 / 3]], rtol=1e-3)
    assert wide_ops(graph).keys() == {"n", "m", "y"}
