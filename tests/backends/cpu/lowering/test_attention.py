"""Attention over the rows that a cache holds, on the CPU beside its reference."""

from typing import Any

import numpy as np
import pytest

from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(
    "attrs", [{"is_causal": 1}, {"is_causal": 1, "left_window_size": 2}, {}, {"is_causal": 1, "softcap": 3.0}]
)
def test_slots_of_different_lengths(dtype: Any, attrs: dict[str, Any]) -> None:
    q, k, v = normal(3, 4, 2, 8, dtype=dtype), normal(3, 2, 9, 8, dtype=dtype), normal(3, 2, 9, 5, dtype=dtype)
    check_op("Attention", q, k, v, None, None, None, np.array([2, 9, 5]), tactic="by length", **attrs)


def test_slots_of_none_and_of_more_than_there_are() -> None:
    q, k = normal(3, 2, 2, 8), normal(3, 2, 4, 8)
    check_op("Attention", q, k, k, None, None, None, np.array([0, 12, 1]), is_causal=1, tactic="by length")


@pytest.mark.parametrize("shape", [(2, 6), (1, 1, 2, 6), (3, 1, 2, 6), (3, 4, 1, 6)])
def test_masks(shape: tuple[int, ...]) -> None:
    q, k = normal(3, 4, 2, 8), normal(3, 2, 6, 8)
    check_op("Attention", q, k, k, normal(*shape), None, None, np.array([2, 6, 5]), is_causal=1, tactic="by length")
    check_op("Attention", q, k, k, normal(*shape) > -1, None, None, np.array([2, 6, 5]), tactic="by length")


def test_heads_side_by_side() -> None:
    q, k = normal(2, 3, 32), normal(2, 6, 16)
    heads = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": 1}
    check_op("Attention", q, k, k, None, None, None, np.array([3, 5]), tactic="by length", **heads)


def test_other_forms_are_the_reference_s() -> None:
    q, k = normal(1, 2, 2, 8), normal(1, 2, 4, 8)
    check_op("Attention", q, k, k, tactic="reference", is_causal=1)
    check_op("Attention", q, k, k, normal(2, 3), None, None, np.array([4]), tactic="reference")
