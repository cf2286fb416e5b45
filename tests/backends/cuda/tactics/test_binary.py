"""Arithmetic of several operands on the emulated device: every type, wrap-around, division by zero, NaN."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Rewrite
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.cuda.tactics.pointwise_bodies import check_calls, numbers
from tests.backends.nodes import assert_close, reference

FLOATS = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
INTEGERS = (np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8)
NAN, INF = np.nan, np.inf
LEFT = (NAN, 1.0, NAN, INF, -INF, 0.0, 5.0, -5.0, 5.0, -5.0, 5.5, -0.0, -1.0, 7.0, -7.0)
RIGHT = (1.0, NAN, NAN, -INF, 3.0, 0.0, 0.0, 3.0, -3.0, -3.0, -2.0, 2.0, INF, 7.0, 7.0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_arithmetic_of_floats(dtype):
    a = np.concatenate([numbers(dtype, (83,)), np.array(LEFT, dtype)])
    b = np.concatenate([numbers(dtype, (83,), seed=1), np.array(RIGHT, dtype)])
    c = numbers(dtype, a.shape, seed=2)
    pairs = [(op, (0, 1), {}) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Mod")]
    threes = [(op, (0, 1, 2), {}) for op in ("Max", "Min", "Sum", "Mean")]
    check_calls([a, b, c], [*pairs, *threes, ("Mod", (0, 1), {"fmod": 1}), ("Max", (0,), {}), ("Mean", (1,), {})])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_arithmetic_of_integers(dtype):
    info = np.iinfo(dtype)
    edges = np.array([info.min, info.max, 0, 1, info.max - 1, 7, 5, info.max // 2, info.min // 2], dtype)
    if info.min < 0:
        edges = np.concatenate([edges, np.array([-1, -7, -2, -3], dtype)])
    a, b = (g.reshape(-1).copy() for g in np.meshgrid(edges, edges))
    ops = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mod", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
    calls = [(op, (0, 1), {}) for op in ops]
    calls += [("Mod", (0, 1), {"fmod": 1}), ("Max", (0, 1, 0), {}), ("Sum", (0, 1, 1), {})]
    calls += [("BitShift", (0, 1), {"direction": d}) for d in ("LEFT", "RIGHT")]
    check_calls([a, b], calls)


def test_more_bits_than_there_are_leave_the_fill():
    x, y = np.array([-5, 5, -5, 5], np.int8), np.array([8, 8, 100, 100], np.int8)
    check_calls([x, y], [("BitShift", (0, 1), {"direction": d}) for d in ("LEFT", "RIGHT")])


@pytest.mark.parametrize("base", [*FLOATS, np.int32, np.int64, np.uint8])
def test_powers_of_mixed_types(base):
    x = np.array([0, 1, 2, 3, 5, 7, 2, 3], base) if np.dtype(base).kind in "iu" else numbers(np.float32, (8,)).astype(base)
    exponents = [
        np.array([0, 1, 2, 3, 4, 5, 6, 3], d) for d in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8)
    ]
    calls = [("Pow", (0, i), {}) for i in range(1, 7)]
    constants = [("Pow", (0, np.array(e, np.float32)), {}) for e in (0.5, 1.0, 2.0, 3.0, 4.0)]
    check_calls(
        [x, *exponents],
        [*calls, *constants],
        tolerance=1e-2 if base is ml_dtypes.bfloat16 else 2e-3 if base is np.float16 else 1e-5,
    )


def test_powers_of_zero_and_infinity():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 4.0, -4.0], np.float32)
    check_calls([x], [("Pow", (0, np.array([e], np.float32)), {}) for e in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.5, 2.0, 3.0)])


def test_a_negative_exponent_of_integers():
    check_op("Pow", np.array([1, 2, -1, 3], np.int32), np.array([-1, -2, -3, 2], np.int32))


def test_a_known_exponent_needs_no_pow():
    x, two = numbers(np.float32, (9,)), np.array(2.0, np.float32)
    assert_close(run_op("Pow", x, two, constants=(1,))[0], x * x)
    assert_close(
        run_op("Pow", x, np.array([2.5], np.float32), constants=(1,))[0], reference("Pow", x, np.array([2.5], np.float32))[0]
    )


@pytest.mark.parametrize("op", ["Sum", "Max", "Mean"])
def test_more_operands_than_a_kernel_reads(op):
    operands = [numbers(np.float32, (3, 5), seed=i) for i in range(70)]
    assert isinstance(lower_op(op, *operands), Rewrite)
    check_op(op, *operands, tolerance=1e-5, instead=["Sum", "Div"] if op == "Mean" else None)
