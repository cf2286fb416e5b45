"""CPU programs against the interpreter: the same graph, the same numbers, whatever runs through routines and arenas."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.cpu.routine import Weights
from miniinfer_cli.ir import Constant, DType, TensorType, constant, numpy_dtype
from miniinfer_cli.ir.constants import MappedConstant, Transposed
from miniinfer_cli.ir.dims import evaluate
from miniinfer_cli.ops.interpreter import interpret
from tests.graph_text import typed_graph

TOLERANCE = {np.dtype("float64"): 1e-12, np.dtype("float32"): 1e-6, np.dtype("float16"): 2e-3}

GRAPHS = {
    "pointwise chain with broadcast operands": """
graph main(x: f32[b,40,500], y: f32[500], z: f32[b,1,1]) {
  r = miniinfer.FusedPointwise(x, y, z)
    body: graph FusedPointwise(x: f32[b,40,500], y: f32[500], z: f32[b,1,1]) {
      s = Add(x, y)
      t = Gelu(s)
      u = Mul(t, z)
      v = Sub(u, x)
      return v
    }
  return r
}""",
    "pointwise region with two outputs of different shapes": """
graph main(x: f32[b,300], y: f32[b,1]) {
  p, q = miniinfer.FusedPointwise(x, y)
    body: graph FusedPointwise(x: f32[b,300], y: f32[b,1]) {
      half: f32[] = const 0.5
      s = Mul(y, half)
      t = Exp(s)
      u = Add(x, t)
      return u, t
    }
  r = Add(p, q)
  return r, q
}""",
    "an input overwritten must not be read later": """
graph main(x: f32[b,300]) {
  y = Relu(x)
  z = Exp(y)
  w = Add(z, y)
  v = Mul(w, z)
  return v, y
}""",
    "comparisons, logic and selection": """
graph main(x: f32[b,70], y: f32[b,70]) {
  c = Greater(x, y)
  d = Not(c)
  e = Or(c, d)
  f = And(c, e)
  g = Where(f, x, y)
  h: f32[b,70] = Cast(f) {to=1}
  i = Mul(g, h)
  return i, f
}""",
    "numbers without axes": """
graph main(x: f32[], y: f32[1,1]) {
  r, t = miniinfer.FusedPointwise(x, y)
    body: graph FusedPointwise(x: f32[], y: f32[1,1]) {
      s = Exp(x)
      t = Mul(s, y)
      return s, t
    }
  c: bool[] = Cast(r) {to=9}
  return c, t
}""",
    "every activation": """
graph main(x: f32[b,333]) {
  a = Relu(x)
  b_ = LeakyRelu(x) {alpha=0.2}
  c = Sigmoid(x)
  d = HardSigmoid(x)
  e = HardSwish(x)
  f = Swish(x) {alpha=1.5}
  g = Gelu(x)
  h = Gelu(x) {approximate="tanh"}
  low: f32[] = const -0.25
  i = Clip(x, low)
  j = Tanh(x)
  k = Erf(x)
  two: f32[] = const 2.0
  l = Pow(x, two)
  m = Mean(a, b_, c, d)
  n = Max(x, e, f)
  return g, h, i, j, k, l, m, n
}""",
    "matrix products with an epilogue": """
graph main(x: f32[b,7,32], w: f32[32,48], bias: f32[48], r: f32[b,7,48]) {
  y = miniinfer.FusedMatMul(x, w, bias, r)
    body: graph FusedMatMul(x: f32[b,7,32], w: f32[32,48], bias: f32[48], r: f32[b,7,48]) {
      p = MatMul(x, w)
      q = Add(p, bias)
      s = Add(q, r)
      t = Relu(s)
      return t
    }
  z = MatMul(y, w2)
  return z, y
}""".replace("  y = mini", "  w2: f32[48,3] = const fill 0.25\n  y = mini"),
    "gemm with transposes and scales": """
graph main(x: f32[32,b], w: f32[48,32], c: f32[48]) {
  y = Gemm(x, w, c) {alpha=0.5, beta=2.0, transA=1, transB=1}
  return y
}""",
    "half floats are computed wide and rounded where they leave": """
graph main(x: f16[b,64], w: f16[64,16], bias: f16[16]) {
  y = miniinfer.FusedMatMul(x, w, bias)
    body: graph FusedMatMul(x: f16[b,64], w: f16[64,16], bias: f16[16]) {
      p = MatMul(x, w)
      q = Add(p, bias)
      t = Sigmoid(q)
      return t
    }
  z = Softmax(y)
  return z, y
}""",
    "channels-last convolution with residual": """
graph main(x: f32[b,9,8,6], w: f32[5,3,3,6], bias: f32[5], r: f32[b,9,8,5]) {
  y = miniinfer.FusedConv(x, w, bias, r)
    body: graph FusedConv(x: f32[b,9,8,6], w: f32[5,3,3,6], bias: f32[5], r: f32[b,9,8,5]) {
      p = miniinfer.ConvNHWC(x, w, bias) {pads=[1,1,1,1]}
      q = Add(p, r)
      t = HardSwish(q)
      return t
    }
  m = miniinfer.MaxPoolNHWC(y) {kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]}
  n = miniinfer.AveragePoolNHWC(m) {kernel_shape=[2,2]}
  return n, y
}""",
    "views, copies and joins": """
graph main(x: f32[b,6,8]) {
  shape: i64[3] = const [0, 8, 6]
  y = Reshape(x, shape)
  t = Transpose(y) {perm=[0, 2, 1]}
  c = Concat(x, t, x) {axis=1}
  s = Softmax(c) {axis=-1}
  e = Exp(y)
  return s, e
}""",
    "sizes that depend on data": """
graph main(x: f32[b,6]) {
  n = NonZero(x)
  m: f32[2,k] = Cast(n) {to=1}
  r = Relu(m)
  y = Abs(x)
  return r, y
}""",
}  # fmt: skip


def random_array(kind: Any, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    assert isinstance(kind, TensorType)
    shape = [evaluate(d, sizes) for d in kind.shape or ()]
    return rng.standard_normal(shape).astype(numpy_dtype(kind.dtype))


def assert_same(got: Any, expected: Any) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.dtype in TOLERANCE:
        wide = expected.astype(np.float64)
        assert np.linalg.norm(got.astype(np.float64) - wide) <= TOLERANCE[got.dtype] * (np.linalg.norm(wide) + 1e-30)
    else:
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_program_gives_the_interpreters_numbers_at_two_batch_sizes(name):
    graph, rng = typed_graph(GRAPHS[name]), np.random.default_rng(1)
    model = CpuModel(graph)
    context = model.make_context()
    for batch in (2, 5, 2):
        inputs = [random_array(v.type, {"b": batch}, rng) for v in graph.inputs]
        kept = [a.copy() for a in inputs]
        program = model.make_program([TensorType(v.tensor.dtype, a.shape) for v, a in zip(graph.inputs, inputs, strict=True)])
        got = context.execute(program, inputs)
        for g, e in zip(got, interpret(graph, kept), strict=True):
            assert_same(g, e)
        assert all(np.array_equal(a, k) for a, k in zip(inputs, kept, strict=True)), "an input was changed"


def test_the_arena_holds_the_peak_and_not_the_sum():
    steps = "\n".join(f"  y{i + 1} = Exp(y{i})" for i in range(20))
    graph = typed_graph(f"graph main(y0: f32[1000]) {{\n{steps}\n  return y20\n}}")
    program = CpuModel(graph).make_program([TensorType(DType.F32, (1000,))])
    assert program.activation_nbytes == 20 * 4096
    assert program.arena_nbytes == 4096  # each step overwrites the value that dies in it


def test_outputs_do_not_change_when_the_context_runs_again():
    graph = typed_graph(
        "graph main(x: f32[4]) {\n  y = Exp(x)\n  s: i64[2] = const [2, 2]\n  z = Reshape(y, s)\n  return z, x\n}"
    )
    model = CpuModel(graph)
    program, context = model.make_program([TensorType(DType.F32, (4,))]), model.make_context()
    first = context.execute(program, [np.zeros(4, np.float32)])
    x = np.ones(4, np.float32)
    second = context.execute(program, [x])
    x[:] = 7
    assert np.array_equal(first[0], np.ones((2, 2), np.float32))
    assert np.array_equal(second[1], np.ones(4, np.float32))


def test_hot_operations_run_by_routines_not_by_references():
    graph = typed_graph(GRAPHS["channels-last convolution with residual"])
    kinds = [TensorType(v.tensor.dtype, tuple(evaluate(d, {"b": 1}) for d in v.tensor.shape or ())) for v in graph.inputs]
    tactics = [s.tactic for s in CpuModel(graph).make_program(kinds).steps]
    assert tactics == ["conv as gemm + 2", "shifted maxima", "shifted sums"]


def test_values_known_from_shapes_cost_no_step():
    graph = typed_graph(
        "graph main(x: f32[b,3]) {\n  s = Shape(x)\n  z: f32[b,3] = Expand(x, s)\n  n = Size(x)\n  return z, n\n}"
    )
    program = CpuModel(graph).make_program([TensorType(DType.F32, (4, 3))])
    assert [s.kind for s in program.steps] == ["Expand"]
    outputs = CpuModel(graph).make_context().execute(program, [np.ones((4, 3), np.float32)])
    assert outputs[1] == 12


@pytest.mark.parametrize("shape", [(), (3,), (300, 2), (2, 3, 4), (257, 300)])
@pytest.mark.parametrize("form", ["at an odd byte", "transposed"])
def test_weights_lie_as_numpy_has_them(shape: tuple[int, ...], form: str) -> None:
    """Whatever lies elsewhere in a file: what is read again and again is aligned, and in rows."""
    wanted = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    handle: Constant
    if form == "transposed":
        handle = Transposed(DType.F32, shape[::-1], constant(wanted), tuple(range(len(shape)))[::-1])
        wanted = wanted.transpose()
    else:
        handle = MappedConstant(DType.F32, shape, memoryview(b"\0" + wanted.tobytes())[1:])
        assert not handle.array().flags.aligned
    found = Weights().array(handle)
    assert found.flags.aligned
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, wanted)
