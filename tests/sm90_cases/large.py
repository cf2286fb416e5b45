"""Cases of the product of many tokens: random operands, the launch, and how far a result is from that in f64."""

from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import LargeForm, LargeProduct, large_launch, plain_finish
from miniinfer_cli.backends.cuda.tactics.products.narrow_product_sm90 import NarrowForm, narrow_launch
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Finish
from miniinfer_cli.backends.cuda.tactics.products.token_forms import TokenProduct
from miniinfer_cli.ir import DType
from tests.sm90_cases.tokens import DTYPES, B, D, R, Tokens, W, X

_PITCH = 16  # elements more than a row has
MULTIPROCESSORS = 4
_RELU = Finish("MI_DEVICE void body(float s, MI_D& y) { y = narrow<MI_D>(fmaxf(s, 0.0f)); }", "body(s, y)")
_QUICK = replace(_RELU, quick=True)


def large_case(
    p: LargeProduct,
    form: LargeForm | NarrowForm,
    *,
    residual: bool = False,
    relu: bool = False,
    quick: bool = False,
    multiprocessors: int = MULTIPROCESSORS,
    band: int = 2,
) -> Tokens:
    """With a bias where the product has one; and with a residual and a Relu behind it, or a Relu alone, which is
    ``quick`` or not.
    """
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype, kind = DTYPES[p.dtype], DTYPES[p.result]
    x = rng.standard_normal((p.count, p.pitch)).astype(dtype)
    w = (rng.standard_normal((p.features, p.weights_pitch)) / np.sqrt(p.k)).astype(dtype)
    b = rng.standard_normal(p.features).astype(DTYPES[p.biased or p.waiting])
    r = rng.standard_normal((p.count, p.features)).astype(kind)
    finish, operands = (
        (with_residual(p), [R]) if residual else ((_QUICK if quick else _RELU) if relu else plain_finish(p.result), [])
    )
    exact = p.alpha * (x[:, : p.k].astype(np.float64) @ w[:, : p.k].astype(np.float64).T)
    if p.biased:
        exact = exact + b.astype(np.float64)
    if residual or relu:
        exact = np.maximum(exact + (r.astype(np.float64) if residual else 0), 0)
    y = np.full(p.count * p.result_pitch * r.itemsize, 0xFF, np.uint8).view(kind).reshape(p.count, p.result_pitch)
    bias: Operand | None = B if p.biased else None
    places = (X, W, D, bias, operands, multiprocessors)
    if isinstance(form, NarrowForm):
        launch = narrow_launch(p, form, finish, *places)
    else:
        launch = large_launch(p, form, finish, *places, band)
    seen = TokenProduct(p.count, p.features, p.k, p.dtype, p.result, p.pitch, p.result_pitch)
    return Tokens(seen, launch, {X: x, W: w, B: b, R: r, D: y}, exact)


def with_residual(p: LargeProduct) -> Finish:
    """Of the result's type."""
    body = "MI_DEVICE void body(float s, MI_X0 x0, MI_D& y) { y = narrow<MI_D>(fmaxf(s + widen(x0), 0.0f)); }"
    return Finish(body, "body(s, x0, y)", (p.result,), (1,), (p.features,))


def large(count: int, features: int, k: int, dtype: DType = DType.F16, result: DType | None = None) -> LargeProduct:
    """With a bias, and something between rows."""
    kind = result or dtype
    return LargeProduct(count, features, k, dtype, kind, kind, k + _PITCH, k + _PITCH, features + _PITCH, biased=kind)


LARGE = [
    (large(64, 64, 64), LargeForm(1, 64, 2)),
    (large(200, 136, 200), LargeForm(2, 64, 2)),
    (large(300, 136, 320), LargeForm(1, 64, 3, 2)),
    (large(400, 100, 136), LargeForm(2, 64, 2, 2)),
    (replace(large(300, 70, 72), alpha=0.5, biased=None), LargeForm(1, 64, 3, 4)),
    (large(150, 136, 104, DType.BF16), LargeForm(1, 128, 2)),
    (large(150, 72, 100, DType.F32), LargeForm(2, 64, 2, 2)),
    (large(150, 72, 136, DType.F16, DType.F32), LargeForm(1, 32, 3)),
]
"""Products and forms of every kind: several tiles for a block, shared weights, rings shorter than k, ragged sizes, types."""
NARROW = [
    (large(64, 64, 64), NarrowForm(32, 2)),
    (large(700, 24, 200), NarrowForm(64, 3)),
    (large(520, 40, 320), NarrowForm(128, 4)),
    (replace(large(300, 64, 72), alpha=0.5, biased=None), NarrowForm(16, 3)),
    (large(150, 56, 104, DType.BF16), NarrowForm(32, 5)),
    (large(700, 136, 40), NarrowForm(32, 3)),
    (large(300, 96, 24, DType.BF16), NarrowForm(64, 3)),
]
"""The same of few features, by two warpgroups in turns: several tiles for each, rings shorter and longer than k, and parts."""
