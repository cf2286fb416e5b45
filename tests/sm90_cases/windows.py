"""Cases of the products of few and of many tokens over the windows of a convolution."""

import math
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import LargeForm, LargeProduct, large_launch, plain_finish
from miniinfer_cli.backends.cuda.tactics.products.narrow_product_sm90 import NarrowForm, narrow_launch
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Windows, bias_finish, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.sm90_cases.large import MULTIPROCESSORS, with_residual
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


LARGE_WINDOWS = [
    (Windows((1, 13, 12, 64), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 64, LargeForm(1, 64, 3)),
    (Windows((2, 19, 14, 72), (3, 2), (2, 1), (1, 2), (1, 0), (1, 2)), 72, LargeForm(2, 64, 2, 2)),
    (Windows((1, 17, 20, 128), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 200, LargeForm(2, 128, 2)),
    (Windows((3, 11, 11, 16), (5, 5), (1, 2), (1, 1), (2, 2), (2, 2)), 136, LargeForm(1, 64, 4, 2)),
    (Windows((2, 25, 40, 64), (1, 1), (2, 3), (1, 1), (0, 0), (0, 0)), 64, LargeForm(1, 64, 2, 2)),
    (Windows((2, 19, 14, 64), (4, 1), (1, 1), (1, 1), (0, 0), (0, 0), (16, 304, 5776)), 72, LargeForm(2, 64, 3, 2)),
]
"""The same of many pixels: images behind each other in a tile and a cluster, rings shorter than k, several tiles for a block,
pixels that overlap."""


def windows_case(windows: Windows, features: int, form: Form, dtype: DType = DType.F16) -> Tokens:
    """By the kernel for few tokens, with a bias."""
    x, w, b, _, exact = _operands(windows, features, dtype)
    nbytes, taps, channels = element_nbytes(dtype), math.prod(windows.kernel), windows.x_shape[3]
    filled = windows.chunks(nbytes) * CHUNK_NBYTES // nbytes
    p = TokenProduct(len(exact), features, taps * filled, dtype, dtype, taps * channels, features + 16)
    whole = np.zeros((features, *windows.kernel, filled), x.dtype)
    whole[..., :channels] = w
    launch = product_launch(p, form, bias_finish(dtype), X, W, D, [B], windows=windows)
    arrays = {X: x, W: packed(whole.reshape(features, -1)), B: b, R: b, D: _results(p, x.dtype)}
    return Tokens(replace(p, k=taps * channels), launch, arrays, exact)


NARROW_WINDOWS = [
    (Windows((1, 23, 22, 64), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)), 64, NarrowForm(128, 3)),
    (Windows((2, 19, 14, 72), (3, 2), (2, 1), (1, 2), (1, 0), (1, 2)), 24, NarrowForm(64, 2)),
    (Windows((3, 11, 11, 16), (5, 5), (1, 2), (1, 1), (2, 2), (2, 2)), 40, NarrowForm(32, 4)),
    (Windows((2, 19, 14, 64), (4, 1), (1, 1), (1, 1), (0, 0), (0, 0), (16, 304, 5776)), 64, NarrowForm(32, 3)),
]
"""The same of few features, by two warpgroups in turns."""
GROUPED_WINDOWS = [
    (Windows((2, 9, 11, 96), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), groups=2), 96, NarrowForm(32, 3)),
    (Windows((3, 9, 7, 48), (3, 2), (2, 1), (1, 2), (1, 0), (1, 2), groups=3), 120, NarrowForm(16, 4)),
    (Windows((2, 8, 9, 240), (3, 3), (1, 2), (1, 1), (1, 1), (1, 1), groups=2), 208, NarrowForm(32, 3)),
    (Windows((1, 9, 9, 320), (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), groups=5), 320, NarrowForm(64, 2)),
]
"""The same of several groups: short chunks, several tiles for a block, more features and channels than a chunk has, one tap."""


def large_windows_case(
    windows: Windows,
    features: int,
    form: LargeForm | NarrowForm,
    dtype: DType = DType.F16,
    *,
    residual: bool = False,
    multiprocessors: int = MULTIPROCESSORS,
) -> Tokens:
    """By the kernel for many tokens, with a bias, or with a residual and a Relu behind it."""
    x, w, b, r, exact = _operands(windows, features, dtype)
    nbytes, row = element_nbytes(dtype), math.prod(windows.kernel) * windows.x_shape[3]
    k = math.prod(windows.kernel) * windows.chunks(nbytes) * CHUNK_NBYTES // nbytes
    kinds, of_group = (dtype, dtype, dtype), row // windows.groups
    p = LargeProduct(len(exact), features, k, *kinds, row, of_group, features + 16, biased=dtype, windows=windows)
    finish, operands = (with_residual(p), [R]) if residual else (plain_finish(dtype), [])
    if residual:
        exact = np.maximum(exact + r.astype(np.float64), 0)
    places = (X, W, D, B, operands, multiprocessors)
    if isinstance(form, NarrowForm):
        launch = narrow_launch(p, form, finish, *places)
    else:
        launch = large_launch(p, form, finish, *places, 2)
    seen = TokenProduct(p.count, features, row, dtype, dtype, row, p.result_pitch)
    return Tokens(seen, launch, {X: x, W: w, B: b, R: r, D: _results(seen, x.dtype)}, exact)


def _results(p: TokenProduct, kind: np.dtype) -> np.ndarray:
    return np.full(p.count * p.result_pitch * kind.itemsize, 0xFF, np.uint8).view(kind).reshape(p.count, p.result_pitch)


def _operands(windows: Windows, features: int, dtype: DType) -> tuple[np.ndarray, ...]:
    """Images, weights, a bias, a residual, and the convolution with the bias in f64."""
    rng = np.random.default_rng(features + math.prod(windows.x_shape))
    images, channels, groups = windows.x_shape[0], windows.channels, windows.groups
    count, kind = images * math.prod(windows.corners), DTYPES[dtype]
    x = rng.standard_normal(windows.elements).astype(kind)
    w = (rng.standard_normal((features, *windows.kernel, channels)) / np.sqrt(math.prod(windows.kernel) * channels)).astype(kind)
    b, r = (rng.standard_normal(shape).astype(kind) for shape in ((features,), (count, features)))
    pixel = channels * groups
    pixel, row, image = windows.pitches or (pixel, windows.x_shape[2] * pixel, math.prod(windows.x_shape[1:]))
    strides = [n * x.itemsize for n in (image, row, pixel, 1)]
    seen = np.lib.stride_tricks.as_strided(x, windows.x_shape, strides).astype(np.float64)
    of_groups = zip(np.split(seen, groups, axis=3), np.split(w.astype(np.float64), groups), strict=True)
    exact = np.concatenate([convolved(*group, windows) for group in of_groups], axis=3).reshape(count, features)
    return x, w, b, r, exact + b.astype(np.float64)


def convolved(x: np.ndarray, w: np.ndarray, windows: Windows) -> np.ndarray:
    """The convolution itself."""
    height, width = windows.corners
    padded = np.pad(x, ((0, 0), *zip(windows.begin, windows.end, strict=True), (0, 0)))
    y = np.zeros((len(x), height, width, len(w)))
    for r, s in np.ndindex(*windows.kernel):
        top, left = r * windows.dilations[0], s * windows.dilations[1]
        rows = slice(top, top + (height - 1) * windows.strides[0] + 1, windows.strides[0])
        columns = slice(left, left + (width - 1) * windows.strides[1] + 1, windows.strides[1])
        y += padded[:, rows, columns] @ w[:, r, s].T
    return y
