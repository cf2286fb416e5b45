"""merge_projections: products of one tensor with constant weights become one product and a Split; others stay apart."""

import pytest

from miniinfer_cli.passes.fold_constants import fold_constants
from miniinfer_cli.passes.merge_projections import merge_projections

WEIGHTS = """
  q: f32[3,2] = const [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
  k: f32[3,2] = const [7.0, 8.0, 9.0, 1.5, 2.5, 3.5]
  v: f32[3,1] = const [4.5, 5.5, 6.5]
  bq: f32[2] = const [0.5, 1.0]
  bk: f32[2] = const [2.0, 3.0]
  bv: f32[1] = const [4.0]
"""


def merged(graph) -> int:
    """The pass, and the Concats of constants folded as the pipeline does."""
    fired = merge_projections(graph)
    fold_constants(graph)
    return fired


def text(body: str, inputs: str = "x: f32[batch,seq,3]") -> str:
    return f"graph main({inputs}) {{ {body} }}"


def test_products_with_biases(rewrites):
    rewrites(
        merged,
        text(f"""{WEIGHTS} a = MatMul(x, q) b = MatMul(x, k) c = MatMul(x, v)
          d = Add(a, bq) e = Add(bk, b) f = Add(c, bv) g = Relu(e) return d, g, f"""),
        text("""
          weights: f32[3,5] = const [1.0, 2.0, 7.0, 8.0, 4.5, 3.0, 4.0, 9.0, 1.5, 5.5, 5.0, 6.0, 2.5, 3.5, 6.5]
          a_merged = MatMul(x, weights)
          biases: f32[5] = const [0.5, 1.0, 2.0, 3.0, 4.0]
          a_biased = Add(a_merged, biases)
          columns: i64[3] = const [2, 2, 1]
          d, e, f = Split(a_biased, columns) {axis=-1}
          g = Relu(e) return d, g, f"""),
        fired=2,
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "rest",
    [
        "d = Add(a, bq) e = Relu(b) return d, e",  # one has no bias
        "d = Add(a, bq) e = Add(b, bk) f = Relu(b) return d, e, f",  # one is read before its bias
        "d = Add(a, bq) e = Add(b, bk) return d, e, b",
        "r: f32[1,2] = const [1.0, 2.0] d = Add(a, r) e = Add(b, bk) return d, e",  # no plain row of biases
        "r: f32[1] = const [1.0] d = Add(a, r) e = Add(b, bk) return d, e",
        "d = Add(a, y) e = Add(b, bk) return d, e",
        "d = Mul(a, bq) e = Mul(b, bk) return d, e",
        "d = Add(a, b) return d, d2=d",
        "return a, b",
    ],
)
def test_products_whose_biases_do_not_join(rewrites, rest):
    inputs = "x: f32[batch,seq,3], y: f32[2]"
    used = " ".join(line for line in WEIGHTS.strip().split("\n") if line.split(":")[0].strip() in ("bq", "bk"))
    rewrites(
        merged,
        text(f"{WEIGHTS} a = MatMul(x, q) b = MatMul(x, k) {rest}", inputs),
        text(
            f"""weights: f32[3,4] = const [1.0, 2.0, 7.0, 8.0, 3.0, 4.0, 9.0, 1.5, 5.0, 6.0, 2.5, 3.5]
            a_merged = MatMul(x, weights) columns: i64[2] = const [2, 2]
            a, b = Split(a_merged, columns) {{axis=-1}} {used} {rest}""",
            inputs,
        ),
        rtol=1e-6,
    )


def test_the_first_in_order_gives_the_place(rewrites):
    rewrites(
        merged,
        text(f"{WEIGHTS} b = MatMul(x, k) r = Relu(b) c = MatMul(x, v) a = MatMul(x, q) return a, r, c"),
        text("""
          weights: f32[3,5] = const [7.0, 8.0, 4.5, 1.0, 2.0, 9.0, 1.5, 5.5, 3.0, 4.0, 2.5, 3.5, 6.5, 5.0, 6.0]
          b_merged = MatMul(x, weights) columns: i64[3] = const [2, 1, 2]
          b, c, a = Split(b_merged, columns) {axis=-1} r = Relu(b) return a, r, c"""),
        fired=2,
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "body",
    [
        "a = MatMul(x, q) b = MatMul(y, k) return a, b",  # of two tensors
        "a = MatMul(x, q) b = MatMul(x, w) return a, b",  # weights that are computed
        "t: f32[1,3,2] = const fill 2.0 a = MatMul(x, q) b = MatMul(x, t) return a, b",
        "t: f32[3] = const fill 2.0 a = MatMul(x, q) b = MatMul(x, t) return a, b",
        "t: f32[5,2] = const fill 2.0 a = MatMul(z, q) b = MatMul(t, z) return a, b",
        "a = MatMul(n, q) b = MatMul(n, k) return a, b",  # a vector
        "t: f32[4,3] = const fill 2.0 a = MatMul(t, q) b = MatMul(t, k) return a, b",  # constants: for folding
        "a = Gemm(z, q) b = Gemm(z, k) return a, b",
    ],
)
def test_products_that_stay_apart(leaves, body):
    inputs = "x: f32[5,2,3], y: f32[5,2,3], w: f32[3,2], z: f32[2,3], n: f32[3]"
    leaves(merge_projections, text(f"{WEIGHTS} {body}", inputs))
