"""The join "quantized_attention": which attention it takes, and that its bytes are those of the references, within a step."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import Graph, numpy_dtype
from miniinfer_cli.ops.inference import annotate, infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from tests.backends.cuda.performing import perform_program
from tests.graph_text import typed_graph

MERGED = """
graph main(x: f16[2,40,128], m: f32[2,1,1,40]) {
  n: i64[3] = const [64,32,32]
  q, k, v = Split(x, n) {axis=2}
  y = Attention(q, k, v, m) {kv_num_heads=2, q_num_heads=4}
  w = Cast(y) {to=1}
  s: f32[] = const 0.02
  z: i8[] = const 3
  b = QuantizeLinear(w, s, z)
  return b
}
"""
"""Parts of a merged projection, with a mask that all queries share."""
APART = """
graph main(q: f16[1,4,70,64], k: f16[1,2,150,64], v: f16[1,2,150,48]) {
  y = Attention(q, k, v) {is_causal=1}
  w = Cast(y) {to=1}
  s: f32[] = const 0.02
  z: i8[] = const 0
  b = QuantizeLinear(w, s, z)
  return b
}
"""
UNSIGNED = (("z: i8[] = const 3", "z: u8[] = const 128"),)
SCALES = (
    *(("const 0.02", 'const large "mapped s"'), ("s: f32[]", "s: f32[64]")),
    *(("  z: i8[] = const 3\n", ""), (", s, z)", ", s) {axis=2}")),
)
OF_FLOATS = (("z: i8[] = const 3", "z: f8e4m3fn[] = const 0.0"),)


def graph_of(text: str, *exchanged: tuple[str, str]) -> Graph:
    for old, new in exchanged:
        assert old in text
        text = text.replace(old, new)
    graph = typed_graph(text)
    fuse_pointwise(graph)
    annotate(graph)
    return graph


def given_to(graph: Graph) -> list[Any]:
    random = np.random.default_rng(3)
    return [random.standard_normal(v.tensor.shape).astype(numpy_dtype(v.tensor.dtype)) for v in graph.inputs]  # type: ignore[arg-type]


def check(graph: Graph, target: Target | None = None) -> list[str]:
    """The kinds of steps; bytes are those of the references, within a step."""
    given, target = given_to(graph), target or Target()
    program = make_program(graph, [v.type for v in graph.inputs], target)
    for got, want in zip(perform_program(program, given, target), interpret(graph, given), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind == "V":  # about zero a float of 8 bits has steps that are finer than the sums of the kernel
            wide, exact = got.astype(np.float32), want.astype(np.float32)
            np.testing.assert_array_less(np.linalg.norm(wide - exact), 1e-2 * np.linalg.norm(exact))
        else:
            apart = np.abs(got.astype(np.int64) - want.astype(np.int64))
            np.testing.assert_array_less(apart, 2)
            np.testing.assert_array_less(np.mean(apart), 0.05)  # floats of 16 bits lie between, and probabilities are such
    return [s.kind for s in program.steps]


@pytest.mark.parametrize("exchanged", [(), UNSIGNED, OF_FLOATS, (("m: f32[2,1,1,40]", "m: f16[1,4,40,40]"),)])
def test_parts_of_a_projection(exchanged: Any) -> None:
    assert check(graph_of(MERGED, *exchanged)) == ["miniinfer.QuantizedAttention"]


@pytest.mark.parametrize(
    "exchanged",
    [
        (),
        (("f16", "bf16"),),
        (("const 0.02", "const 0.002"),),  # most results lie beyond the last step
        (("[1,2,150,48]", "[1,2,150,128]"),),
    ],
)
def test_heads_apart(exchanged: Any) -> None:
    graph = graph_of(APART, *exchanged)
    assert check(graph) == ["miniinfer.QuantizedAttention"]


@pytest.mark.parametrize("key", ["64x80, 2 ahead in 2 parts", "64x64, 3 ahead in 3 parts", "128x160, 1 ahead", "64x64, 2 ahead"])
def test_other_cuts(key: str) -> None:
    graph = graph_of(APART)
    (name,) = [join.label for join in joins_of(graph, infer_graph(graph, [v.type for v in graph.inputs]), Target())]
    target = Target(policy=Policy(forced={name: f"warpgroups {key}", "y": "quantized_attention"}))
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [(s.kind, s.tactic) for s in program.steps] == [("miniinfer.QuantizedAttention", f"warpgroups {key}")]
    assert check(graph, target) == ["miniinfer.QuantizedAttention"]


def test_keys_of_one_value_give_its_byte() -> None:
    """Results lie between two steps, so that no rounding of probabilities moves a byte."""
    graph = graph_of(APART)
    q, k, v = given_to(graph)
    steps = np.random.default_rng(2).integers(-120, 120, (1, 2, 1, 48)) + 0.2
    given = [q, k, np.broadcast_to(steps * 0.02, v.shape).astype(np.float16)]
    program = make_program(graph, [value.type for value in graph.inputs], Target())
    for got, want in zip(perform_program(program, given, Target()), interpret(graph, given), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("text", "exchanged"),
    [
        (MERGED, (("f16[2", "f32[2"), ("  w = Cast(y) {to=1}\n", ""), ("(w,", "(y,"))),  # no kernel for f32
        (MERGED, (("return b", "return b, y"),)),
        (MERGED, (("return b", "r = Neg(y)\n  return b, r"),)),
        (MERGED, (("return b", "r = Neg(w)\n  return b, r"),)),
        (MERGED, (("(w, s, z)", "(a, s, z)"), ("  s:", "  a = Neg(w)\n  s:"))),
        (MERGED, SCALES),
        (MERGED, (("(q, k, v, m)", "(q, k, k, m)"),)),
        (MERGED, (("x: f16[2", "x: f16[n"),)),
        (APART, (("[1,2,150,48]", "[1,2,150,40]"),)),  # rows of bytes are no whole vectors
        (APART, (("64]", "136]"),)),
    ],
)  # fmt: skip
def test_near_misses(text: str, exchanged: Any) -> None:
    graph = graph_of(text, *exchanged)
    types = infer_graph(graph, [v.type for v in graph.inputs])
    assert joins_of(graph, types, Target()) == []


@pytest.mark.parametrize(
    ("exchanged", "joined"),
    [
        ((), True),
        ((("70,", "8,"),), False),  # 16 rows for each head of keys
        ((("150", "600"),), False),  # another way is the favourite
    ],
)
def test_when_it_is_taken_unasked(exchanged: Any, joined: bool) -> None:
    graph = graph_of(APART, *exchanged)
    program = make_program(graph, [v.type for v in graph.inputs], Target())
    assert ("miniinfer.QuantizedAttention" in [s.kind for s in program.steps]) == joined


def test_other_architectures_do_their_work_apart() -> None:
    assert check(graph_of(APART), Target(arch=80)) == ["Attention", "miniinfer.FusedPointwise"]
