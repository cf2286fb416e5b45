"""choose_widths: which nodes keep f32, by rule, by name, by constant, and by what reads what."""

import numpy as np
import pytest

from miniinfer_cli.ir import DType
from miniinfer_cli.ops import defined
from miniinfer_cli.ops.half_floats import Bearing, bearing_of
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.precision.narrow_floats import narrow_floats
from tests.passes.narrowing import asked, narrowed, wide_ops

# What knows no type of 16 bits: it runs sub-graphs, holds sequences, or has no definition of ours.
UNKNOWN = {
    *("If", "Loop", "Scan", "SequenceMap", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
    *("SequenceLength", "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"),
    *("CastMap", "CategoryMapper", "ZipMap", "FlexAttention", "OnnxReference"),
}


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


def test_every_operation_says_how_it_bears_16_bits():
    unknown = {
        d.name
        for d in defined()
        if bearing_of(d.domain, d.name) is None and d.domain in ("", "miniinfer", "ai.onnx.ml", "ai.onnx.preview")
    }
    assert unknown == UNKNOWN
    assert bearing_of("com.example", "Exp") is None
    assert {b for d in defined() if (b := bearing_of(d.domain, d.name))} == set(Bearing)


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
