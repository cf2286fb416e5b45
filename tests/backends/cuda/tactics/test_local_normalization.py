"""LRN and LpNormalization on the emulated device beside their references."""

import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.test_normalization import normal


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_local_response(size):
    check_op("LRN", normal(2, 6, 3, 4), size=size, alpha=0.1, beta=0.6, bias=1.5, tolerance=1e-5)
    check_op("LRN", normal(2, 6, 5), size=size)


@pytest.mark.parametrize("p", [1, 2])
def test_norms(p):
    for axis in (0, 1, -1):
        check_op("LpNormalization", normal(3, 4, 5), axis=axis, p=p, tolerance=5e-6)
    x = normal(3, 8, dtype=np.float16)
    x[1] = 0
    check_op("LpNormalization", x, p=p)


def test_empty_tensors():
    empty = np.zeros((0, 4, 3, 2), np.float32)
    check_op("LRN", empty, size=3)
    check_op("LpNormalization", empty)


def test_indices_of_64_bits(wide_indices):
    x = normal(2, 4, 6)
    check_op("LRN", x, size=3, tolerance=1e-5)
    check_op("LpNormalization", x, axis=1, tolerance=1e-5)
