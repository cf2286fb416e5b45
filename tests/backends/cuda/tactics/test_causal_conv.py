"""CausalConvWithState, and the state it leaves."""

from typing import Any

import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.test_convolution import BF16, normal

OP = "CausalConvWithState"
LIMITS = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_with_and_without_bias_and_state(length: int, activation: str) -> None:
    x, w, b, state = normal(2, 6, length), normal(6, 1, 4), normal(6), normal(2, 6, 3)
    options = {"activation": activation, "n_outputs": 2, "tolerance": 1e-5}
    check_op(OP, x, w, b, state, **options)
    check_op(OP, x, w, None, state, **options)
    check_op(OP, x, w, b, None, **options)
    check_op(OP, x, w, **options)


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float64])
def test_types(dtype: Any) -> None:
    inputs = [normal(*s, dtype=dtype) for s in ((1, 40, 30), (40, 1, 3), (40,), (1, 40, 2))]
    check_op(OP, *inputs, activation="swish", n_outputs=2, tolerance=LIMITS[inputs[0].dtype.name])


def test_a_kernel_of_one_has_no_state() -> None:
    check_op(OP, normal(2, 3, 4), normal(3, 1, 1), n_outputs=2, tolerance=1e-5)
    check_op(OP, normal(0, 3, 4), normal(3, 1, 2), n_outputs=2)


def test_wide_indices(wide_indices: None) -> None:
    check_op(OP, normal(2, 6, 5), normal(6, 1, 4), normal(6), normal(2, 6, 3), n_outputs=2, tolerance=1e-5)
