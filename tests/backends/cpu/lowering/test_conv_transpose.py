"""ConvTransposeNHWC on the CPU beside its reference, by itself and with what follows it."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.ops import convolve_transposed
from miniinfer_cli.ops.registry import OURS
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("constants", [(), (1, 2)])
@pytest.mark.parametrize("strides", [(2, 2), (1, 2)])
def test_every_float(dtype: Any, constants: tuple[int, ...], strides: tuple[int, int]) -> None:
    x, w, b = normal(2, 4, 5, 8, dtype=dtype), normal(8, 2, 2, 3, dtype=dtype), normal(3, dtype=dtype)
    given = {"constants": constants, "strides": list(strides), "tolerance": 2e-2, "tactic": "taps as gemm"}
    check_op("ConvTransposeNHWC", x, w, b, domain=OURS, **given)


@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((2, 4, 5, 8), (8, 2, 2, 3), {"strides": [2, 2]}),
        ((2, 4, 5, 8), (8, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        ((1, 4, 5, 8), (8, 4, 4, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((1, 4, 5, 8), (8, 2, 2, 3), {"strides": [2, 2], "output_shape": [7, 9]}),
        ((1, 4, 5, 8), (8, 2, 3, 3), {"dilations": [2, 1]}),
        ((1, 4, 5, 8), (8, 2, 2, 2), {"strides": [2, 2], "group": 2}),
        ((2, 6, 4), (4, 3, 5), {"strides": [3]}),
        ((1, 3, 2, 4, 4), (4, 2, 1, 2, 3), {"strides": [2, 1, 2]}),
        ((0, 4, 5, 8), (8, 2, 2, 3), {"strides": [2, 2]}),
    ],
)
@pytest.mark.parametrize("band_nbytes", [1, 1 << 20])
def test_every_geometry(x: Any, w: Any, attrs: dict[str, Any], band_nbytes: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(convolve_transposed, "_BAND_NBYTES", band_nbytes)
    operands = normal(*x), normal(*w), normal(w[-1] * attrs.get("group", 1))
    check_op("ConvTransposeNHWC", *operands, domain=OURS, constants=(1, 2), tactic="taps as gemm", tolerance=1e-5, **attrs)
    check_op("ConvTransposeNHWC", *operands[:2], domain=OURS, constants=(1,), tactic="taps as gemm", tolerance=1e-5, **attrs)
