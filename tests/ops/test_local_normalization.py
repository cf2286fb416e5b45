"""LRN and LpNormalization."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

X = np.random.default_rng(7).normal(0, 5, (2, 7, 2, 3))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_lrn(dtype, size):
    x = array(X, dtype)
    y = run("LRN", x, size=size, alpha=0.2, beta=0.5, bias=2.0).astype(np.float64)
    wide = x.astype(np.float64)
    for c in range(7):
        first, last = max(0, c - (size - 1) // 2), min(6, c + size // 2)
        total = (wide[:, first : last + 1] ** 2).sum(axis=1)
        np.testing.assert_allclose(y[:, c], wide[:, c] / (2 + 0.2 / size * total) ** 0.5, rtol=4 * FLOATS[dtype])


def test_lrn_defaults():
    x = X.astype(np.float32)
    np.testing.assert_allclose(run("LRN", x, size=1), x / (1 + 1e-4 * x**2) ** 0.75, rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [-1, 0])
def test_lp_normalization(dtype, p, axis):
    x = array(X[:, :, 0, 0], dtype)
    wide = x.astype(np.float64)
    expected = wide / np.linalg.norm(wide, ord=p, axis=axis, keepdims=True)
    for compute in (run, run_expanded):
        result = compute("LpNormalization", x, p=p, axis=axis).astype(np.float64)
        np.testing.assert_allclose(result, expected, rtol=4 * FLOATS[dtype])


def test_a_row_of_zeros_stays():
    x = np.array([[0, 0], [3, 4]], np.float32)
    for compute in (run, run_expanded):
        np.testing.assert_allclose(compute("LpNormalization", x), [[0, 0], [0.6, 0.8]], rtol=1e-6)


def test_shapes_and_what_is_refused():
    x = TensorType(DType.F32, (symbol("n"), 4, 8))
    assert infer("LRN", x, size=3) == x
    assert infer("LpNormalization", x) == x
    with pytest.raises(ModelError, match="LRN size is 0"):
        infer("LRN", x, size=0)
    with pytest.raises(ModelError, match="rank 2 or more"):
        infer("LRN", X[0, 0, 0], size=3)
    with pytest.raises(ModelError, match="LpNormalization p is 3"):
        infer("LpNormalization", x, p=3)
    with pytest.raises(ModelError, match="LpNormalization axis 3 is outside"):
        infer("LpNormalization", x, axis=3)
