"""GlobalAveragePool, GlobalMaxPool, GlobalLpPool and GlobalAveragePoolNHWC."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.test_convolution import BF16, normal

LIMITS = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("shape", [(2, 3, 9, 10), (1, 5, 300), (2, 2, 3, 4, 5), (2, 7), (3, 1, 1, 1)])
def test_shapes(op: str, shape: tuple[int, ...]) -> None:
    check_op(op, normal(*shape), tolerance=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float64])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_types(op: str, dtype: Any) -> None:
    x = normal(2, 3, 7, 8, dtype=dtype)
    check_op(op, x, tolerance=LIMITS[x.dtype.name])


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orders_of_norms(p: int, dtype: Any) -> None:
    x = normal(2, 3, 7, 8, dtype=dtype)
    check_op("GlobalLpPool", x, p=p, tolerance=LIMITS[x.dtype.name])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(1, 7, 7, 256), (2, 5, 6, 33), (1, 56, 40, 8), (2, 9, 4), (1, 2, 3, 4, 5), (2, 7)])
def test_channels_last(shape: tuple[int, ...], dtype: Any) -> None:
    x = normal(*shape, dtype=dtype)
    check_op("GlobalAveragePoolNHWC", x, domain="miniinfer", tolerance=LIMITS[x.dtype.name])


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_nothing_to_pool() -> None:
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        check_op(op, normal(2, 3, 0, 4))
        check_op(op, normal(0, 3, 2, 4))


def test_nan_is_the_maximum() -> None:
    x = normal(2, 3, 7, 8)
    x[1, 2, 3, 4] = np.nan
    check_op("GlobalMaxPool", x)


def test_every_tactic_pools_when_it_is_forced() -> None:
    x = normal(2, 20, 19, 5)
    keys = check_every_tactic("GlobalAveragePoolNHWC", x, domain="miniinfer", target=Target(), tolerance=1e-5)
    assert keys[:2] == ["reduce by 16 threads", "reduce by a thread"] and "reduce by a thread in 4 parts" in keys
