"""recognize_attention: scores, scales and operands as exporters write them become one node; what is like them stays."""

import pytest

from tests.passes.attention_graphs import KT, PROLOGUE, QKV, recognized

# -- Scales ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "scale"),
    [
        ("s = MatMul(q, kt)", 1.0),
        ("c: f32[] = const 0.5 m = MatMul(q, kt) s = Mul(m, c)", 0.5),
        ("c: f32[1] = const [0.5] m = MatMul(q, kt) s = Mul(c, m)", 0.5),
        ("c: f32[] = const 4.0 m = MatMul(q, kt) s = Div(m, c)", 0.25),
        ("c: f32[] = const 0.5 a = Mul(q, c) s = MatMul(a, kt)", 0.5),
        ("c: f32[] = const 0.5 a = Mul(q, c) b = Mul(kt, c) s = MatMul(a, b)", 0.25),
        ("c: f32[] = const 2.0 a = Div(q, c) m = MatMul(a, kt) n = Mul(m, c) s = Mul(n, c)", 2.0),
    ],
)
def test_scales_wherever_they_stand(rewrites, scores, scale):
    rewrites(
        recognized,
        f"graph main({QKV}) {{ {KT} {scores} p = Softmax(s) y = MatMul(p, v) return y }}",
        f"graph main({QKV}) {{ y = Attention(q, k, v) {{scale={scale}}} return y }}",
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "scores",
    [
        "c: f32[] = const -0.5 m = MatMul(q, kt) s = Mul(m, c)",  # Attention takes the root of its scale
        "c: f32[] = const 0.0 m = MatMul(q, kt) s = Mul(m, c)",
        "c: f32[] = const 0.0 m = MatMul(q, kt) s = Div(m, c)",
        "c: f32[] = const inf m = MatMul(q, kt) s = Mul(m, c)",
        "c: f32[] = const 1e-30 a = Mul(q, c) m = MatMul(a, kt) s = Mul(m, c)",  # f32 cannot say the product
        "c: f32[4] = const [1.0, 2.0, 3.0, 4.0] a = Mul(q, c) n = Neg(kt) m = MatMul(a, n) s = Relu(m)",
        "c: f32[] = const 2.0 m = MatMul(q, kt) s = Div(c, m)",
        "c: f32[] = const 2.0 m = MatMul(q, kt) s = Pow(m, c)",
        "m = MatMul(q, kt) s = Mul(m, m)",
        "c: f32[2,1,1,1] = const fill 0.5 m = MatMul(one, kt1) s = Mul(m, c)",  # twice the batch
    ],
)
def test_what_is_no_scale_stays(leaves, scores):
    start = f"graph main({QKV}, one: f32[1,2,seq,4], k1: f32[1,2,w,4]) {{ {KT} kt1 = Transpose(k1) {{perm=[0, 1, 3, 2]}}"
    leaves(recognized, f"{start} {scores} p = Softmax(s) y = MatMul(p, v) return y, kt, kt1 }}")


def test_a_softcap(rewrites):
    rewrites(
        recognized,
        f"""graph main({QKV}, m: f32[batch,1,seq,w]) {{ {KT}
          c: f32[] = const 0.5
          cap: f32[] = const 8.0
          a = MatMul(q, kt) b = Mul(a, c) d = Div(b, cap) e = Tanh(d) f = Mul(e, cap) s = Add(f, m)
          p = Softmax(s) y = MatMul(p, v) return y }}""",
        f"""graph main({QKV}, m: f32[batch,1,seq,w]) {{
          y = Attention(q, k, v, m) {{nan_rows="keep", scale=0.5, softcap=8.0}} return y }}""",
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "scores",
    [
        "b = Mul(a, c) e = Tanh(b) n = Neg(c) s = Mul(e, n)",  # a negative cap
        "t = Tanh(a) u = Mul(t, c) e = Tanh(u) s = Mul(e, c)",  # capped twice
        "b = Add(a, m) e = Tanh(b) s = Mul(e, c)",  # the mask is capped too
    ],
)
def test_what_is_no_softcap_stays(leaves, scores):
    start = f"graph main({QKV}, m: f32[batch,1,seq,w]) {{ {KT} c: f32[] = const 0.5 a = MatMul(q, kt)"
    leaves(recognized, f"{start} {scores} p = Softmax(s) y = MatMul(p, v) return y, m }}")


# -- Operands ----------------------------------------------------------------------------------------------------------


def test_keys_swapped_by_way_of_three_axes_are_read_before_the_swap(rewrites):
    start = "graph main(q: f32[batch,2,seq,4], k: f32[batch,2,seq,4], v: f32[batch,2,seq,4]) {"
    rewrites(
        recognized,
        f"""{start}
          three: i64[3] = const [-1, 5, 4]
          m = Reshape(k, three)
          t = Transpose(m) {{perm=[0, 2, 1]}}
          n = Shape(k) {{start=0, end=2}}
          five: i64[2] = const [4, 5]
          four = Concat(n, five) {{axis=0}}
          kt = Reshape(t, four)
          s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y }}""".replace("seq", "5"),
        f"""{start}
          three: i64[3] = const [-1, 5, 4]
          m = Reshape(k, three)
          kt_swapped_shape: i64[4] = const [-1, 2, 5, 4]
          kt_swapped = Reshape(m, kt_swapped_shape)
          y = Attention(q, kt_swapped, v) {{scale=1.0}} return y }}""".replace("seq", "5"),
        rtol=1e-6,
    )


def test_symbolic_lengths_keep_the_order_of_keys_swapped_that_way(rewrites):
    start = "graph main(q: f32[batch,h,seq,4], k: f32[batch,h,seq,4], v: f32[batch,h,seq,4]) {"
    rewrites(
        recognized,
        f"""{start}
          n = Shape(k)
          lead = Shape(k) {{start=0, end=2}}
          tail = Shape(k) {{start=2, end=4}}
          minus: i64[1] = const [-1]
          three = Concat(minus, tail) {{axis=0}}
          m = Reshape(k, three)
          t = Transpose(m) {{perm=[0, 2, 1]}}
          order: i64[4] = const [0, 1, 3, 2]
          four = Gather(n, order)
          kt = Reshape(t, four)
          s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y }}""",
        f"""{start}
          n = Shape(k)
          tail = Shape(k) {{start=2, end=4}}
          minus: i64[1] = const [-1]
          three = Concat(minus, tail) {{axis=0}}
          m = Reshape(k, three)
          t = Transpose(m) {{perm=[0, 2, 1]}}
          order: i64[4] = const [0, 1, 3, 2]
          four = Gather(n, order)
          kt = Reshape(t, four)
          swapped_shape = Shape(kt)
          order_1: i64[4] = const [0, 1, 3, 2]
          keys_shape = Gather(swapped_shape, order_1)
          kt_swapped = Reshape(m, keys_shape)
          y = Attention(q, kt_swapped, v) {{scale=1.0}} return y }}""",
        rtol=1e-6,
    )


def test_keys_split_into_heads_and_swapped_at_once(rewrites):
    inputs = "q: f32[batch,2,seq,4], k: f32[batch,w,2,4], v: f32[batch,2,w,3]"
    swap = "kt = Transpose(k) {perm=[0, 2, 3, 1]}"
    rewrites(
        recognized,
        f"graph main({inputs}) {{ {swap} s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y }}",
        f"""graph main({inputs}) {{ k_swapped = Transpose(k) {{perm=[0, 2, 1, 3]}}
          y = Attention(q, k_swapped, v) {{scale=1.0}} return y }}""",
        rtol=1e-6,
    )


def test_keys_that_come_swapped_are_swapped(rewrites):
    inputs = "q: f32[batch,2,seq,4], kt: f32[batch,2,4,w], v: f32[batch,2,w,3]"
    after = "kt_swapped = Transpose(kt) {perm=[0, 1, 3, 2]} y = Attention(q, kt_swapped, v) {scale=1.0}"
    rewrites(
        recognized,
        f"graph main({inputs}) {{ s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y }}",
        f"graph main({inputs}) {{ {after} return y }}",
        rtol=1e-6,
    )


def test_heads_merged_with_the_batch_count_as_heads_of_one(rewrites):
    start = "graph main(q: f32[batch,seq,4], k: f32[batch,w,4], v: f32[batch,w,3], m: f32[batch,1,w], n: f32[seq,w]) {"
    rewrites(
        recognized,
        f"""{start} kt = Transpose(k) {{perm=[0, 2, 1]}}
          a = MatMul(q, kt) b = Add(a, m) s = Add(b, n) p = Softmax(s) y = MatMul(p, v) return y }}""",
        f"""{start}
          mask = Add(m, n)
          axes: i64[1] = const [0]
          q_1 = Unsqueeze(q, axes)
          k_1 = Unsqueeze(k, axes)
          v_1 = Unsqueeze(v, axes)
          mask_1 = Unsqueeze(mask, axes)
          y_1 = Attention(q_1, k_1, v_1, mask_1) {{nan_rows="keep", scale=1.0}}
          y = Squeeze(y_1, axes) return y }}""",
        rtol=1e-6,
    )


def test_one_head_of_keys_and_values_for_all_queries(rewrites):
    inputs = "q: f32[batch,2,seq,4], k: f32[batch,1,w,4], v: f32[batch,1,w,3]"
    rewrites(
        recognized,
        f"graph main({inputs}) {{ {KT} s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y }}",
        f"graph main({inputs}) {{ y = Attention(q, k, v) {{scale=1.0}} return y }}",
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "inputs",
    [
        "q: f32[batch,2,seq,4], k: f32[1,2,w,4], v: f32[batch,2,w,3]",  # the keys are repeated over the batch
        "q: f32[1,2,seq,4], k: f32[batch,2,w,4], v: f32[batch,2,w,3]",
        "q: f32[batch,2,seq,4], k: f32[batch,2,w,4], v: f32[1,2,w,3]",
        "q: f32[batch,1,seq,4], k: f32[batch,2,w,4], v: f32[batch,2,w,3]",  # one head of queries for all keys
        "q: f32[batch,2,seq,4], k: f32[batch,1,w,4], v: f32[batch,2,w,3]",
        "q: f32[batch,2,seq,4], k: f32[batch,2,w,4], v: f32[batch,1,w,3]",
        "q: f32[batch,2,seq,4], k: f32[batch,2,w,4], v: f32[w,3]",
        "q: f32[seq,4], k: f32[1,1,w,4], v: f32[1,1,w,3]",
        "q: f64[batch,2,seq,4], k: f64[batch,2,w,4], v: f64[2,batch,2,w,3]",
    ],
)
def test_operands_that_are_repeated_stay(leaves, inputs):
    leaves(recognized, f"graph main({inputs}) {{ {KT} s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y, kt }}")


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("s = MatMul(q, kt) p = Softmax(s) {axis=2} y = MatMul(p, v)", "y"),
        ("s = MatMul(q, kt) p = Softmax(s) {axis=-2} y = MatMul(p, v)", "y"),
        ("s = MatMul(q, kt) p = LogSoftmax(s) y = MatMul(p, v)", "y"),
        ("s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v)", "y, p"),  # the weights are asked for
        ("s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) z = Relu(p)", "y, z"),
        ("s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v)", "y, s"),
        ("s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) z = Relu(s)", "y, z"),
        ("m = MatMul(q, kt) s = Add(m, m) p = Softmax(s) y = MatMul(p, v)", "y"),
        ("s = MatMul(q, kt) p = Softmax(s) y = MatMul(u, p)", "y"),  # the probabilities stand on the right
        ("s = MatMul(q, kt) p = Softmax(s) y = Mul(p, p)", "y"),
        ("a = MatMul(q, kt) s = Relu(a) p = Softmax(s) y = MatMul(p, v)", "y"),
        ("s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, p)", "y"),
        ("s = Mul(x, x) p = Softmax(s) y = MatMul(p, v)", "y"),
        ("p = Softmax(x) y = MatMul(p, v)", "y"),
        ("s = MatMul(q, kt) a = Softmax(s) t: bool[] = const false r: f32[] = const 0.5 p, w1 = Dropout(a, r, t)"
         " y = MatMul(p, v) z = Cast(w1) {to=1}", "y, z"),
    ],
)  # fmt: skip
def test_what_lies_between_or_is_read_elsewhere_stays(leaves, body, outputs):
    inputs = f"{QKV}, x: f32[batch,2,seq,w], u: f32[batch,2,seq,seq]".replace("w", "seq")
    leaves(recognized, f"graph main({inputs}) {{ {KT} {body} return {outputs}, kt, x, u }}")


# -- Guards --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guard",
    [
        "i = IsNaN(p0) p = Where(i, one, p0)",  # ones
        "i = IsNaN(p0) p = Where(i, p0, zero)",  # the other way round
        "i = IsNaN(p0) five: f32[1,1,1,1,1] = const [0.0] p = Where(i, five, p0)",  # one more axis
        "i = IsNaN(s) p = Where(i, zero, p0)",
        "i = IsInf(p0) p = Where(i, zero, p0)",
        "i = IsNaN(p0) n = Not(i) p = Where(n, zero, p0)",
        "i = IsNaN(p0) p = Where(i, zero, p0) r = Relu(p0)",  # the weights are read by someone else, too
    ],
)
def test_what_is_no_guard_stays(leaves, guard):
    head = f"graph main({QKV}) {{ {PROLOGUE} one: f32[] = const 1.0 p0 = Softmax(s) {guard} y = MatMul(p, v)"
    leaves(recognized, f"{head} {'z = Relu(r)' if 'r =' in guard else 'z = Relu(zero)'} return y, z, inf, low, billion }}")


# -- Windows -----------------------------------------------------------------------------------------------------------

_WINDOWS = "q: f32[batch,3,2,6,4], k: f32[batch,3,2,7,4], v: f32[batch,3,2,7,5]"
_SCORES = """kt = Transpose(k) {perm=[0, 1, 2, 4, 3]} s = MatMul(q, kt)"""


def test_axes_in_front_of_heads_are_merged_with_the_batch(rewrites):
    rewrites(
        recognized,
        f"""graph main({_WINDOWS}, m: f32[1,2,6,7]) {{ {_SCORES}
          a = Add(s, m) p = Softmax(a) y = MatMul(p, v) return y }}""",
        f"""graph main({_WINDOWS}, m: f32[1,2,6,7]) {{
          q_merged_shape: i64[4] = const [-1, 2, 6, 4]
          q_merged = Reshape(q, q_merged_shape)
          k_merged_shape: i64[4] = const [-1, 2, 7, 4]
          k_merged = Reshape(k, k_merged_shape)
          v_merged_shape: i64[4] = const [-1, 2, 7, 5]
          v_merged = Reshape(v, v_merged_shape)
          y_1 = Attention(q_merged, k_merged, v_merged, m) {{nan_rows="keep", scale=1.0}}
          y_shape: i64[5] = const [-1, 3, 2, 6, 5]
          y = Reshape(y_1, y_shape)
          return y }}""",
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("mask", "why"), [("f32[batch,3,1,6,7]", "each image has its own"), ("f32[3,1,6,7]", "each window has its own")]
)
def test_masks_that_tell_windows_apart_stay(leaves, mask, why):
    text = f"graph main({_WINDOWS}, m: {mask}) {{ {_SCORES} a = Add(s, m) p = Softmax(a) y = MatMul(p, v) return y, kt }}"
    leaves(recognized, text)


def test_keys_that_are_scaled_before_they_are_swapped(rewrites):
    rewrites(
        recognized,
        f"""graph main({QKV}) {{ c: f32[] = const 0.5 b = Mul(k, c) kt = Transpose(b) {{perm=[0, 1, 3, 2]}}
          s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y }}""",
        f"graph main({QKV}) {{ y = Attention(q, k, v) {{scale=0.5}} return y }}",
        rtol=1e-6,
    )


_SHIFTED = """graph main(q5: f32[batch,3,2,5,4], k5: f32[batch,3,2,6,4], v5: f32[batch,3,2,6,7], bias: f32[2,5,6], m: f32[MASK]) {
  qs: i64[4] = const [-1, 2, 5, 4]
  ks: i64[4] = const [-1, 2, 6, 4]
  vs: i64[4] = const [-1, 2, 6, 7]
  q = Reshape(q5, qs)
  k = Reshape(k5, ks)
  v = Reshape(v5, vs)
  kt = Transpose(k) {perm=[0, 1, 3, 2]}
  s = MatMul(q, kt)
  a = Add(s, bias)
  apart: i64[5] = const [APART]
  b = Reshape(a, apart)
  c = Add(b, m)
  together: i64[4] = const [-1, 2, 5, 6]
  d = Reshape(c, together)
  p = Softmax(d)
  y = MatMul(p, v)
  return y
}"""


def test_a_mask_of_each_window_between_two_views(rewrites):
    text = _SHIFTED.replace("MASK", "3,1,5,6").replace("APART", "-1, 3, 2, 5, 6")
    attention = """mask_shape: i64[5] = const [1, 1, 2, 5, 6]
  mask = Reshape(bias, mask_shape)
  mask_shape_1: i64[5] = const [1, 3, 1, 5, 6]
  mask_1 = Reshape(m, mask_shape_1)
  mask_2 = Add(mask, mask_1)
  windows = Shape(c) {end=1, start=0}
  one: i64[1] = const [3]
  one_1: i64[1] = const [2]
  ones: i64[2] = const [1, 1]
  mask_shape_2 = Concat(windows, one, one_1, ones) {axis=0}
  mask_3 = Expand(mask_2, mask_shape_2)
  mask_shape_3: i64[4] = const [-1, 2, 5, 6]
  mask_4 = Reshape(mask_3, mask_shape_3)
  y = Attention(q, k, v, mask_4) {nan_rows="keep", scale=1.0}"""
    together = text[text.index("  together") : text.index("  return")]
    rewrites(recognized, text, text.replace(together, f"  {attention}\n"), rtol=1e-6)


def test_a_view_that_cuts_rows_or_mixes_heads_with_windows_stays(leaves):
    leaves(recognized, _SHIFTED.replace("MASK", "1,1,6,5").replace("APART", "-1, 3, 2, 6, 5"))
    leaves(recognized, _SHIFTED.replace("MASK", "1,1,5,6").replace("APART", "2, 3, -1, 5, 6"))
