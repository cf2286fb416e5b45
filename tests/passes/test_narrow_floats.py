"""narrow_floats: f32 becomes f16 or bf16 where a graph is asked to, but for what rules and names keep, with few Casts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.ir import DType, Graph
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.precision.narrow_floats import narrow_floats
from tests.graph_text import typed_graph
from tests.passes.graphs import read_graph
from tests.passes.narrowing import TOLERANCE, asked, narrowed, wide_ops


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
