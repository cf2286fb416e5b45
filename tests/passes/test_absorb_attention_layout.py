"""absorb_attention_layout: repeated heads, merged batches and split heads go into the node; what only looks like them stays."""

import pytest

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.absorb_attention_layout import absorb_attention_layout
from miniinfer_cli.passes.cancel_reshapes import cancel_reshapes
from miniinfer_cli.passes.compose_movements import compose_movements
from miniinfer_cli.passes.fold_constants import fold_constants
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes


def absorbed(graph: Graph) -> int:
    """The pass, and what it leaves cleaned up as the pipeline does."""
    fired = absorb_attention_layout(graph)
    for clean in (remove_dead_nodes, fold_constants, cancel_reshapes, compose_movements, remove_dead_nodes):
        clean(graph)
    return fired


# -- Repeated heads ----------------------------------------------------------------------------------------------------

GROUPED = "q: f32[batch,4,seq,8], k: f32[batch,2,w,8], v: f32[batch,2,w,6], m: f32[seq,w]"
REPEAT = """
  two: i64[1] = const [2]
  many: i64[5] = const [1, 1, 2, 1, 1]
  kt: i64[4] = const [0, 4, -1, 8]
  vt: i64[4] = const [0, 4, -1, 6]
  k1 = Unsqueeze(k, two)
  v1 = Unsqueeze(v, two)
  k2 = Expand(k1, many)
  v2 = Expand(v1, many)
  k3 = Reshape(k2, kt)
  v3 = Reshape(v2, vt)
"""


@pytest.mark.parametrize(
    "repeat", [REPEAT, REPEAT.replace("Expand(", "Tile("), REPEAT.replace("Unsqueeze(k, two)", "Reshape(k, k5)")]
)
def test_repeated_heads_of_keys_and_values(rewrites, repeat):
    five = "k5: i64[5] = const [0, 2, 1, -1, 8]" if "k5" in repeat else ""
    rewrites(
        absorbed,
        f"graph main({GROUPED}) {{ {five} {repeat} y = Attention(q, k3, v3, m) {{scale=0.5}} return y }}",
        f"graph main({GROUPED}) {{ y = Attention(q, k, v, m) {{scale=0.5}} return y }}",
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("repeat", "node"),
    [
        (REPEAT, "y = Attention(q, k3, v0)"),  # the values are not repeated
        (REPEAT, "y = Attention(q, k0, v3)"),
        (REPEAT, "y = Attention(q, k3, v3, m, k0, v0)"),  # the past has all heads
        (REPEAT, "y, a, b, p = Attention(q, k3, v3)"),  # and so have the present ones
        # Head by head, not each one several times: a query would get the wrong one.
        (REPEAT.replace("const [2]", "const [1]").replace("[1, 1, 2, 1, 1]", "[1, 2, 1, 1, 1]"), "y = Attention(q, k3, v3)"),
        (REPEAT.replace("const [0, 4, -1, 8]", "const [0, 4, 6, 8]").replace("[1, 1, 2, 1, 1]", "[1, 2, 1, 1, 1]")
         .replace("two: i64[1] = const [2]", "two: i64[1] = const [1]"), "y = Attention(q, k3, v3)"),
    ],
)  # fmt: skip
def test_what_is_no_repetition_of_heads_stays(leaves, repeat, node):
    inputs = GROUPED.replace("w", "6").replace("q: f32[batch,4,seq,8]", "q: f32[batch,4,seq,8], k0: f32[batch,4,6,8]")
    inputs = f"{inputs}, v0: f32[batch,4,6,6]"
    leaves(absorb_attention_layout, f"graph main({inputs}) {{ {repeat} {node} return y }}")


# -- Heads merged with the batch ---------------------------------------------------------------------------------------

MERGED = "q: f32[batch,2,seq,4], k: f32[batch,2,w,4], v: f32[batch,2,w,4]"
MERGE = """
  qt: i64[4] = const [1, -1, 0, 4]
  qm = Reshape(q, qt)
  km = Reshape(k, qt)
  vm = Reshape(v, qt)
"""


@pytest.mark.parametrize(
    ("inputs", "made", "masked", "mask"),
    [
        ("", "", "", ""),
        (", m: f32[seq,w]", "", ", m", ", m"),
        (", m: f32[1,1,1,w]", "", ", m", ", m"),
        (", b: bool[batch,2,1,w]", "mt: i64[4] = const [1, -1, 1, 0] m = Reshape(b, mt)".replace("0]", "4]"), ", m", ", b"),
    ],
)
def test_heads_merged_with_the_batch_are_taken_apart(rewrites, inputs, made, masked, mask):
    start = f"graph main({MERGED}{inputs}) {{".replace("w", "4")
    rewrites(
        absorbed,
        f"{start} {MERGE} {made} y = Attention(qm, km, vm{masked}) {{is_causal=1, scale=0.5}} z = Relu(y) return z }}",
        f"""{start} y_apart = Attention(q, k, v{mask}) {{is_causal=1, scale=0.5}}
          y_shape: i64[4] = const [1, -1, 0, 4] y = Reshape(y_apart, y_shape) z = Relu(y) return z }}""",
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("inputs", "node"),
    [
        ("m: f32[1,8,seq,4]", "y = Attention(qm, km, vm, m)"),  # a mask of its own for each batch entry and head
        ("k0: f32[1,8,4,4]", "y = Attention(qm, k0, vm)"),  # keys that are merged to begin with
        ("k0: f32[2,4,4,4]", "kt: i64[4] = const [1, 8, 4, 4] k1 = Reshape(k0, kt) y = Attention(qm, k1, vm)"),
        ("k0: f32[4,8,4,1]", "kt: i64[4] = const [1, 8, 4, 4] k1 = Reshape(k0, kt) y = Attention(qm, k1, vm)"),
        ("k0: f32[1,8,4,4]", "kt: i64[4] = const [1, 8, 4, 4] k1 = Flatten(k0) k2 = Reshape(k1, kt) y = Attention(k2, k2, k2)"),
    ],
)
def test_heads_that_are_not_merged_alike_stay(leaves, inputs, node):
    start = f"graph main({MERGED}, {inputs}) {{".replace("w", "4").replace("batch", "4")
    leaves(absorb_attention_layout, f"{start} {MERGE} {node} z = Relu(y) return z, qm, km, vm }}")


# -- Heads split off by a Transpose ------------------------------------------------------------------------------------

ROWS = "q: f32[batch,seq,8], k: f32[batch,w,4], v: f32[batch,w,6]"
SPLIT = """
  q4: i64[4] = const [0, 0, 4, 2]
  k4: i64[4] = const [0, 0, 2, 2]
  v4: i64[4] = const [0, 0, 2, 3]
  qs = Reshape(q, q4)
  ks = Reshape(k, k4)
  vs = Reshape(v, v4)
  qh = Transpose(qs) {perm=[0, 2, 1, 3]}
  kh = Transpose(ks) {perm=[0, 2, 1, 3]}
  vh = Transpose(vs) {perm=[0, 2, 1, 3]}
"""
JOIN = "t = Transpose(y) {perm=[0, 2, 1, 3]} r: i64[3] = const [0, 0, -1] z = Reshape(t, r)"
HEADS = "kv_num_heads=2, q_num_heads=4"


@pytest.mark.parametrize("mask", ["", ", m: bool[seq,w]"])
def test_split_heads_are_read_where_they_lie(rewrites, mask):
    operand = ", m" if mask else ""
    rewrites(
        absorbed,
        f"graph main({ROWS}{mask}) {{ {SPLIT} y = Attention(qh, kh, vh{operand}) {{scale=0.5}} {JOIN} return z }}",
        f"""graph main({ROWS}{mask}) {{ y_rows = Attention(q, k, v{operand}) {{{HEADS}, scale=0.5}}
          return z=y_rows }}""",
        rtol=1e-6,
    )


def test_one_head_of_keys_needs_no_transpose(rewrites):
    inputs = ROWS.replace("k: f32[batch,w,4]", "k: f32[batch,w,2]").replace("v: f32[batch,w,6]", "v: f32[batch,w,3]")
    one = SPLIT.replace("ks = Reshape(k, k4)", "one: i64[1] = const [1]").replace("vs = Reshape(v, v4)", "")
    one = one.replace("kh = Transpose(ks) {perm=[0, 2, 1, 3]}", "kh = Unsqueeze(k, one)")
    one = one.replace("vh = Transpose(vs) {perm=[0, 2, 1, 3]}", "vh = Unsqueeze(v, one)")
    rewrites(
        absorbed,
        f"graph main({inputs}) {{ {one} y = Attention(qh, kh, vh) {{scale=0.5}} {JOIN} return z }}",
        f"graph main({inputs}) {{ y_rows = Attention(q, k, v) {{kv_num_heads=1, q_num_heads=4, scale=0.5}} return z=y_rows }}",
        rtol=1e-6,
    )


def test_rows_that_lie_length_first_cost_a_smaller_transpose(rewrites):
    inputs = ROWS.replace("k: f32[batch,w,4], v: f32[batch,w,6]", "k: f32[w,batch,4], v: f32[w,batch,6]")
    split = SPLIT.replace("kh = Transpose(ks) {perm=[0, 2, 1, 3]}", "kh = Transpose(ks) {perm=[1, 2, 0, 3]}")
    split = split.replace("vh = Transpose(vs) {perm=[0, 2, 1, 3]}", "vh = Transpose(vs) {perm=[1, 2, 0, 3]}")
    rewrites(
        absorbed,
        f"graph main({inputs}) {{ {split} y = Attention(qh, kh, vh) {JOIN} return z }}",
        f"""graph main({inputs}) {{ k_rows = Transpose(k) {{perm=[1, 0, 2]}} v_rows = Transpose(v) {{perm=[1, 0, 2]}}
          y_rows = Attention(q, k_rows, v_rows) {{{HEADS}}} return z=y_rows }}""",
        rtol=1e-6,
    )


def test_a_rotary_embedding_in_between_works_on_rows_too(rewrites):
    inputs = f"{ROWS}, c: f32[batch,seq,1], s: f32[batch,seq,1], c0: f32[batch,w,1], s0: f32[batch,w,1]"
    rewrites(
        absorbed,
        f"""graph main({inputs}) {{ {SPLIT} qr = RotaryEmbedding(qh, c, s) kr = RotaryEmbedding(kh, c0, s0)
          y = Attention(qr, kr, vh) {JOIN} return z }}""",
        f"""graph main({inputs}) {{
          qr_rows = RotaryEmbedding(q, c, s) {{num_heads=4}} kr_rows = RotaryEmbedding(k, c0, s0) {{num_heads=2}}
          y_rows = Attention(qr_rows, kr_rows, v) {{{HEADS}}} return z=y_rows }}""",
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "body",
    [
        f"{SPLIT} y = Attention(qh, kh, vh) {JOIN} w1 = Relu(y)",  # the result is read as it is, too
        f"{SPLIT} y = Attention(qh, kh, vh) {JOIN.replace('[0, 2, 1, 3]', '[2, 0, 1, 3]')}",
        f"{SPLIT} y = Attention(qh, kh, vh) z = Relu(y)",
        # Keys and values whose heads lie in front would have to be transposed.
        f"{SPLIT} kt: i64[4] = const [5, 2, 5, 2] kf = Reshape(k, kt) vt: i64[4] = const [5, 2, 5, 3] vf = Reshape(v, vt)"
        f" y = Attention(qh, kf, vf) {JOIN}",
        f"{SPLIT} y = Attention(qx, kh, vh) {JOIN}",  # queries with their heads in front to begin with
        f"{SPLIT} y, a, b, p = Attention(qh, kh, vh) {JOIN}",
        f"{SPLIT} y = Attention(qh, kh, vh, -, kh, vh) {JOIN}",
        f"{SPLIT} kr = RotaryEmbedding(kh, c, c) w1 = Relu(kr) y = Attention(qh, kr, vh) {JOIN}",  # read by a cache
    ],
)
def test_heads_that_cannot_be_merged_stay(leaves, body):
    inputs = f"{ROWS.replace('w', 'seq')}, qx: f32[batch,4,seq,2], c: f32[batch,seq,1]"
    inputs = inputs.replace("batch", "5").replace("seq", "5")
    leaves(absorb_attention_layout, f"graph main({inputs}) {{ {body} {'' if 'w1' in body else 'w1 = Relu(z)'} return z, w1 }}")


def test_heads_whose_number_is_not_known_stay(leaves):
    inputs = "q: f32[batch,seq,h,2], k: f32[batch,w,h,2], v: f32[batch,w,h,3]"
    body = "qh = Transpose(q) {perm=[0, 2, 1, 3]} kh = Transpose(k) {perm=[0, 2, 1, 3]} vh = Transpose(v) {perm=[0, 2, 1, 3]}"
    leaves(absorb_attention_layout, f"graph main({inputs}) {{ {body} y = Attention(qh, kh, vh) {JOIN} return z }}")
