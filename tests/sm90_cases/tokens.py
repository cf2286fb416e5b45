"""Cases of the product of few tokens: random operands, the launch, and how far a result is from that in f64."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Finish, bias_finish, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.sm90_cases.packing import packed

DTYPES: dict[DType, Any] = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
TOLERANCES = {DType.F16: 5e-4, DType.BF16: 4e-3, DType.F32: 1e-3, DType.I8: 1e-3, DType.U8: 1e-3, DType.F8E4M3FN: 1e-2}
X, W, B, R, D = (*map(Operand.input, range(4)), Operand.output(0))
_PITCH = 16  # elements more than a row has


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """``arrays`` are what lies in memory before the launch, the result among them, whose bytes are all 0xFF."""

    product: TokenProduct
    launch: Launch[Operand]
    arrays: dict[Operand, "np.ndarray[Any, Any]"]
    exact: "np.ndarray[Any, Any]"

    def error(self, found: "np.ndarray[Any, Any]") -> float:
        """Of a result, relative to that in f64. Raises AssertionError where something was written between its rows."""
        p = self.product
        assert (np.ascontiguousarray(found[:, p.features :]).view(np.uint8) == 0xFF).all(), "something lies between rows"
        difference = np.linalg.norm(found[:, : p.features].astype(np.float64) - self.exact) / np.linalg.norm(self.exact)
        return float(difference) if difference == difference else np.inf


def tokens_case(p: TokenProduct, form: Form, *, residual: bool = False) -> Tokens:
    """With a bias; and with a residual and a Relu behind it."""
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype, kind = DTYPES[p.dtype], DTYPES[p.result]
    x = rng.standard_normal((p.count, p.pitch)).astype(dtype)
    w = (rng.standard_normal((p.features, p.k)) / np.sqrt(p.k)).astype(dtype)
    b, r = (rng.standard_normal(s).astype(kind) for s in ((p.features,), (p.count, p.features)))
    finish, operands = (_with_residual(p), [B, R]) if residual else (bias_finish(p.result), [B])
    exact = x[:, : p.k].astype(np.float64) @ w.astype(np.float64).T + b.astype(np.float64)
    if residual:
        exact = np.maximum(exact + r.astype(np.float64), 0)
    y = np.full(p.count * p.result_pitch * b.itemsize, 0xFF, np.uint8).view(kind).reshape(p.count, p.result_pitch)
    arrays = {X: x, W: packed(w), B: b, R: r, D: y}
    return Tokens(p, product_launch(p, form, finish, X, W, D, operands), arrays, exact)


def _with_residual(p: TokenProduct) -> Finish:
    sums = "fmaxf(s + widen(x0) + widen(x1), 0.0f)"
    body = f"MI_DEVICE void body(float s, MI_X0 x0, MI_X1 x1, MI_D& y) {{ y = narrow<MI_D>({sums}); }}"
    return Finish(body, "body(s, x0, x1, y)", (p.result, p.result), (1, 1), (0, p.features))


def product(count: int, features: int, k: int, dtype: DType = DType.F16, result: DType | None = None) -> TokenProduct:
    """With something between rows."""
    return TokenProduct(count, features, k, dtype, result or dtype, k + _PITCH, features + _PITCH)


FORMS = [
    (product(8, 64, 64), Form(8, 1, 1, 1)),
    (product(33, 72, 200), Form(40, 2, 1, 2)),
    (product(40, 100, 456), Form(48, 3, 2, 2)),
    (product(100, 64, 576), Form(56, 8, 1, 4)),
    (product(64, 130, 320), Form(64, 5, 2, 1)),
    (product(40, 200, 456), Form(48, 2, 1, 2, 1, 2)),
    (product(100, 136, 384), Form(64, 3, 1, 2, 1, 2)),
    (product(30, 260, 456), Form(32, 2, 2, 2, 2, 4)),
    (product(100, 136, 1152), Form(112, 3, 1, 3, 1, 2, 16)),
    (product(100, 136, 1152), Form(112, 3, 1, 6, 1, 1, 16)),
    (product(100, 72, 1152), Form(112, 3, 2, 6, 1, 2, 16)),
    (product(60, 300, 320), Form(64, 1, 2, 3, 1, 4)),
    (product(197, 64, 128), Form(208, 2, 2, 1)),
    (product(40, 200, 456), Form(48, 3, 2, 2, 2)),
    (product(100, 136, 576), Form(56, 4, 1, 2, 2)),
    (product(24, 264, 128), Form(24, 1, 1, 2, 4)),
    (product(250, 72, 64), Form(256, 1, 2, 1)),
    (product(130, 200, 64), Form(136, 1, 1, 1)),
    (product(100, 24, 16), Form(56, 1, 1, 1)),
    (product(40, 16, 40), Form(40, 1, 1, 1)),
    (product(20, 72, 96, DType.BF16), Form(24, 1, 1, 2)),
    (product(20, 65, 100, DType.F32), Form(24, 2, 1, 2)),
    (product(50, 64, 192, DType.F16, DType.F32), Form(64, 3, 2, 1)),
]
"""Products and forms of every kind: parts of k, groups, rings shorter than k, several rows, tokens that blocks share."""
