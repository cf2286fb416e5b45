"""LinearAttention on the emulated device."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Array
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic

RULES = ("linear", "gated", "delta", "gated_delta")


def make(*shape: int, dtype: Any = np.float32, scale: float = 0.5) -> Array:
    return (scale * np.random.default_rng(shape).standard_normal(shape)).astype(dtype)


def operands(
    rule: str,
    length: int,
    size: int,
    columns: int,
    group: int = 1,
    *,
    past: Any = None,
    wide: bool = True,
    dtype: Any = np.float32,
) -> list[Any]:
    """Of two batches and three heads; ``past``: the type of a past state, ``wide``: decay per element, beta per head."""
    heads = 3
    return [
        make(2, length, heads * group * size, dtype=dtype),
        make(2, length, heads * size, dtype=dtype, scale=0.3),
        make(2, length, heads * columns, dtype=dtype),
        None if past is None else make(2, heads, size, columns, dtype=past),
        -np.abs(make(2, length, heads * (size if wide else 1), dtype=dtype)) if "gated" in rule else None,
        np.abs(make(2, length, heads if wide else 1, dtype=dtype)) if "delta" in rule else None,
    ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("past", [None, np.float32])
def test_rules(rule: str, wide: bool, past: Any) -> None:
    given = operands(rule, 6, 16, 24, 2, past=past, wide=wide)
    attrs: dict[str, Any] = {"q_num_heads": 6, "kv_num_heads": 3, "update_rule": rule}
    check_op("LinearAttention", *given, n_outputs=2, tolerance=1e-5, **attrs)


@pytest.mark.parametrize(("size", "columns"), [(1, 1), (5, 7), (100, 20), (300, 3)])
def test_sizes(size: int, columns: int) -> None:
    given = operands("gated_delta", 3, size, columns)
    check_op("LinearAttention", *given, n_outputs=2, tolerance=1e-5, q_num_heads=3, kv_num_heads=3, scale=0.25)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("past", [None, np.float32])
def test_types(dtype: Any, past: Any) -> None:
    given = operands("gated_delta", 4, 16, 24, past=past, dtype=dtype)
    attrs: dict[str, Any] = {"q_num_heads": 3, "kv_num_heads": 3}
    check_op("LinearAttention", *given, n_outputs=2, tolerance=1e-6 if dtype is np.float64 else None, **attrs)


def test_no_tokens_leave_the_state_as_it_was() -> None:
    given = operands("gated_delta", 0, 16, 24, past=np.float32)
    y, state = run_op("LinearAttention", *given, n_outputs=2, q_num_heads=3, kv_num_heads=3)
    assert y.shape == (2, 0, 72)
    np.testing.assert_array_equal(state, given[3])


def test_no_batches() -> None:
    given = [None if a is None else a[:0] for a in operands("gated_delta", 4, 16, 24, past=np.float32)]
    y, state = run_op("LinearAttention", *given, n_outputs=2, q_num_heads=3, kv_num_heads=3)
    assert y.shape == (0, 4, 72) and state.shape == (0, 3, 16, 24)


@pytest.mark.parametrize(("size", "keys"), [(16, (8, 32)), (300, (32, 8))])
def test_every_tactic_attends_when_it_is_forced(size: int, keys: tuple[int, int]) -> None:
    attrs: dict[str, Any] = {"q_num_heads": 3, "kv_num_heads": 3, "update_rule": "gated_delta", "scale": 0.25}
    found = check_every_tactic(
        *("LinearAttention", *operands("gated_delta", 3, size, 5)), n_outputs=2, target=Target(), tolerance=1e-5, **attrs
    )
    assert found == [f"columns by {n} threads" for n in keys]
