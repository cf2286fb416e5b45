"""recognize_causal_masks: the causal part becomes an attribute, what has no effect goes, and the numbers stay the same."""

import numpy as np
import pytest

from miniinfer_cli.ir import Graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.recognize_causal_masks import recognize_causal_masks
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from tests.passes.graphs import read_graph

# Queries and keys of one length; m and a are masks for padding, and a whole matrix.
INPUTS = """q: f32[batch,2,seq,4], k: f32[batch,2,seq,4], v: f32[batch,2,seq,3],
  m: bool[batch,1,1,seq], a: f32[batch,1,1,seq], b: bool[batch,1,seq,seq], l: f32[seq,seq]"""
SEES = """
  s = Shape(q) {start=2, end=3}
  n = Squeeze(s)
  zero: i64[] = const 0
  i1: i64[] = const 1
  last: i64[1] = const [-1]
  up = Range(zero, n, i1)
  column = Unsqueeze(up, last)
  sees = LessOrEqual(up, column)
"""
START = f"""{SEES}
  first: i64[1] = const [0]
  lead: i64[2] = const [0, 1]
  hides = Less(column, up)
  f0: f32[] = const 0.0
  inf: f32[] = const -inf
  low: f32[] = const -3.4e38
"""
FILLS = "fill: f32[] = const 0.0 fill_1: f32[] = const -3.4e38"


def simplified(graph: Graph) -> int:
    """The pass, and what it leaves cleaned up."""
    fired = recognize_causal_masks(graph)
    remove_dead_nodes(graph)
    return fired


def text(body: str, attention: str, inputs: str = INPUTS) -> str:
    return f"graph main({inputs}) {{ {body} y = Attention({attention}}} return y }}"


@pytest.mark.parametrize(
    ("mask", "made", "rest"),
    [
        ("z = Identity(sees)", "", ""),
        ("z = Unsqueeze(sees, lead)", "", ""),
        ("z = Not(hides)", "", ""),
        ("z = Where(sees, f0, inf)", "", ""),
        ("z = Where(hides, inf, f0)", "", ""),
        ("z = Where(sees, f0, low)", "", ""),  # each query sees key 0, so that any number will do
        ("x = Where(hides, low, f0) z = Unsqueeze(x, lead)", "", ""),
        ("z = And(sees, m)", "", ", m"),
        ("z = And(m, sees)", "", ", m"),
        ("x = And(m, sees) z = And(b, x)", "visible = And(b, m)", ", visible"),
        ("x = Or(hides, b) z = Not(x)", "visible = Not(b)", ", visible"),
        ("x = And(sees, m) z = Where(x, f0, inf)", "", ", m"),
        ("x = Not(m) w = Or(hides, x) z = Where(w, inf, f0)", "", ", m"),
        ("z = Where(sees, a, inf)", "", ", a"),
        ("x = And(sees, m) z = Where(x, a, inf)", "never: f32[] = const -inf mask = Where(m, a, never)", ", mask"),
        ("x = Where(sees, f0, inf) z = Add(x, a)", "", ", a"),
        ("x = Where(hides, inf, f0) w = Add(a, x) z = Add(w, l)", "mask = Add(a, l)", ", mask"),
        ("x = Where(sees, f0, inf) w = Where(m, f0, inf) z = Add(x, w)", "", ", m"),
    ],
)
def test_the_causal_part_becomes_an_attribute(rewrites, mask, made, rest):
    before = text(f"{START} {mask}", "q, k, v, z) {scale=0.5")
    rewrites(simplified, before, text(made, f"q, k, v{rest}) {{is_causal=1, scale=0.5"), rtol=1e-6)


def test_queries_and_keys_of_different_lengths_and_heads_in_the_last_axis(rewrites):
    inputs = "q: f32[batch,seq,8], k: f32[batch,h,8], v: f32[batch,h,8]"
    start = """zero: i64[] = const 0 i1: i64[] = const 1 last: i64[1] = const [-1]
      s = Shape(q) {start=1, end=2} n = Squeeze(s) t = Shape(k) {start=1, end=2} l = Squeeze(t)
      queries = Range(zero, n, i1) keys = Range(zero, l, i1) column = Unsqueeze(queries, last) z = LessOrEqual(keys, column)"""
    heads = "kv_num_heads=2, q_num_heads=2"
    before = text(start, f"q, k, v, z) {{{heads}", inputs)
    rewrites(simplified, before, text("", f"q, k, v) {{is_causal=1, {heads}", inputs), rtol=1e-6)


def test_a_node_that_is_causal_already_needs_no_causal_mask(rewrites):
    before = text(f"{START} z = And(sees, m)", "q, k, v, z) {is_causal=1")
    rewrites(simplified, before, text("", "q, k, v, m) {is_causal=1"), rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "made", "rest"),
    [
        ("z = Where(m, f0, inf)", "", ", m"),
        ("z = Where(m, inf, f0)", "visible = Not(m)", ", visible"),
        ("z = Where(sees, inf, f0)", f"{SEES} visible = Not(sees)", ", visible"),
        ("x = Where(m, f0, inf) z = Cast(x) {to=10}", "", ", m"),
        ("w: i64[3] = const [0, 1, -1] x = Where(m, f0, inf) z = Reshape(x, w)",
         "w: i64[3] = const [0, 1, -1] visible = Reshape(m, w)", ", visible"),
        ("x = GreaterOrEqual(column, zero) z = And(x, m)", "", ", m"),
        ("x = GreaterOrEqual(column, zero) w = And(x, m) z = Where(w, f0, inf)", "", ", m"),
        ("x = GreaterOrEqual(column, zero) w = And(x, m) z = Where(w, f0, low)",
         f"{FILLS} z_1 = Where(m, fill, fill_1)", ", z_1"),
        ("x = GreaterOrEqual(column, zero) w = And(sees, m) u = And(x, w) z = Where(u, f0, low)",
         f"{SEES} visible = And(sees, m) {FILLS} z_1 = Where(visible, fill, fill_1)",
         ", z_1"),
        ("z = GreaterOrEqual(up, zero)", "", ""),
        ("x = GreaterOrEqual(up, zero) z = Where(x, f0, low)", "", ""),
        ("w = Shape(b) z = Expand(m, w)", "", ", m"),
        ("w = Shape(b) z = Expand(a, w)", "", ", a"),
        ("w = Shape(b) x = Expand(m, w) z = Where(x, f0, low)",
         f"{FILLS} z_1 = Where(m, fill, fill_1)", ", z_1"),
        ("t = Shape(l) x = Expand(f0, t) z = Add(a, x)", "", ", a"),
    ],
)  # fmt: skip
def test_what_has_no_effect_goes(rewrites, mask, made, rest):
    before = text(f"{START} {mask}", "q, k, v, z) {scale=0.5")
    rewrites(simplified, before, text(made, f"q, k, v{rest}) {{scale=0.5"), rtol=1e-6)


@pytest.mark.parametrize(
    "mask",
    [
        "z = Identity(m)",
        "z = Identity(b)",
        "z = And(b, m)",
        "z = Or(sees, b)",
        "x = And(hides, b) z = Not(x)",
        "z = GreaterOrEqual(up, column)",  # the keys from its own place on
        "z = Less(up, column)",  # without its own place
        "x = Add(column, i1) z = LessOrEqual(up, x)",  # one more
        "x: i64[] = const 2 w = Sub(column, x) z = GreaterOrEqual(up, w)",  # a window
        "z = Where(sees, low, f0)",  # the branches the other way round
        "z = Where(hides, f0, low)",
        "x: f32[] = const -10000.0 z = Where(sees, f0, x)",  # a score may make up for it
        "x: f32[] = const 1.0 z = Where(sees, x, inf)",
        "x = And(sees, m) z = Where(x, f0, low)",  # a query may see no key, and weighs all alike then
        "x = Where(sees, f0, low) z = Add(x, a)",
        "z = Where(sees, a, low)",
        "z = Where(m, f0, low)",
        "x = Where(m, f0, inf) z = Add(x, a)",
        "z = Where(m, a, inf)",
        "z = Where(b, l, a)",
        "x: i64[1] = const [1] z = Slice(b, first, x, last)",  # a mask of one column forbids the other keys
        "z = GreaterOrEqual(column, zero)",
        "x = Where(m, f0, inf) z = Cast(x) {to=7}",
        "x: i64[1] = const [1] t = Slice(b, first, x, last) u = Shape(b) z = Expand(t, u)",  # needs the repetition
        "w: i64[3] = const [0, 1, -1] z = Reshape(a, w)",
        "z = Mul(f0, f0)",
    ],
)
def test_other_masks_stay(leaves, mask):
    outputs = "y, sees, hides, f0, inf, low, lead, first"
    leaves(simplified, f"graph main({INPUTS}) {{ {START} {mask} y = Attention(q, k, v, z) return {outputs} }}")


@pytest.mark.parametrize(
    "node",
    [
        "y = Attention(q, k, v, sees, k, v)",  # the positions of the queries start after the past
        "y = Attention(q, k, v, sees, -, -, lengths)",  # they hang on a length per batch entry
        "y, k2, v2, w = Attention(q, k, v, sees) {qk_matmul_output_mode=2}",  # the masked scores are returned
    ],
)
def test_attention_that_does_more_stays(leaves, node):
    inputs = INPUTS.replace("v: f32[batch,2,seq,3]", "v: f32[batch,2,seq,4]") + ", lengths: i64[batch]"
    leaves(simplified, f"graph main({inputs}) {{ {START} {node} return y, hides, f0, inf, low, lead, first }}")


@pytest.mark.parametrize(
    "mask",
    [
        "z = And(sees, m)",
        "x = And(sees, m) z = Where(x, f0, inf)",
        "x = And(sees, m) z = Where(x, f0, low)",
        "x = Where(sees, f0, low) w = Where(m, f0, low) z = Add(x, w)",
        "x = GreaterOrEqual(column, zero) w = And(x, m) z = Where(w, f0, low)",
    ],
)
def test_queries_of_a_batch_padded_on_the_left_get_the_same_numbers(mask):
    graph = read_graph(f"graph main({INPUTS}) {{ {START} {mask} y = Attention(q, k, v, z) return y }}")
    rng = np.random.default_rng(0)
    q, k, v = (3 * rng.standard_normal((2, 2, 4, size)).astype(np.float32) for size in (4, 4, 3))
    m = np.array([[False, False, True, True], [True, True, True, False]])[:, None, None]
    rest = [np.zeros((2, 1, 1, 4), np.float32), np.ones((2, 1, 4, 4), bool), np.zeros((4, 4), np.float32)]
    (before,) = interpret(graph, [q, k, v, m, *rest])
    simplified(graph)
    (after,) = interpret(graph, [q, k, v, m, *rest])
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-7)
