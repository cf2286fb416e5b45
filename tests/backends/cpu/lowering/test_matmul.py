"""MatMul and Gemm on the CPU beside their references."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cpu.lowering.one_node import check_op


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("constants", [(), (1,)])
def test_matmul_of_every_float(dtype: Any, constants: tuple[int, ...]) -> None:
    check_op("MatMul", normal(5, 7, dtype=dtype), normal(7, 6, dtype=dtype), constants=constants, tactic="gemm")


@pytest.mark.parametrize(
    ("a", "b", "tactic"),
    [
        ((2, 5, 7), (7, 6), "gemm"),
        ((2, 3, 5, 7), (7, 6), "gemm"),
        ((2, 5, 7), (2, 7, 6), "batched gemm"),
        ((2, 1, 5, 7), (3, 7, 6), "batched gemm"),
        ((5, 7), (2, 7, 6), "batched gemm"),
        ((0, 7), (7, 6), "gemm"),
        ((5, 0), (0, 6), "gemm"),
        ((7,), (7, 6), "reference"),
        ((5, 7), (7,), "reference"),
    ],
)
def test_matmul_of_every_shape(a: tuple[int, ...], b: tuple[int, ...], tactic: str) -> None:
    check_op("MatMul", normal(*a), normal(*b), tactic=tactic)


def test_products_of_integers_are_the_reference_s() -> None:
    check_op("MatMul", np.arange(6, dtype=np.int32).reshape(2, 3), np.ones((3, 2), np.int32), tactic="reference")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm_of_transposes(dtype: Any, trans_a: int, trans_b: int) -> None:
    a, b = normal(5, 7, dtype=dtype), normal(7, 6, dtype=dtype)
    a, b = np.ascontiguousarray(a.T) if trans_a else a, np.ascontiguousarray(b.T) if trans_b else b
    for constants in ((), (1, 2)):
        check_op(
            "Gemm",
            a,
            b,
            normal(6, dtype=dtype),
            constants=constants,
            transA=trans_a,
            transB=trans_b,
            alpha=0.5,
            beta=2.0,
            tactic="gemm",
        )


@pytest.mark.parametrize("shape", [(6,), (5, 1), (5, 6), (1,), ()])
def test_gemm_with_a_sum_of_every_shape(shape: tuple[int, ...]) -> None:
    check_op("Gemm", normal(5, 7), normal(7, 6), normal(*shape), tactic="gemm")
    check_op("Gemm", normal(5, 7), normal(7, 6), normal(*shape), beta=0.0, tactic="gemm")


def test_gemm_without_a_sum_and_of_integers() -> None:
    check_op("Gemm", normal(5, 7), normal(7, 6), tactic="gemm")
    check_op("Gemm", np.arange(6, dtype=np.int32).reshape(2, 3), np.ones((3, 2), np.int32), tactic="reference")
