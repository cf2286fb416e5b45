"""ConvNHWC on the CPU beside its reference."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.ops.registry import OURS
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("constants", [(), (1, 2)])
def test_every_float(dtype: Any, constants: tuple[int, ...]) -> None:
    x, w, b = normal(2, 6, 5, 8, dtype=dtype), normal(10, 3, 3, 8, dtype=dtype), normal(10, dtype=dtype)
    check_op("ConvNHWC", x, w, b, domain=OURS, constants=constants, pads=[1, 1, 1, 1], tolerance=2e-2, tactic="conv as gemm")


@pytest.mark.parametrize(
    ("x", "w", "attrs", "tactic"),
    [
        ((2, 7, 8, 4), (6, 3, 3, 4), {"strides": [2, 2], "pads": [0, 1, 2, 1]}, "conv as gemm"),
        ((2, 9, 8, 4), (6, 3, 2, 4), {"dilations": [2, 3]}, "conv as gemm"),
        ((2, 7, 8, 4), (6, 1, 1, 4), {}, "conv as gemm"),
        ((2, 7, 8, 4), (6, 3, 3, 4), {"auto_pad": "SAME_LOWER"}, "conv as gemm"),
        ((2, 9, 4), (6, 3, 4), {}, "conv as gemm"),
        ((1, 4, 5, 6, 3), (6, 2, 2, 2, 3), {}, "conv as gemm"),
        ((2, 7, 8, 6), (4, 3, 3, 3), {"group": 2}, "grouped conv"),
        ((2, 7, 8, 6), (6, 3, 3, 1), {"group": 6}, "grouped conv"),
        ((0, 7, 8, 4), (6, 3, 3, 4), {}, "conv as gemm"),
    ],
)
def test_every_geometry(x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any], tactic: str) -> None:
    check_op("ConvNHWC", normal(*x), normal(*w), domain=OURS, tolerance=1e-5, tactic=tactic, **attrs)
