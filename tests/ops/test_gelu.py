"""Gelu against the C library's complementary error function, tails included, and against its formula in tanh."""

import math
import time

import numpy as np
import pytest

from miniinfer_cli.ops.erf import erf_into
from miniinfer_cli.ops.gelu import gelu_into

POINTS = np.concatenate([np.linspace(-12, 12, 40001), *(s * 10.0 ** np.linspace(-30, 30, 2001) for s in (1, -1))])


def gelu(x, tanh=False):
    out = np.full_like(x, np.nan)
    with np.errstate(all="ignore"):
        gelu_into(x, out, np.full_like(x, np.nan), np.full_like(x, np.nan), tanh=tanh)
    return out


def exact(x, tanh=False):
    if tanh:
        turned = [1 + math.tanh(math.sqrt(2 / math.pi) * min(max(v + 0.044715 * v**3, -1e9), 1e9)) for v in x.tolist()]
    else:
        turned = [math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    return x.astype(np.float64) * np.array(turned) / 2


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize(("dtype", "relative"), [(np.float32, 1.5e-7), (np.float64, 5e-16)])
def test_error_beside_x(dtype, relative, tanh):
    x = POINTS.astype(dtype)
    error = np.abs(gelu(x, tanh) - exact(x.astype(np.float64), tanh))
    assert np.max(error / np.abs(x)) < relative


def test_small_results_of_negative_numbers_keep_their_digits():
    x = np.linspace(-3, -1e-3, 20001).astype(np.float32)
    np.testing.assert_allclose(gelu(x), exact(x.astype(np.float64)), rtol=1e-5)
    x = np.linspace(-5, -3, 20001).astype(np.float32)
    np.testing.assert_allclose(gelu(x), exact(x.astype(np.float64)), rtol=2e-2)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype, tanh):
    result = gelu(np.array([np.nan, np.inf, 0.0, -0.0], dtype), tanh)
    np.testing.assert_array_equal(result, np.array([np.nan, np.inf, 0, 0], dtype))
    assert np.signbit(result[3])
    assert not np.signbit(result[2])


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_in_place_and_into_a_strided_array(dtype, shape, tanh):
    x = np.array(np.random.default_rng(1).normal(0, 2, shape), dtype)
    expected = gelu(x, tanh)
    strided = np.zeros((*shape, 2), dtype)
    gelu_into(x, strided[..., 1], np.empty_like(x), np.empty_like(x), tanh=tanh)
    np.testing.assert_array_equal(strided[..., 1], expected)
    assert not strided[..., 0].any()
    gelu_into(x, x, np.empty_like(x), np.empty_like(x), tanh=tanh)
    np.testing.assert_array_equal(x, expected)


def test_it_takes_less_than_the_error_function():
    """By a good part: the sum of both would hide it if it were the old formula."""
    x = np.random.default_rng(2).standard_normal(1 << 16).astype(np.float32)
    out, square, inner = (np.empty_like(x) for _ in range(3))
    works = (lambda: gelu_into(x, out, square, inner), lambda: erf_into(x, out))
    best = [math.inf, math.inf]
    for _ in range(20):
        for number, work in enumerate(works):
            started = time.thread_time()
            work()
            best[number] = min(best[number], time.thread_time() - started)
    assert best[0] < best[1]  # 0.15 ms and 0.28 on an EPYC
