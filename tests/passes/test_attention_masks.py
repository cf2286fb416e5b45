"""Masks of recognised attention: put together exactly, for queries without any key too, and for every type."""

import numpy as np
import pytest

from miniinfer_cli.ops.interpreter import interpret
from tests.passes.attention_graphs import GUARDED, KT, MASKS, PROLOGUE, QKV, recognized
from tests.passes.graphs import read_graph

# What stands for a number that is not low enough for others to be lost in it.
LOWEST = "f32[] = const -3.4028234663852886e38"

MASKED = [
    ("t = Add(s, m)", "", "m"),
    ("t = Add(m, s)", "", "m"),
    ("a = Add(s, m) t = Add(a, m2)", "mask = Add(m, m2)", "mask"),
    ("t = Where(c, s, inf)", "", "c"),
    ("t = Where(c, inf, s)", "visible = Not(c)", "visible"),
    ("a = Where(c, s, inf) t = Where(d, inf, a)", "visible = Not(d) visible_1 = And(c, visible)", "visible_1"),
    ("t = Where(c, s, low)", "always: f32[] = const 0.0 never: f32[] = const -3.4e38 mask = Where(c, always, never)", "mask"),
    ("t = Where(c, low, s)", "never: f32[] = const -3.4e38 always: f32[] = const 0.0 mask = Where(c, never, always)", "mask"),
    ("t = Where(c, s, billion)", f"always: f32[] = const 0.0 never: {LOWEST} mask = Where(c, always, never)", "mask"),
    ("a = Add(s, m2) t = Where(c, a, low)", "never: f32[] = const -3.4e38 mask = Where(c, m2, never)", "mask"),
    ("a = Add(s, m2) t = Where(c, a, inf)", "never: f32[] = const -inf mask = Where(c, m2, never)", "mask"),
    (
        "a = Where(d, s, low) t = Add(a, m)",
        "always: f32[] = const 0.0 never: f32[] = const -3.4e38 mask = Where(d, always, never) mask_1 = Add(mask, m)",
        "mask_1",
    ),
    (
        "a = Where(d, s, billion) t = Where(c, a, billion)",
        f"""always: f32[] = const 0.0 never: {LOWEST} mask = Where(d, always, never)
          never_1: {LOWEST} mask_1 = Where(c, mask, never_1)""",
        "mask_1",
    ),
    (
        "a = Where(d, s, billion) t = Where(c, a, inf)",
        f"""always: f32[] = const 0.0 never: {LOWEST} mask = Where(d, always, never)
          never_1: f32[] = const -inf mask_1 = Where(c, mask, never_1)""",
        "mask_1",
    ),
]


@pytest.mark.parametrize(("masked", "made", "mask"), MASKED)
def test_masks_are_put_together(rewrites, masked, made, mask):
    start = f"graph main({QKV}, {MASKS}) {{"
    rewrites(
        recognized,
        f"{start} {PROLOGUE} {masked} {GUARDED} return y }}",
        f'{start} {made} y = Attention(q, k, v, {mask}) {{nan_rows="zero", scale=1.0}} return y }}',
        rtol=1e-6,
    )


@pytest.mark.parametrize("masked", [case[0] for case in MASKED])
def test_a_query_that_sees_no_key_gets_the_same_numbers(masked):
    outputs, recognised = run_both(f"graph main({QKV}, {MASKS}) {{ {PROLOGUE} {masked} {GUARDED} return y }}")
    np.testing.assert_allclose(recognised, outputs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("masked", [case[0] for case in MASKED])
def test_without_a_guard_what_was_no_number_is_none(masked):
    plain = "p = Softmax(t) y = MatMul(p, v)"
    outputs, recognised = run_both(f"graph main({QKV}, {MASKS}) {{ {PROLOGUE} {masked} {plain} return y }}")
    np.testing.assert_allclose(recognised, outputs, rtol=1e-6, atol=1e-7)


def run_both(text: str) -> tuple[np.ndarray, np.ndarray]:
    """What the graph computes before and after, where batch entry 0 sees no key and query 1 none by the other masks."""
    graph = read_graph(text)
    rng = np.random.default_rng(0)
    inputs = [3 * rng.standard_normal((2, 2, n, size)).astype(np.float32) for n, size in ((3, 4), (5, 4), (5, 3))]
    m, m2 = np.zeros((2, 1, 1, 5), np.float32), np.zeros((3, 5), np.float32)
    c, d = np.ones((2, 1, 1, 5), bool), np.ones((1, 1, 3, 5), bool)
    m[0], m2[1], c[0], d[0, 0, 1] = np.finfo(np.float32).min, np.finfo(np.float32).min, False, False
    m[1, 0, 0, 3:], m2[2, 1:3], c[1, 0, 0, :2], d[0, 0, 0, 4] = np.finfo(np.float32).min, 1.5, False, False
    with np.errstate(all="ignore"):
        (before,) = interpret(graph, [*inputs, m, m2, c, d])
        assert recognized(graph) == 1
        (after,) = interpret(graph, [*inputs, m, m2, c, d])
    return before, after


@pytest.mark.parametrize(
    "masked",
    [
        "a = Add(s, m) t = Mul(a, half)",  # the mask is scaled
        "a = Where(c, s, low) t = Div(a, half)",
        "t = Mul(s, m)",
        "t = Sub(m, s)",
        "f: f32[] = const -10000.0 t = Where(c, s, f)",  # a score may be as low
        "f: f32[] = const inf t = Where(c, s, f)",
        "f: f32[] = const nan t = Where(c, s, f)",
        "t = Where(c, s, m)",
        "t = Where(c, low, billion)",  # no scores at all
        "a = Where(c, s, billion) t = Add(a, m)",  # tells those that are forbidden from each other
        "a = Add(s, m) t = Where(c, a, billion)",
        "a = Where(d, s, billion) t = Where(c, a, low)",
        "t = Min(s, m)",
        "t = Sum(s, m, m2)",
    ],
)
def test_what_is_no_mask_stays(leaves, masked):
    head = f"graph main({QKV}, {MASKS}) {{ {PROLOGUE} half: f32[] = const 0.5"
    leaves(recognized, f"{head} {masked} p = Softmax(t) y = MatMul(p, v) return y, m, m2, c, d, s }}")


@pytest.mark.parametrize("masked", ["t = Add(s, m)", "t = Where(c, s, inf)", "t = Where(c, inf, s)"])
def test_a_mask_that_repeats_the_scores_stays(leaves, masked):
    inputs = "q: f32[1,2,3,4], k: f32[1,2,w,4], v: f32[1,2,w,3], m: f32[batch,1,1,w], c: bool[batch,1,1,w]"
    leaves(recognized, f"graph main({inputs}) {{ {PROLOGUE} {masked} p = Softmax(t) y = MatMul(p, v) return y, s, m, c, zero }}")


def test_a_mask_of_another_length_is_repeated(rewrites):
    # Attention would take a mask of one column to forbid all keys but the first.
    inputs = f"{QKV}, m: f32[batch,1,seq,1], c: bool[seq,1]"
    rewrites(
        recognized,
        f"graph main({inputs}) {{ {PROLOGUE} a = Add(s, m) t = Where(c, a, low) {GUARDED} return y }}",
        f"""graph main({inputs}) {{
          never: f32[] = const -3.4e38
          mask = Where(c, m, never)
          ones: i64[3] = const [1, 1, 1]
          keys = Shape(kt) {{start=3, end=4}}
          mask_shape = Concat(ones, keys) {{axis=0}}
          mask_1 = Expand(mask, mask_shape)
          y = Attention(q, k, v, mask_1) {{nan_rows="zero", scale=1.0}} return y }}""".replace("never:", f"{KT} never:"),
        rtol=1e-6,
    )


def test_a_short_mask_gets_the_axes_that_attention_asks_for(rewrites):
    inputs = f"{QKV.replace('w', '3')}, m: f32[3], one: f32[]"
    rewrites(
        recognized,
        f"graph main({inputs}) {{ {PROLOGUE} a = Add(s, m) t = Add(one, a) {GUARDED} return y }}",
        f"""graph main({inputs}) {{
          mask = Add(m, one)
          axes: i64[1] = const [0]
          mask_1 = Unsqueeze(mask, axes)
          y = Attention(q, k, v, mask_1) {{nan_rows="zero", scale=1.0}} return y }}""",
        rtol=1e-6,
    )


def half_text(dtype: str, body: str, returned: str = "y") -> str:
    inputs = QKV.replace("f32", dtype) + f", m: {dtype}[batch,1,1,w], wide: f32[batch,1,1,w], c: bool[batch,1,1,w]"
    return f"graph main({inputs}) {{ {body} return {returned} }}"


@pytest.mark.parametrize(("dtype", "code", "rtol"), [("f16", 10, 2e-3), ("bf16", 16, 2e-2)])
def test_half_floats_with_a_softmax_in_f32(rewrites, dtype, code, rtol):
    body = f"""{KT} half: {dtype}[] = const 0.5 s = MatMul(q, kt) n = Mul(s, half) t = Add(n, m) f = Cast(t) {{to=1}}
      p0 = Softmax(f) p = Cast(p0) {{to={code}}} y = MatMul(p, v)"""
    after = 'y = Attention(q, k, v, m) {nan_rows="keep", scale=0.5, softmax_precision=1}'
    rewrites(recognized, half_text(dtype, body), half_text(dtype, after), rtol=rtol)


def test_probabilities_that_stay_wide_weigh_values_that_are(rewrites):
    body = (
        f"""{KT} s = MatMul(q, kt) f = Cast(s) {{to=1}} t = Add(f, wide) p = Softmax(t) u = Cast(v) {{to=1}} y = MatMul(p, u)"""
    )
    after = """u = Cast(v) {to=1} q_wide = Cast(q) {to=1} k_wide = Cast(k) {to=1}
      y = Attention(q_wide, k_wide, u, wide) {nan_rows="keep", scale=1.0}"""
    rewrites(recognized, half_text("f16", body), half_text("f16", after), rtol=2e-3)


def test_masks_in_f32_of_scores_in_f16_stay_wide(rewrites):
    body = f"""{KT} low: f32[] = const -3.4e38 s = MatMul(q, kt) a = Cast(s) {{to=1}} b = Add(a, wide) t = Where(c, b, low)
      p0 = Softmax(t) p = Cast(p0) {{to=10}} y = MatMul(p, v)"""
    after = """never: f32[] = const -3.4e38 mask = Where(c, wide, never)
      y = Attention(q, k, v, mask) {nan_rows="keep", scale=1.0, softmax_precision=1}"""
    rewrites(recognized, half_text("f16", body), half_text("f16", after), rtol=2e-3)
    mixed = body.replace("s = MatMul(q, kt)", "r = MatMul(q, kt) s = Add(r, m)")
    after = """m_1 = Cast(m) {to=1} mask = Add(m_1, wide) never: f32[] = const -3.4e38 mask_1 = Where(c, mask, never)
      y = Attention(q, k, v, mask_1) {nan_rows="keep", scale=1.0, softmax_precision=1}"""
    rewrites(recognized, half_text("f16", mixed), half_text("f16", after), rtol=2e-3)


def test_f16_scores_that_are_replaced_need_a_number_that_f16_does_not_have(rewrites):
    body = f"""{KT} low: f16[] = const -65504.0 s = MatMul(q, kt) t = Where(c, s, low) p = Softmax(t) y = MatMul(p, v)"""
    after = f"""always: f32[] = const 0.0 never: {LOWEST} mask = Where(c, always, never)
      y = Attention(q, k, v, mask) {{nan_rows="keep", scale=1.0}}"""
    rewrites(recognized, half_text("f16", body), half_text("f16", after), rtol=2e-3)
    body = body.replace("f16[] = const -65504.0", "bf16[] = const -3.3e38")
    after = """always: bf16[] = const 0.0 never: bf16[] = const -3.3e38 mask = Where(c, always, never)
      y = Attention(q, k, v, mask) {nan_rows="keep", scale=1.0}"""
    rewrites(recognized, half_text("bf16", body), half_text("bf16", after), rtol=2e-2)


def test_f16_queries_without_keys_weigh_all_alike():
    body = f"""{KT} low: f16[] = const -65504.0 s = MatMul(q, kt) t = Where(c, s, low) p = Softmax(t) y = MatMul(p, v)"""
    graph = read_graph(half_text("f16", body))
    rng = np.random.default_rng(0)
    q, k, v = (4 * rng.standard_normal((2, 2, n, size)).astype(np.float16) for n, size in ((3, 4), (5, 4), (5, 3)))
    inputs = [q, k, v, np.zeros((2, 1, 1, 5), np.float16), np.zeros((2, 1, 1, 5), np.float32), np.zeros((2, 1, 1, 5), bool)]
    (before,) = interpret(graph, inputs)
    assert recognized(graph) == 1
    (after,) = interpret(graph, inputs)
    np.testing.assert_allclose(after, before, atol=2e-3)
    np.testing.assert_allclose(after, np.broadcast_to(v.mean(axis=2, keepdims=True), after.shape), atol=2e-3)


@pytest.mark.parametrize(
    "body",
    [
        "s = MatMul(q, kt) t = Cast(s) {to=1} u = Cast(t) {to=10} p = Softmax(u)",  # narrowed again
        "s = MatMul(q, kt) t = Cast(s) {to=16} p0 = Softmax(t) p = Cast(p0) {to=10}",  # another half
        "s = MatMul(q, kt) t = Cast(s) {to=7} u = Cast(t) {to=1} p0 = Softmax(u) p = Cast(p0) {to=10}",  # rounded
        "s = MatMul(q, kt) p0 = Softmax(s) p1 = Cast(p0) {to=7} p = Cast(p1) {to=10}",
        "low: f16[] = const -60000.0 s = MatMul(q, kt) a = Add(s, m) t = Where(c, a, low) p = Softmax(t)",
        "low: f16[] = const -10000.0 s = MatMul(q, kt) t = Where(c, s, low) p = Softmax(t)",
    ],
)
def test_other_types_between_stay(leaves, body):
    leaves(recognized, half_text("f16", f"{KT} {body} y = MatMul(p, v)"))


def test_integers_stay(leaves):
    inputs = QKV.replace("f32", "i32")
    body = f"{KT} s = MatMul(q, kt) t = Cast(s) {{to=1}} p0 = Softmax(t) p = Cast(p0) {{to=6}} y = MatMul(p, v)"
    leaves(recognized, f"graph main({inputs}) {{ {body} return y }}")


def test_double_precision(rewrites):
    inputs = QKV.replace("f32", "f64")
    rewrites(
        recognized,
        f"graph main({inputs}) {{ {KT} s = MatMul(q, kt) p = Softmax(s) y = MatMul(p, v) return y }}",
        f"graph main({inputs}) {{ y = Attention(q, k, v) {{scale=1.0}} return y }}",
        rtol=1e-12,
    )


CAUSAL = """n = Shape(q) {start=2, end=3} n0 = Squeeze(n) first: i64[] = const 0 step: i64[] = const 1
  up = Range(first, n0, step) axis: i64[1] = const [-1] column = Unsqueeze(up, axis) sees = LessOrEqual(up, column)"""


@pytest.mark.parametrize("where", ["t = Where(sees, s, billion)", "unseen = Not(sees) t = Where(unseen, billion, s)"])
def test_a_mask_under_which_each_query_sees_a_key_is_boolean_whatever_it_fills_with(rewrites, where):
    inputs = QKV.replace("w", "seq")
    made, mask = ("unseen = Not(sees) visible = Not(unseen)", "visible") if "Not" in where else ("", "sees")
    rewrites(
        recognized,
        f"graph main({inputs}) {{ {PROLOGUE} {CAUSAL} {where} p = Softmax(t) y = MatMul(p, v) return y }}",
        f'graph main({inputs}) {{ {CAUSAL} {made} y = Attention(q, k, v, {mask}) {{nan_rows="keep", scale=1.0}} return y }}',
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("contents", "is_boolean"),
    [("true, false, true, true, true, false", True), ("true, false, true, false, false, false", False)],
)
def test_a_constant_mask_is_boolean_when_each_query_sees_a_key(contents, is_boolean):
    inputs = "q: f32[batch,2,2,4], k: f32[batch,2,3,4], v: f32[batch,2,3,3]"
    constant = f"c: bool[2,3] = const [{contents}]"
    graph = read_graph(
        f"graph main({inputs}) {{ {PROLOGUE} {constant} t = Where(c, s, low) p = Softmax(t) y = MatMul(p, v) return y }}"
    )
    assert recognized(graph) == 1
    (attention,) = [node for node in graph if node.is_op("Attention")]
    assert (attention.inputs[3].tensor.dtype == "bool") is is_boolean
