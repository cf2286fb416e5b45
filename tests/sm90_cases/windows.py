"""Cases of the product of few tokens over the windows of a convolution."""

import math
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Windows, bias_finish, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.sm90_cases.packing import packed
from tests.sm90_cases.tokens import DTYPES, B, D, R, Tokens, W, X

WINDOWS = [
    (Windows((1, 7, 7, 64), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 64, Form(56, 3, 1, 3)),
    (Windows((2, 9, 6, 72), (3, 2), (2, 1), (1, 2), (1, 0), (1, 2)), 72, Form(64, 4, 1, 3)),
    (Windows((1, 6, 7, 128), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 200, Form(48, 2, 1, 9, 1, 2)),
    (Windows((3, 5, 5, 16), (5, 5), (1, 2), (1, 1), (2, 2), (2, 2)), 130, Form(32, 1, 1, 4, 1, 2)),
    (Windows((1, 16, 16, 64), (1, 1), (2, 3), (1, 1), (0, 0), (0, 0)), 64, Form(48, 1, 1, 1)),
]
"""Windows, features, forms: parts of k within a tap, few channels, tokens that blocks share, images behind each other."""


def windows_case(windows: Windows, features: int, form: Form, dtype: DType = DType.F16) -> Tokens:
    """With a bias."""
    rng = np.random.default_rng(features + math.prod(windows.x_shape))
    images, _, _, channels = windows.x_shape
    height, width = windows.corners
    nbytes, taps = element_nbytes(dtype), math.prod(windows.kernel)
    filled = windows.chunks(nbytes) * CHUNK_NBYTES // nbytes
    p = TokenProduct(images * height * width, features, taps * filled, dtype, dtype, taps * channels, features + 16)
    kind = DTYPES[dtype]
    x = rng.standard_normal(windows.x_shape).astype(kind)
    w = (rng.standard_normal((features, *windows.kernel, channels)) / np.sqrt(taps * channels)).astype(kind)
    b = rng.standard_normal(features).astype(kind)
    y = np.full(p.count * p.result_pitch * nbytes, 0xFF, np.uint8).view(kind).reshape(p.count, p.result_pitch)
    whole = np.zeros((features, *windows.kernel, filled), kind)
    whole[..., :channels] = w
    exact = _convolved(x.astype(np.float64), w.astype(np.float64), windows).reshape(p.count, features) + b.astype(np.float64)
    launch = product_launch(p, form, bias_finish(dtype), X, W, D, [B], windows=windows)
    arrays = {X: x, W: packed(whole.reshape(features, -1)), B: b, R: b, D: y}
    return Tokens(replace(p, k=taps * channels), launch, arrays, exact)


def _convolved(x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    height, width = windows.corners
    padded = np.pad(x, ((0, 0), *zip(windows.begin, windows.end, strict=True), (0, 0)))
    y = np.zeros((len(x), height, width, len(w)))
    for r, s in np.ndindex(*windows.kernel):
        top, left = r * windows.dilations[0], s * windows.dilations[1]
        rows = slice(top, top + (height - 1) * windows.strides[0] + 1, windows.strides[0])
        columns = slice(left, left + (width - 1) * windows.strides[1] + 1, windows.strides[1])
        y += padded[:, rows, columns] @ w[:, r, s].T
    return y
