"""Cases of products of few tokens whose rows are normalized, or that leave statistics: operands and exact results."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import (
    PIECE,
    Finish,
    KeptRows,
    Rows,
    bias_finish,
    product_launch,
)
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.sm90_cases.packing import packed
from tests.sm90_cases.tokens import DTYPES

X, W, SUMS, SHIFTS, STATISTICS, SCALE, SHIFT = (*map(Operand.input, range(7)),)
D, KEPT, SUMMARY = (*map(Operand.output, range(3)),)
EPSILON = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class RowsCase:
    """``arrays`` are what lies in memory before the launch; ``exact`` what must lie at each result, in f64."""

    launch: Launch[Operand]
    arrays: dict[Operand, "np.ndarray[Any, Any]"]
    exact: dict[Operand, "np.ndarray[Any, Any]"]

    def errors(self, found: dict[Operand, "np.ndarray[Any, Any]"]) -> dict[Operand, float]:
        """Of each result, relative; infinite where a number is none."""
        errors = {}
        for operand, exact in self.exact.items():
            error = np.linalg.norm(found[operand].astype(np.float64) - exact) / np.linalg.norm(exact)
            errors[operand] = float(error) if error == error else np.inf
        return errors


def statistics_of(x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Mean and M2 of each piece of the rows, in f64."""
    pieces = x.astype(np.float64).reshape(len(x), -1, PIECE)
    mean = pieces.mean(-1)
    return np.stack([mean, ((pieces - mean[..., None]) ** 2).sum(-1)], -1)


def normalized_case(p: TokenProduct, form: Form, *, centred: bool = True, kept: bool = True, shift: bool = True) -> RowsCase:
    """Tokens, far from zero, that are normalized and multiplied by rounded weights, as the finish makes it."""
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype = DTYPES[p.dtype]
    x = (rng.standard_normal((p.count, p.pitch)) * rng.uniform(0.5, 2, (p.count, 1)) + rng.normal(0, 2, (p.count, 1))).astype(
        dtype
    )
    scale, plus = rng.uniform(0.5, 1.5, p.k).astype(dtype), rng.standard_normal(p.k).astype(dtype)
    w = (rng.standard_normal((p.features, p.k)) / np.sqrt(p.k)).astype(dtype)
    rounded = (w.astype(np.float32) * scale.astype(np.float32)).astype(dtype)
    wide = x[:, : p.k].astype(np.float64)
    mean = wide.mean(-1, keepdims=True) if centred else np.zeros((p.count, 1))
    inverse = 1 / np.sqrt(((wide - mean) ** 2).mean(-1, keepdims=True) + EPSILON)
    shifts = w.astype(np.float64) @ plus.astype(np.float64)
    exact = (wide - mean) * inverse @ rounded.astype(np.float64).T + shifts
    rows = (wide - mean) * inverse * scale.astype(np.float64) + (plus.astype(np.float64) if shift else 0)
    arrays = {
        X: x, W: packed(rounded), SUMS: rounded.astype(np.float64).sum(-1).astype(np.float32), SHIFTS: shifts.astype(np.float32),
        STATISTICS: statistics_of(x[:, : p.k]).astype(np.float32), SCALE: scale, SHIFT: plus,
        D: poison((p.count, p.result_pitch), DTYPES[p.result]), KEPT: poison((p.count, p.k), dtype),
    }  # fmt: skip
    launch = product_launch(
        p,
        form,
        Finish("MI_DEVICE void body() {}", "y = narrow<MI_D>(inverse * (s - mean * x0) + x1)", (DType.F32,) * 2, (1, 1), (0, 0)),
        X,
        W,
        D,
        [SUMS, SHIFTS],
        rows=Rows(STATISTICS, EPSILON, centred, KeptRows(KEPT, SCALE, SHIFT if shift else None) if kept else None),
    )
    return RowsCase(launch, arrays, {D: exact, **({KEPT: rows} if kept else {})})


def summary_case(p: TokenProduct, form: Form) -> RowsCase:
    """With a bias that takes the results far from zero; their statistics are those of what is stored."""
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype, kind = DTYPES[p.dtype], DTYPES[p.result]
    x = rng.standard_normal((p.count, p.pitch)).astype(dtype)
    w = (rng.standard_normal((p.features, p.k)) / np.sqrt(p.k)).astype(dtype)
    b = (rng.standard_normal(p.features) + 10).astype(kind)
    exact = x[:, : p.k].astype(np.float64) @ w.astype(np.float64).T + b.astype(np.float64)
    arrays = {
        X: x, W: packed(w), SUMS: b, D: poison((p.count, p.result_pitch), kind),
        SUMMARY: poison((p.count, p.features // PIECE, 2), np.float32),
    }  # fmt: skip
    launch = product_launch(p, form, bias_finish(p.result), X, W, D, [SUMS], summary=SUMMARY)
    return RowsCase(launch, arrays, {D: exact, SUMMARY: statistics_of(exact.astype(kind))})


def poison(shape: tuple[int, ...], dtype: Any) -> "np.ndarray[Any, Any]":
    """What nobody has written: all bytes are 0xFF."""
    return np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype).reshape(shape)


def _product(count: int, features: int, k: int, dtype: DType = DType.F16, result: DType | None = None) -> TokenProduct:
    return TokenProduct(count, features, k, dtype, result or dtype, k + 16, features)


NORMALIZED = [
    (_product(20, 64, 1024), Form(24, 2, 1, 8)),
    (_product(33, 72, 192), Form(40, 2, 1, 2)),
    (_product(40, 100, 448), Form(48, 3, 2, 2)),
    (_product(100, 136, 384), Form(64, 3, 1, 2, 1, 2)),
    (_product(30, 260, 448), Form(32, 2, 2, 2, 2, 4)),
    (_product(197, 64, 128), Form(208, 2, 2, 1)),
    (_product(20, 72, 64, DType.BF16), Form(24, 1, 1, 2)),
    (_product(50, 64, 192, DType.F16, DType.F32), Form(64, 3, 2, 1)),
]
SUMMARIES = [
    (_product(33, 128, 200), Form(40, 2, 1, 2)),
    (_product(100, 192, 576), Form(56, 8, 1, 4)),
    (_product(40, 192, 456), Form(48, 2, 1, 2, 1, 2)),
    (_product(30, 256, 456), Form(32, 2, 2, 2, 2, 4)),
    (_product(197, 64, 128), Form(208, 2, 2, 1)),
    (_product(20, 64, 96, DType.BF16), Form(24, 1, 1, 2)),
    (_product(50, 64, 192, DType.F16, DType.F32), Form(64, 3, 2, 1)),
]
