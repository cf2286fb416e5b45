"""Cases of the products of bytes: whole numbers and f8e4m3fn, scaled by feature, with a residual and bytes behind the sums."""

import math
from typing import Any

import ml_dtypes
import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.tactics.products.byte_product_sm90 import (
    ByteForm,
    ByteProduct,
    byte_launch,
    ordered_features,
)
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Ends, Finish, Windows, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, Form, TokenProduct
from miniinfer_cli.ir import DType, numpy_dtype
from tests.sm90_cases.packing import packed
from tests.sm90_cases.tokens import B, D, R, Tokens, W, X
from tests.sm90_cases.windows import convolved

SCALES = Operand.input(4)
RESIDUAL_SCALE, INVERSE, HIGH = 0.25, 3.0, 30.0
BYTES = (DType.I8, DType.U8, DType.F8E4M3FN)


def byte_finish(result: DType, residual: DType | None, features: int) -> Finish:
    """``ended(scale * sum + bias, residual)`` under a bound, by INVERSE where bytes leave."""
    low, high = (-448.0, 448.0) if result is DType.F8E4M3FN else _range(result)
    rounds = 0 if result not in BYTES else 2 if result is DType.F8E4M3FN else 1
    zero = 5.0 if rounds == 1 else 0.0
    ends = low - zero, min(high - zero, HIGH * INVERSE)
    numbers = (1.0, 1.0, 0.0, 0.0, 0.0, RESIDUAL_SCALE, 2.0, -math.inf, HIGH, INVERSE, zero, *ends)
    defines = (
        *(("MI_Y", c_type(result)), ("MI_R", c_type(residual or DType.I8)), ("MI_BETWEEN", "0")),
        *(
            ("MI_ROUNDS", str(rounds)),
            ("MI_ACTIVATION", "none"),
            ("MI_FOLDED", "0"),
            ("MI_ADDED", str(int(residual is not None))),
        ),
    )
    added = "widen(x2)" if residual else "ending.residual_zero"
    one, row = ((1,), (features,)) if residual else ((), ())
    types = (DType.F32, DType.F32, *((residual,) if residual else ()))
    call = f"{{ y = ended(__fmaf_rn(s, x0, x1), (float){added}, ending); }}"
    return Finish("MI_DEVICE void body() {}", call, types, (1, 1, *one), (0, 0, *row), ends=Ends(defines, numbers))


def byte_case(p: TokenProduct, form: Form, residual: DType | None = None) -> Tokens:
    """The product of few tokens, what it must give in f64, rounded to its result."""
    arrays, exact = byte_operands(p.count, p.features, p.k, p.pitch, p.dtype, p.weights or p.dtype, residual)
    y = np.full(p.count * p.result_pitch * numpy_dtype(p.result).itemsize, 0xFF, np.uint8).view(numpy_dtype(p.result))
    operands = [SCALES, B, *([R] if residual else [])]
    launch = product_launch(p, form, byte_finish(p.result, residual, p.features), X, W, D, operands)
    arrays = {**arrays, W: packed(arrays[W]), D: y.reshape(p.count, p.result_pitch)}
    return Tokens(p, launch, arrays, ended(exact, p.result))


def many_case(p: ByteProduct, form: ByteForm, multiprocessors: int = 4) -> Tokens:
    """The product of many tokens, likewise: with windows k is what a filter has."""
    taps = 1 if p.windows is None else math.prod(p.windows.kernel)
    k = p.k if p.windows is None else taps * p.windows.x_shape[3]
    arrays, exact = byte_operands(p.count, p.features, k, p.pitch, p.dtype, p.weights, p.residual)
    if p.windows is not None:
        arrays[X] = random_bytes(np.random.default_rng(p.count), p.windows.x_shape, p.dtype)
        w = arrays[W].reshape(p.features, *p.windows.kernel, -1)
        sums = convolved(arrays[X].astype(np.float64), w.astype(np.float64), p.windows).reshape(p.count, p.features)
        exact = sums * arrays[SCALES] + arrays[B]
        if p.residual:
            exact += (arrays[R].astype(np.float64) - 2) * RESIDUAL_SCALE
    rows = np.zeros((-(-p.features // 64) * 64, k), arrays[W].dtype)
    rows[: p.features] = arrays[W]
    ordered = rows.reshape(-1, 64, k)[:, ordered_features()].reshape(rows.shape)
    weights = np.full((len(rows), p.weights_pitch), 0x55, np.uint8).view(rows.dtype)
    weights[:, :k] = ordered
    y = np.full(p.count * p.result_pitch * numpy_dtype(p.result).itemsize, 0xFF, np.uint8).view(numpy_dtype(p.result))
    ends = byte_finish(p.result, p.residual, p.features).ends
    assert ends is not None
    residual = R if p.residual else None
    launch = byte_launch(p, form, ends, X, W, D, SCALES, B, residual, multiprocessors, band=2)
    seen = TokenProduct(p.count, p.features, p.k, p.dtype, p.result, p.pitch, p.result_pitch)
    arrays = {**arrays, W: weights, D: y.reshape(p.count, p.result_pitch)}
    return Tokens(seen, launch, arrays, ended(exact, p.result))


def byte_operands(
    count: int, features: int, k: int, pitch: int, dtype: DType, weights: DType, residual: DType | None
) -> tuple[dict[Operand, "np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]:
    """Arrays, and ``scale * sum + bias + residual`` in f64."""
    rng = np.random.default_rng(count + features + k)
    x, w = random_bytes(rng, (count, pitch), dtype), random_bytes(rng, (features, k), weights)
    spread = 60.0 if dtype is not DType.F8E4M3FN else 1.0
    scales = (rng.uniform(2, 4, features) / spread**2 / np.sqrt(k)).astype(np.float32)
    b = rng.standard_normal(features).astype(np.float32)
    r = random_bytes(rng, (count, features), residual or DType.I8)
    exact = x[:, :k].astype(np.float64) @ w.astype(np.float64).T * scales + b
    if residual:
        exact += (r.astype(np.float64) - 2) * RESIDUAL_SCALE
    return {X: x, W: w, B: b, R: r, SCALES: scales}, exact


def ended(values: "np.ndarray[Any, Any]", result: DType) -> "np.ndarray[Any, Any]":
    """What ``byte_finish`` makes of them, as numbers."""
    values = np.minimum(values, HIGH)
    if result is DType.F8E4M3FN:
        return np.clip(values * INVERSE, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    if result in BYTES:
        return np.clip(np.rint(values * INVERSE) + 5, *_range(result))
    return values


def random_bytes(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> "np.ndarray[Any, Any]":
    """Of all whole numbers of a type, or normal ones."""
    kind = numpy_dtype(dtype)
    if dtype not in (DType.I8, DType.U8):
        return rng.standard_normal(shape).astype(kind)
    return rng.integers(*_range(dtype), shape, endpoint=True).astype(kind)


def _range(dtype: DType) -> tuple[float, float]:
    return (0, 255) if dtype is DType.U8 else (-128, 127)


def _product(count: int, features: int, k: int, dtype: DType, result: DType) -> TokenProduct:
    weights = dtype if dtype is DType.F8E4M3FN else DType.I8
    return TokenProduct(count, features, k, dtype, result, k + 16, features + 16, weights=weights)


I8, U8, F8 = BYTES
BYTE_FORMS = [
    (_product(8, 64, 128, U8, U8), Form(8, 1, 1, 1), None),
    (_product(33, 72, 400, U8, I8), Form(48, 2, 1, 2), I8),
    (_product(24, 100, 912, I8, DType.F32), Form(24, 3, 1, 2), None),
    (_product(40, 200, 912, I8, U8), Form(48, 2, 1, 2, 1, 2), U8),
    (_product(100, 136, 2304, U8, I8), Form(112, 3, 1, 3, 1, 2, 16), I8),
    (_product(197, 64, 256, U8, U8), Form(224, 2, 2, 1), DType.F16),
    (_product(33, 72, 400, F8, F8), Form(40, 2, 1, 2), None),
    (_product(100, 136, 1152, F8, DType.F16), Form(112, 3, 1, 3), DType.F16),
    (_product(40, 200, 912, F8, F8), Form(48, 2, 2, 2, 1, 2), F8),
]
"""Products, forms, types of residuals: parts of k, groups, tokens that blocks share, ragged sizes, each type and result."""


def _many(count: int, features: int, k: int, dtype: DType, result: DType, residual: DType | None = None) -> ByteProduct:
    weights = dtype if dtype is F8 else I8
    return ByteProduct(count, features, k, dtype, weights, result, k + 16, k + 32, features + 16, residual)


def _windowed(windows: Windows, features: int, dtype: DType, result: DType, residual: DType | None = None) -> ByteProduct:
    images, *_, channels = windows.x_shape
    count, taps = images * math.prod(windows.corners), math.prod(windows.kernel)
    k = taps * windows.chunks(1) * CHUNK_NBYTES
    weights = dtype if dtype is F8 else I8
    pitch = taps * channels
    return ByteProduct(count, features, k, dtype, weights, result, pitch, pitch + 16, features, residual, windows)


MANY = [
    (_many(128, 64, 128, U8, U8), ByteForm(64, 2)),
    (_many(700, 144, 400, U8, I8, I8), ByteForm(64, 3, 2)),
    (_many(600, 272, 912, I8, U8, U8), ByteForm(256, 2)),
    (_many(300, 200, 64, I8, DType.F32), ByteForm(128, 4)),
    (_many(300, 100, 208, U8, U8, I8), ByteForm(64, 2, 2)),
    (_many(520, 192, 528, U8, DType.F16, DType.F16), ByteForm(192, 3, 2)),
    (_many(300, 136, 400, F8, F8), ByteForm(64, 3)),
    (_many(700, 128, 912, F8, DType.F16, DType.F16), ByteForm(128, 3, 2)),
    (_many(300, 144, 384, F8, F8, F8), ByteForm(64, 2, 2)),
    (_many(700, 128, 1200, F8, DType.F16), ByteForm(128, 4)),
    (_windowed(Windows((2, 12, 13, 64), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 64, U8, U8), ByteForm(64, 4)),
    (_windowed(Windows((3, 15, 16, 144), (3, 2), (2, 1), (1, 2), (1, 0), (1, 2)), 80, I8, I8, I8), ByteForm(64, 3, 2)),
    (_windowed(Windows((1, 20, 20, 32), (1, 1), (2, 2), (1, 1), (0, 0), (0, 0)), 128, F8, DType.F16), ByteForm(128, 2)),
]
"""The same of many tokens: several tiles for a block, shared weights, rings shorter and longer than k, windows, ragged sizes."""
