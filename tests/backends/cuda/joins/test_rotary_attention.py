"""The join "rotary_attention": which rotations it takes, and that it gives the same results on the emulated device."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import Graph, TensorType, numpy_dtype
from miniinfer_cli.ops.inference import infer_graph
from tests.backends.cuda.harness import checked_kinds
from tests.graph_text import typed_graph

TURNED = """
graph main(x: f16[2,20,96], c: f16[30,8], s: f16[30,8], i: i64[2,20]) {
  n: i64[3] = const [64,16,16]
  q, k, v = Split(x, n) {axis=2}
  qt = RotaryEmbedding(q, c, s, i) {num_heads=4}
  kt = RotaryEmbedding(k, c, s, i) {num_heads=1}
  y = Attention(qt, kt, v) {is_causal=1, kv_num_heads=1, q_num_heads=4}
  return y
}
"""
APART = """
graph main(q: f16[2,4,20,24], k: f16[2,2,20,24], v: f16[2,2,20,24], c: f32[2,20,4], s: f32[2,20,4], m: bool[1,1,20,20]) {
  qt = RotaryEmbedding(q, c, s) {interleaved=1, rotary_embedding_dim=8}
  kt = RotaryEmbedding(k, c, s) {interleaved=1, rotary_embedding_dim=8}
  y = Attention(qt, kt, v, m)
  return y
}
"""


def graph_of(text: str, *exchanged: tuple[str, str]) -> Graph:
    for old, new in exchanged:
        assert old in text
        text = text.replace(old, new)
    return typed_graph(text)


def found(graph: Graph, target: Target | None = None) -> list[str]:
    types = infer_graph(graph, [v.type for v in graph.inputs])
    return [join.label for join in joins_of(graph, types, target or Target())]


def drawn(kind: TensorType, rng: np.random.Generator) -> Any:
    if kind.dtype.is_integer:
        return rng.integers(-30, 30, kind.shape)  # type: ignore[arg-type]
    x = rng.standard_normal(kind.shape)  # type: ignore[arg-type]
    return x > -1 if kind.dtype.value == "bool" else x.astype(numpy_dtype(kind.dtype))


def check(graph: Graph) -> list[str]:
    """The kinds of steps, joined, with the results of the references."""
    first = next(n.name for n in graph if n.op == "RotaryEmbedding")
    target = Target(policy=Policy(forced={first: "rotary_attention"}))
    rng = np.random.default_rng(1)
    given = [drawn(v.tensor, rng) for v in graph.inputs]
    return checked_kinds(graph, given, target, 3e-3)


@pytest.mark.parametrize(
    "exchanged",
    [
        (),
        (("c: f16", "c: f32"), ("s: f16", "s: f32")),
        (("  qt = RotaryEmbedding(q, c, s, i) {num_heads=4}\n", ""), ("(qt,", "(q,")),
        (("  kt = RotaryEmbedding(k, c, s, i) {num_heads=1}\n", ""), (" kt,", " k,")),
    ],
)
def test_parts_of_a_projection(exchanged: Any) -> None:
    assert check(graph_of(TURNED, *exchanged)) == ["miniinfer.RotaryAttention"]


@pytest.mark.parametrize(
    "exchanged", [(), (("[2,20,4]", "[2,20,8]"), ("interleaved=1, rotary_embedding_dim=8", "rotary_embedding_dim=16"))]
)
def test_heads_apart(exchanged: Any) -> None:
    assert check(graph_of(APART, *exchanged)) == ["miniinfer.RotaryAttention"]


def test_what_others_read_is_turned_by_itself() -> None:
    kinds = check(graph_of(TURNED, ("return y", "return y, kt")))
    assert kinds[-2:] == ["RotaryEmbedding", "miniinfer.RotaryAttention"]


@pytest.mark.parametrize(
    ("text", "exchanged"),
    [
        (TURNED, (("f16", "f32"),)),
        (TURNED, (("return y", "return y, qt, kt"),)),
        (TURNED, (("return y", "z = Neg(qt)\n  w = Neg(kt)\n  return y, z, w"),)),
        (TURNED, (("x: f16[2", "x: f16[n"),)),
        (APART, (("[2,20,4]", "[2,20,2]"), ("_dim=8", "_dim=4"))),
        (APART, (("kt = RotaryEmbedding(k, c, s) {interleaved=1, ", "kt = RotaryEmbedding(k, c, s) {"),)),
        (APART, (("[2,2,20,24]", "[2,2,20,136]"), ("[2,4,20,24]", "[2,4,20,136]"))),
    ],
)
def test_near_misses(text: str, exchanged: Any) -> None:
    assert found(graph_of(text, *exchanged)) == []


@pytest.mark.parametrize(
    ("exchanged", "multiprocessors", "joined"),
    [
        ((), 132, True),
        ((), 8, True),
        ((), 1, False),  # several tiles for one multiprocessor
        ((("[2,20", "[2,200"),), 132, False),
        ((("  kt = RotaryEmbedding(k, c, s, i) {num_heads=1}\n", ""), (" kt,", " k,")), 132, False),
    ],
)
def test_when_it_is_taken_unasked(exchanged: Any, multiprocessors: int, joined: bool) -> None:
    graph = graph_of(TURNED, *exchanged)
    program = make_program(graph, [v.type for v in graph.inputs], Target(multiprocessors=multiprocessors))
    assert ("miniinfer.RotaryAttention" in [s.kind for s in program.steps]) == joined


def test_other_architectures_do_their_work_apart() -> None:
    graph = graph_of(TURNED)
    program = make_program(graph, [v.type for v in graph.inputs], Target(arch=80))
    assert [s.kind for s in program.steps][-1] == "Attention"
