"""Sums, means and extremes on the CPU beside their references."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.ops.registry import OURS
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal

X = normal(3, 4, 5, 6)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_axes(op: str, keepdims: int) -> None:
    for axes in ([1], [0, -1], [2, 1], [0, 1, 2, 3]):
        check_op(op, X, np.asarray(axes), constants=(1,), keepdims=keepdims, tactic="fold")
    check_op(op, X, keepdims=keepdims, tactic="fold")
    check_op(op, X, np.asarray([], np.int64), constants=(1,), keepdims=keepdims, tactic="fold")
    check_op(op, X.astype(np.float64), np.asarray([1]), constants=(1,), keepdims=keepdims, tactic="fold")


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
def test_what_is_left_to_the_reference(op: str) -> None:
    one = np.asarray([1])
    check_op(op, X, np.asarray([], np.int64), constants=(1,), noop_with_empty_axes=1, tactic="reference")
    check_op(op, X.astype(np.float16), one, constants=(1,), tactic="reference")
    check_op(op, (X * 9).astype(np.int32), one, constants=(1,), tactic="reference")
    check_op(op, X[:, :0], one, constants=(1,), tactic="reference")


@pytest.mark.parametrize(("op", "domain"), [("GlobalAveragePool", ""), ("GlobalMaxPool", ""), ("GlobalAveragePoolNHWC", OURS)])
def test_global_pooling(op: str, domain: str) -> None:
    for x in (X, X[:, :, 0], X[:0]):
        check_op(op, x, domain=domain, tactic="fold")
    holes = X.copy()
    holes[0, 0, 0, 0] = np.nan
    check_op(op, holes, domain=domain, tactic="fold")
    check_op(op, X.astype(np.float16), domain=domain, tactic="reference")


def test_an_empty_image_has_no_mean() -> None:
    empty: Any = X[:, :, :0]
    check_op("GlobalAveragePool", empty, tactic="reference")
