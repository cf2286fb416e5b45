"""Cases of products of many tokens whose rows are normalized, or that leave statistics: operands and exact results."""

from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import (
    LargeForm,
    LargeProduct,
    LargeRows,
    adding_finish,
    large_launch,
    plain_finish,
)
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import PIECE, KeptRows
from miniinfer_cli.ir import DType
from tests.sm90_cases.large import MULTIPROCESSORS, large
from tests.sm90_cases.normalized_rows import EPSILON, KEPT, SHIFTS, STATISTICS, SUMMARY, RowsCase, poison, statistics_of
from tests.sm90_cases.tokens import DTYPES, D, W, X

B, R, SCALE, PLUS = map(Operand.input, range(5, 9))
_FACTOR = 0.5
_BAND = 2


def normalized_case(
    p: LargeProduct, form: LargeForm, *, centred: bool = True, shifted: bool = True, kept: bool = False
) -> RowsCase:
    """Sums over tokens, far from zero, that are brought to their scale; with a bias where the product has one. Weights of a
    feature do not sum up to nothing here, so means stay.

    ``kept``: and written.
    """
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype = DTYPES[p.dtype]
    spread, middle = rng.uniform(0.5, 2, (p.count, 1)), rng.normal(0, 2, (p.count, 1))
    x = (rng.standard_normal((p.count, p.pitch)) * spread + middle).astype(dtype)
    w = (_FACTOR * rng.standard_normal((p.features, p.weights_pitch)) / np.sqrt(p.k)).astype(dtype)
    b, shifts = (rng.standard_normal(p.features) for _ in range(2))
    wide, by = x[:, : p.k].astype(np.float64), w[:, : p.k].astype(np.float64)
    mean = wide.mean(-1, keepdims=True) if centred else np.zeros((p.count, 1))
    inverse = 1 / np.sqrt(((wide - mean) ** 2).mean(-1, keepdims=True) + EPSILON)
    exact = wide * inverse @ by.T / _FACTOR
    exact += (shifts if shifted else 0) + (b.astype(DTYPES[p.biased]) if p.biased else 0)
    arrays = {
        X: x, W: w, B: b.astype(DTYPES[p.biased or p.waiting]),
        SHIFTS: shifts.astype(np.float32),
        STATISTICS: statistics_of(x[:, : p.k]).astype(np.float32), D: poison((p.count, p.result_pitch), DTYPES[p.result]),
    }  # fmt: skip
    scale, plus = rng.uniform(0.5, 1.5, p.k).astype(dtype), rng.standard_normal(p.k).astype(dtype)
    normalized = (wide - mean) * inverse * scale.astype(np.float64) + (plus.astype(np.float64) if shifted else 0)
    arrays |= {SCALE: scale, PLUS: plus, KEPT: poison((p.count, p.k), dtype)}
    keeping = KeptRows(KEPT, SCALE, PLUS if shifted else None) if kept else None
    rows = LargeRows(STATISTICS, EPSILON, centred, SHIFTS if shifted else None, _FACTOR, keeping)
    bias = B if p.biased else None
    launch = large_launch(p, form, plain_finish(p.result), X, W, D, bias, [], MULTIPROCESSORS, _BAND, rows=rows)
    return RowsCase(launch, arrays, {D: exact, **({KEPT: normalized} if kept else {})})


def summary_case(p: LargeProduct, form: LargeForm, *, residual: bool = True) -> RowsCase:
    """With a bias, and a residual that takes the results far from zero; their statistics are those of what is stored."""
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype = DTYPES[p.dtype]
    x = rng.standard_normal((p.count, p.pitch)).astype(dtype)
    w = (rng.standard_normal((p.features, p.weights_pitch)) / np.sqrt(p.k)).astype(dtype)
    b, r = ((rng.standard_normal(s) + 5).astype(dtype) for s in ((p.features,), (p.count, p.features)))
    exact = x[:, : p.k].astype(np.float64) @ w[:, : p.k].astype(np.float64).T + b.astype(np.float64)
    exact += r.astype(np.float64) if residual else 0
    arrays = {
        X: x, W: w, B: b, R: r, D: poison((p.count, p.result_pitch), dtype),
        SUMMARY: poison((p.count, p.features // PIECE, 2), np.float32),
    }  # fmt: skip
    finish, operands = (adding_finish(p.result, p.features), [R]) if residual else (plain_finish(p.result), [])
    launch = large_launch(p, form, finish, X, W, D, B, operands, MULTIPROCESSORS, _BAND, summary=SUMMARY)
    return RowsCase(launch, arrays, {D: exact, SUMMARY: statistics_of(exact.astype(dtype))})


def product(count: int, features: int, k: int, dtype: DType = DType.F16) -> LargeProduct:
    """With a bias, and results whose rows are dense."""
    return replace(large(count, features, k, dtype), result_pitch=features)


NORMALIZED = [
    (product(200, 136, 192), LargeForm(2, 64, 2)),
    (replace(product(300, 72, 128), biased=None), LargeForm(1, 64, 2, 2)),
    (product(150, 136, 64, DType.BF16), LargeForm(1, 128, 2)),
]
SUMMARIES = [
    (product(300, 192, 136), LargeForm(2, 128, 2, 2)),
    (product(150, 128, 72, DType.BF16), LargeForm(1, 64, 2)),
]
