"""Softmax on the CPU beside its reference."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.lowering import softmax
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 1), (2, 3, 70), (0, 5)])
def test_rows(dtype: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    check_op("Softmax", normal(*shape, dtype=dtype) * 30, tactic="row groups")
    check_op("Softmax", normal(*shape, dtype=dtype), axis=len(shape) - 1, tactic="row groups")
    monkeypatch.setattr(softmax, "_GROUP", 10)
    check_op("Softmax", normal(*shape, dtype=dtype), tactic="row groups")


def test_rows_that_hold_infinities() -> None:
    x = normal(4, 6)
    x[1, 2], x[2], x[3, 0] = -np.inf, -np.inf, np.nan
    check_op("Softmax", x, tactic="row groups")


def test_other_forms_are_the_reference_s() -> None:
    check_op("Softmax", normal(3, 5), axis=0, tactic="reference")
    check_op("Softmax", normal(3, 5, dtype=np.float16), tactic="reference")
    check_op("Softmax", normal(3, 0), tactic="reference")
