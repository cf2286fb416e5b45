"""Operations of one operand on the emulated device: every type, special values."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.pointwise_bodies import check_calls, numbers

FLOATS = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
INTEGERS = (np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8)
ON_FLOATS = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Neg",
    "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Tan", "Tanh", "IsNaN", "IsInf", "Identity",
)  # fmt: skip
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 1.0, -1.0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_of_floats(dtype):
    x = np.concatenate([numbers(dtype, (301,), 2.0), np.array(SPECIAL, dtype), numbers(dtype, (30,), 0.3, seed=1)])
    signs = [("IsInf", (0,), {"detect_negative": n, "detect_positive": p}) for n, p in ((0, 1), (1, 0), (0, 0))]
    check_calls([x], [*((op, (0,), {}) for op in ON_FLOATS), *signs])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_functions_of_integers(dtype):
    check_calls([numbers(dtype, (67,))], [(op, (0,), {}) for op in ("Abs", "Neg", "Sign", "BitwiseNot")])


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"])
def test_tests_of_8_bit_floats(name):
    every = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, name))
    check_calls([every], [("IsNaN", (0,), {}), ("IsInf", (0,), {})])


def test_truth_values():
    check_op("Not", numbers(np.bool_, (5, 7)))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1)])
def test_sizes_of_no_and_one_element(shape):
    check_op("Exp", np.ones(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.bool_, np.complex128, ml_dtypes.int4])
@pytest.mark.parametrize("shape", [(3, 5), (0, 3)])
def test_identity_is_no_work(dtype, shape):
    x = np.ones(shape, dtype)
    (got,) = run_op("Identity", x, instead=())
    np.testing.assert_array_equal(got, x)
