"""raise_lookups: what looks up one row of each sequence moves up past what works on each row by itself."""

import numpy as np
import pytest

from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.raise_lookups import raise_lookups
from tests.passes.graphs import read_graph


def test_one_token_of_each_sequence(rewrites):
    rewrites(
        raise_lookups,
        """graph main(x: f32[3,5,8], r: f32[3,5,12], b: f32[12], g: f32[12]) {
          at: i64[3,2] = const [0, 4, 1, 0, 2, -2]
          w: f32[8,12] = const large "mapped w"
          m = MatMul(x, w)
          s = Add(m, b)
          t = Add(s, r)
          n = LayerNormalization(t, g, b) {axis=2}
          y = GatherND(n, at)
          z = Neg(y)
          return z
        }""",
        """graph main(x: f32[3,5,8], r: f32[3,5,12], b: f32[12], g: f32[12]) {
          at: i64[3,2] = const [0, 4, 1, 0, 2, -2]
          x_looked_up = GatherND(x, at)
          w: f32[8,12] = const large "mapped w"
          m_looked_up = MatMul(x_looked_up, w) @m
          s_looked_up = Add(m_looked_up, b) @s
          r_looked_up = GatherND(r, at)
          t_looked_up = Add(s_looked_up, r_looked_up) @t
          n_looked_up = LayerNormalization(t_looked_up, g, b) {axis=-1} @n
          z = Neg(n_looked_up)
          return z
        }""",
        fired=4,
        rtol=1e-5,
    )


LOOKING = """graph main(x: f32[2,7,8], z: f32[7,8], q: f32[2,7,6,8], v: f32[1,8], at: i64[2,2]) {
  w: f32[8,8] = const large "mapped w"
  %s
  return y
}"""


def run_at(graph, at):
    arrays = [np.random.default_rng(1).standard_normal(v.tensor.shape).astype(np.float32) for v in graph.inputs[:-1]]
    return interpret(graph, [*arrays, np.array(at)])


@pytest.mark.parametrize(
    ("text", "fired"),
    [
        ("m = MatMul(x, w) y = GatherND(m, at)", 1),
        ("m = MatMul(x, w) a = Add(m, v) y = GatherND(a, at)", 2),
        ("m = MatMul(q, w) y = GatherND(m, at)", 1),
        ("m = Softmax(q) {axis=2} y = GatherND(m, at)", 1),
        ("n = Neg(q) t = Transpose(n) {perm=[0, 1, 3, 2]} m = MatMul(q, t) y = GatherND(m, at)", 1),
        ("m = MatMul(x, w) a = GatherND(m, at) b = GatherND(m, at) y = Add(a, b)", 1),
        # The places come out of what is multiplied.
        ("i = ArgMax(z) {keepdims=0, axis=1} m = MatMul(x, w) n = Neg(at) c = Neg(n) y = GatherND(m, c)", 1),
    ],
)
def test_what_is_computed_is_what_is_looked_up(text, fired):
    graph = read_graph(LOOKING % text)
    places = ([[0, 3], [1, 6]], [[1, 0], [1, -1]])
    before = [run_at(graph, at) for at in places]
    assert raise_lookups(graph) == fired
    verify(graph)
    for at, wanted in zip(places, before, strict=True):
        for got, want in zip(run_at(graph, at), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert raise_lookups(graph) == 0
    assert all(n.output.tensor.shape[:2] != (2, 7) for n in graph if n.is_op("MatMul", "Add", "Softmax"))


@pytest.mark.parametrize(
    "text",
    [
        "m = MatMul(x, w) a = Add(m, z) y = GatherND(a, at)",  # z has rows, and is repeated
        # Others read all of it.
        "m = MatMul(x, w) n = Neg(m) k = ReduceSum(n) {keepdims=0} p = GatherND(m, at) y = Add(p, k)",
        "m = Softmax(q) {axis=1} y = GatherND(m, at)",
        "m = Add(x, x) y = GatherND(m, at)",  # nothing is saved but additions
        "m = MatMul(x, w) t = Transpose(at) {perm=[1, 0]} y = GatherND(m, t) {batch_dims=1}",
        "m = MatMul(x, w) one: i64[1] = const [1] few = Slice(at, one, two, none) y = GatherND(m, few)",
        "a = Attention(x, x, x) {q_num_heads=2, kv_num_heads=2} y = GatherND(a, at)",
        "m = MatMul(x, w) s = GatherND(m, at) c = Neg(at) t = GatherND(m, c) y = Add(s, t)",  # two rows of each
    ],
)
def test_what_stays(leaves, text):
    text = text.replace("few = Slice", "two: i64[1] = const [2] none: i64[1] = const [0] few = Slice")
    text = text.replace(
        "n = Neg(m) y = GatherND(m, at)", "n = Neg(m) k = ReduceSum(n) {keepdims=0} p = GatherND(m, at) y = Add(p, k)"
    )
    leaves(raise_lookups, LOOKING % text)


def test_an_output_keeps_all_its_rows(leaves):
    leaves(raise_lookups, LOOKING.replace("return y", "return y, m") % "m = MatMul(x, w) y = GatherND(m, at)")
