"""Channels-last pooling on the CPU beside its references."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.ops.registry import OURS
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal

WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "dilations": [2, 1]},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
]


@pytest.mark.parametrize("attrs", WINDOWS)
def test_maxima(attrs: dict[str, Any]) -> None:
    for dtype in (np.float32, np.float64, np.float16, np.int8, np.uint8):
        x = (normal(2, 7, 8, 3) * 20).astype(np.int8).astype(dtype)
        check_op("MaxPoolNHWC", x, domain=OURS, tactic="shifted maxima", **attrs)


@pytest.mark.parametrize("attrs", WINDOWS)
@pytest.mark.parametrize("include", [0, 1])
def test_means(attrs: dict[str, Any], include: int) -> None:
    for dtype in (np.float32, np.float64):
        x = normal(2, 7, 8, 3, dtype=dtype)
        check_op("AveragePoolNHWC", x, domain=OURS, count_include_pad=include, tactic="shifted sums", **attrs)


def test_means_of_halves_are_the_reference_s() -> None:
    check_op("AveragePoolNHWC", normal(1, 4, 4, 2, dtype=np.float16), domain=OURS, kernel_shape=[2, 2], tactic="reference")
