"""Activation functions and Clip on the emulated device."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.pointwise_bodies import check_calls, numbers

FLOATS = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
INTEGERS = (np.int64, np.int32, np.int8, np.uint64, np.uint16, np.uint8)
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 20.0, -20.0, 90.0, -90.0, 0.5, -0.5)
CALLS = [
    ("Relu", {}), ("LeakyRelu", {}), ("LeakyRelu", {"alpha": 0.3}), ("Elu", {}), ("Elu", {"alpha": 0.7}), ("Selu", {}),
    ("Selu", {"alpha": 2.0, "gamma": 3.0}), ("Celu", {}), ("Celu", {"alpha": 2.0}), ("Sigmoid", {}), ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.5, "beta": 0.6}), ("HardSwish", {}), ("Softplus", {}), ("Softsign", {}), ("ThresholdedRelu", {}),
    ("ThresholdedRelu", {"alpha": -0.5}), ("Shrink", {}), ("Shrink", {"bias": 0.3, "lambd": 1.0}), ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}), ("Mish", {}), ("Swish", {}), ("Swish", {"alpha": 1.7}),
    *((op, {"alpha": alpha}) for op in ("Elu", "Selu") for alpha in (np.inf, np.nan)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_of_floats(dtype):
    x = np.concatenate([numbers(dtype, (200,)), numbers(dtype, (100,), 0.1, seed=1), np.array(SPECIAL, dtype)])
    slope = numbers(dtype, x.shape, seed=2)
    pairs = [("PRelu", (0, 1), {}), ("SwiGLU", (0, 1), {}), ("SwiGLU", (0, 1), {"alpha": 0.5})]
    check_calls([x, slope], [*((op, (0,), attrs) for op, attrs in CALLS), *pairs])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_functions_of_integers(dtype):
    x, slope = numbers(dtype, (71,)), numbers(dtype, (71,), seed=1)
    shrinks = [("Shrink", (0,), {}), ("Shrink", (0,), {"bias": 1.5, "lambd": 2.5})] if np.dtype(dtype).itemsize < 8 else []
    check_calls([x, slope], [("Relu", (0,), {}), ("PRelu", (0, 1), {}), *shrinks])


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_clip_with_each_limit_left_out(dtype):
    x, low, high = numbers(dtype, (93,)), np.array(1, dtype), np.array([5], dtype)
    check_calls([x, low, high], [("Clip", (0, *limits), {}) for limits in ((), (1,), (1, 2), (None, 2), (2, 1))])


def test_clip_passes_not_a_number_on():
    x = np.array([np.nan, 1.0, -np.inf, np.inf, 0.3], np.float32)
    for low, high in ((0.0, 1.0), (np.nan, 1.0), (0.0, np.nan)):
        check_op("Clip", x, np.float32(low).reshape(()), np.float32(high).reshape(()))


@pytest.mark.parametrize("slope", [(3, 1, 1), (1,), (5,), (4, 5), (1, 3, 1, 1)])
def test_slopes_broadcast(slope):
    check_op("PRelu", numbers(np.float32, (2, 3, 4, 5)), numbers(np.float32, slope, seed=1))
