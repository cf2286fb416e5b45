"""raise_selections: what selects rows moves up past what works on each row by itself."""

import numpy as np
import pytest

from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.passes.raise_selections import raise_selections
from tests.passes.graphs import read_graph, run_graph


def test_one_token_of_a_layer(rewrites):
    rewrites(
        raise_selections,
        """graph main(x: f32[batch,5,8], b: f32[12], g: f32[12]) {
          w: f32[8,12] = const large "mapped w"
          m = MatMul(x, w)
          s = Add(m, b)
          r = Gelu(s)
          n = LayerNormalization(r, g, b)
          last: i64[] = const -1
          y = Gather(n, last) {axis=1}
          z = Neg(y)
          return z
        }""",
        """graph main(x: f32[batch,5,8], b: f32[12], g: f32[12]) {
          x_selected_starts: i64[1] = const [4]
          x_selected_ends: i64[1] = const [5]
          x_selected_axes: i64[1] = const [1]
          x_selected_steps: i64[1] = const [1]
          x_selected = Slice(x, x_selected_starts, x_selected_ends, x_selected_axes, x_selected_steps)
          w: f32[8,12] = const large "mapped w"
          m_selected = MatMul(x_selected, w) @m
          s_selected = Add(m_selected, b) @s
          r_selected = Gelu(s_selected) @r
          n_selected = LayerNormalization(r_selected, g, b) @n
          y_axis: i64[1] = const [1]
          y = Squeeze(n_selected, y_axis)
          z = Neg(y)
          return z
        }""",
        fired=4,
        rtol=1e-5,
    )


def test_the_last_of_an_open_number_of_tokens_and_what_is_added_to_it(rewrites):
    rewrites(
        raise_selections,
        """graph main(x: f32[batch,seq,8], z: f32[batch,seq,8]) {
          w: f32[8,8] = const large "mapped w"
          m = MatMul(x, w)
          s = Add(m, z)
          last: i64[1] = const [-1]
          y = Gather(s, last) {axis=1}
          return y
        }""",
        """graph main(x: f32[batch,seq,8], z: f32[batch,seq,8]) {
          x_selected_at: i64[1] = const [-1]
          x_selected = Gather(x, x_selected_at) {axis=1}
          w: f32[8,8] = const large "mapped w"
          m_selected = MatMul(x_selected, w) @m
          z_selected_at: i64[1] = const [-1]
          z_selected = Gather(z, z_selected_at) {axis=1}
          s_selected = Add(m_selected, z_selected) @s
          return y=s_selected
        }""",
        fired=2,
        rtol=1e-5,
    )


SELECTING = """graph main(x: f32[2,7,8], z: f32[7,8], q: f32[2,7,6,8]) {
  w: f32[8,8] = const large "mapped w"
  starts: i64[1] = const [1]
  ends: i64[1] = const [-2]
  axes: i64[1] = const [-2]
  steps: i64[1] = const [2]
  index: i64[] = const 1
  %s
  return y
}"""


@pytest.mark.parametrize(
    ("text", "fired", "sizes"),
    [
        ("m = MatMul(x, w) a = Add(m, z) y = Slice(a, starts, ends, axes, steps)", 2, [(2, 2, 8), (2, 2, 8)]),
        ("m = MatMul(x, w) y = Slice(m, starts, ends, axes)", 1, [(2, 4, 8)]),
        ("m = MatMul(x, w) a = Add(m, z) y = Gather(a, index) {axis=0}", 2, [(1, 7, 8)]),  # z is repeated along it
        ("m = MatMul(q, w) y = Gather(m, index) {axis=1}", 1, [(2, 1, 6, 8)]),
        ("m = Softmax(q) {axis=2} y = Gather(m, index) {axis=1}", 1, [(2, 1, 6, 8)]),
        ("m = Softmax(q) {axis=1} y = Gather(m, index) {axis=3}", 1, [(2, 7, 6, 1)]),
        ("m = RMSNormalization(q, z6) {axis=2} y = Gather(m, index) {axis=1}", 1, [(2, 1, 6, 8)]),
        ("t = Neg(q) m = MatMul(q, t2) y = Gather(m, index) {axis=0}", 2, [(1, 7, 6, 8), (1, 7, 6, 6)]),
        ("m = MatMul(x, w) a = Gather(m, index) {axis=1} b = Gather(m, index) {axis=1} y = Add(a, b)", 1, [(2, 1, 8), (2, 8)]),
    ],
    ids=["stepped", "no steps", "images", "of four axes", "softmax", "columns", "root", "both factors", "twice"],
)
def test_what_is_computed_is_what_is_selected(text, fired, sizes):
    text = text.replace("z6", "w6").replace("m = RMS", 'w6: f32[6,8] = const large "mapped s" m = RMS')
    text = text.replace("m = MatMul(q, t2)", "t2 = Transpose(t) {perm=[0, 1, 3, 2]} m = MatMul(q, t2)")
    graph = read_graph(SELECTING % text)
    before = run_graph(graph)
    assert raise_selections(graph) + text.count("Transpose") == fired
    verify(graph)
    for got, want in zip(run_graph(graph), before, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    made = [n.output.tensor.shape for n in graph if n.op in ("MatMul", "Add", "Softmax", "RMSNormalization")]
    assert raise_selections(graph) == 0
    assert set(made) <= {*sizes, (7, 8)} and made


@pytest.mark.parametrize(
    "text",
    [
        "m = MatMul(x, w) y = Gather(m, index) {axis=2}",  # columns of a product
        "m = MatMul(q, x2) y = Gather(m, index) {axis=3}",
        "m = Softmax(q) {axis=2} y = Gather(m, index) {axis=2}",
        "m = RMSNormalization(q, w6) {axis=2} y = Gather(m, index) {axis=3}",
        "m = Add(x, z) y = Gather(m, index) {axis=1}",  # nothing is saved but additions
        "m = MatMul(x, w) n = Add(m, x) y = Gather(n, two) {axis=1}",  # several rows
        "m = MatMul(x, w) n = Neg(m) s = Gather(m, index) {axis=1} t = ReduceSum(n) {keepdims=0} y = Add(s, t)",
        "m = MatMul(x, w) s = Gather(m, index) {axis=1} t = Gather(m, other) {axis=1} y = Add(s, t)",
        "m = MatMul(x, w) y = Slice(m, starts, many, axes) n = Neg(m)",  # other rows are read as well
        "m = MatMul(x, w) y = Slice(m, both, far, places)",  # along two axes
        "m = MatMul(x, w) n = CumSum(m, index) y = Gather(n, index) {axis=1}",
        "m = Gather(x, index) {axis=1} y = MatMul(m, w)",
    ],
)
def test_what_stays(leaves, text):
    more = """other: i64[] = const 2 two: i64[2] = const [1, 2] w6: f32[6,8] = const large "mapped s"
      x2: f32[8,7] = const large "mapped x" many: i64[1] = const [4] both: i64[2] = const [0, 0] far: i64[2] = const [1, 1]
      places: i64[2] = const [0, 1]"""
    extra = ", n" if text.endswith("n = Neg(m)") else ""
    leaves(raise_selections, (SELECTING % f"{more} {text}").replace("return y", f"return y{extra}"))


def test_an_output_keeps_all_its_rows(leaves):
    leaves(raise_selections, (SELECTING % "m = MatMul(x, w) y = Gather(m, index) {axis=1}").replace("return y", "return y, m"))


def test_a_residual_stream_is_followed_to_the_attention_behind_it():
    graph = read_graph(
        """graph main(x: f32[batch,5,8]) {
          w: f32[8,8] = const large "mapped w"
          v: f32[8,8] = const large "mapped v"
          g: f32[8] = const large "mapped g"
          q = MatMul(x, w)
          a = Attention(q, q, x) {q_num_heads=2, kv_num_heads=2}
          p = MatMul(a, v)
          h = Add(p, x)
          n = LayerNormalization(h, g)
          f = MatMul(n, w)
          s = Add(f, h)
          o = LayerNormalization(s, g)
          zero: i64[] = const 0
          y = Gather(o, zero) {axis=1}
          return y
        }"""
    )
    (before,) = run_graph(graph)
    optimize(graph)
    (after,) = run_graph(graph)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    rows = {n.op: n.output.tensor.shape[1] for n in graph if n.op in ("FusedMatMul", "LayerNormalization")}
    assert rows == {"FusedMatMul": 1, "LayerNormalization": 1}


ATTENDING = """graph main(q: f32[2,7,8], k: f32[2,7,8], h: f32[2,2,7,4], mask: f32[2,1,7,7], row: f32[7], square: f32[7,7]) {
  %s
  %s
  return y
}"""
LAST = "last: i64[] = const -1 y = Gather(a, last) {axis=1}"
FIRST = "first: i64[] = const 0 y = Gather(a, first) {axis=1}"
SLICED = "s: i64[1] = const [-1] e: i64[1] = const [9] n: i64[1] = const [1] y = Slice(a, s, e, n)"
HEADS = "{q_num_heads=2, kv_num_heads=2}"
CAUSAL = "{q_num_heads=2, kv_num_heads=2, is_causal=1}"


@pytest.mark.parametrize(
    ("attention", "selection"),
    [
        (f"a = Attention(q, k, k) {HEADS}", FIRST),
        (f"a = Attention(q, k, k, mask) {HEADS}", FIRST),
        (f"a = Attention(q, k, k, square) {HEADS}", LAST),
        (f"a = Attention(q, q, q) {CAUSAL}", LAST),
        (f"a = Attention(q, k, k, mask) {CAUSAL}", LAST),
        ("a = Attention(h, h, h) {is_causal=1}", "last: i64[] = const 6 y = Gather(a, last) {axis=2}"),
        (
            f"a = Attention(q, k, k) {CAUSAL}",
            "s: i64[1] = const [-1] e: i64[1] = const [9] n: i64[1] = const [1] y = Slice(a, s, e, n)",
        ),
    ],
)
def test_one_query_sees_what_it_saw(attention: str, selection: str) -> None:
    graph = read_graph(ATTENDING % (attention, selection))
    before = run_graph(graph)
    assert raise_selections(graph) == 1
    verify(graph)
    (node,) = (n for n in graph if n.op == "Attention")
    assert node.output.tensor.shape[-2] == 1 and not node.attrs.get("is_causal", 0)
    for got, want in zip(run_graph(graph), before, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("attention", "selection"),
    [
        (f"a = Attention(q, k, k) {CAUSAL}", FIRST),  # it sees the first key alone
        (f"a = Attention(q, k, k) {CAUSAL[:-1]}, left_window_size=2}}", LAST),
        (f"a = Attention(q, k, k, row) {HEADS}", LAST),
        ("a = Attention(h, h, h)", "at: i64[] = const 0 y = Gather(a, at) {axis=1}"),  # a head
        (f"a, p = Attention(q, k, k) {HEADS} z = Neg(p)", LAST),
        ("long = Concat(k, k) {axis=1} " + f"a = Attention(q, long, long) {CAUSAL}", LAST),  # it sees the first half
    ],
)
def test_queries_that_stay(leaves, attention: str, selection: str) -> None:
    leaves(raise_selections, ATTENDING % (attention, selection))


def test_the_last_of_an_open_number_of_queries() -> None:
    text = ATTENDING.replace("2,7,8", "2,n,8") % (f"a = Attention(q, k, k) {CAUSAL}", LAST)
    graph = read_graph(text)
    assert raise_selections(graph) == 1
    (node,) = (n for n in graph if n.op == "Attention")
    assert node.output.tensor.shape == (2, 1, 8)
