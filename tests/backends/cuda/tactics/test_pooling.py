"""MaxPool, AveragePool, LpPool and the channels-last forms."""

from typing import Any

import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.test_convolution import BF16, normal

WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 2, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [2, 1, 0, 3]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [4, 2], "strides": [3, 2], "auto_pad": "SAME_LOWER"},
]
HALF_OR_MORE = [np.float32, np.float16, BF16, np.float64]


def tolerance(dtype: Any) -> float | None:
    return 1e-5 if dtype == np.float32 else None


@pytest.mark.parametrize("attrs", WINDOWS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_channels_first(op: str, attrs: dict[str, Any]) -> None:
    check_op(op, normal(2, 3, 11, 10), tolerance=1e-5, **attrs)


@pytest.mark.parametrize("channels", [16, 6, 5])
@pytest.mark.parametrize("op", ["MaxPoolNHWC", "AveragePoolNHWC"])
def test_channels_last(op: str, channels: int) -> None:
    for attrs in WINDOWS:
        check_op(op, normal(2, 11, 10, channels), domain="miniinfer", tolerance=1e-5, **attrs)


@pytest.mark.parametrize("dtype", HALF_OR_MORE)
@pytest.mark.parametrize("op", ["MaxPoolNHWC", "AveragePoolNHWC"])
def test_types(op: str, dtype: Any) -> None:
    check_op(op, normal(1, 7, 8, 16, dtype=dtype), domain="miniinfer", tolerance=tolerance(dtype), **WINDOWS[1])


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float32])
@pytest.mark.parametrize(
    "attrs", [*WINDOWS, {"kernel_shape": [3, 3]}, {"kernel_shape": [1, 2], "strides": [3, 1], "pads": [0, 1, 0, 0]}]
)
def test_maxima_of_held_windows(dtype: Any, attrs: dict[str, Any]) -> None:
    """Windows of up to nine neighbours that all hold something are held by a thread; NaN and infinities among them."""
    x = normal(2, 11, 10, 24, dtype=dtype)
    x[0, 0, 0, 3] = x[1, 5, 5] = np.nan
    x[0, 10, 9] = -np.inf
    x[1, 3, 2] = np.inf
    check_op("MaxPoolNHWC", x, domain="miniinfer", by="pool" if "dilations" in attrs else "max pool", **attrs)


def test_windows_of_padding_alone_are_not_held() -> None:
    attrs = {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [3, 3, 3, 3]}
    check_op("MaxPoolNHWC", normal(1, 7, 8, 8, dtype=np.float16), domain="miniinfer", by="pool", **attrs)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_bytes(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (2, 5, 9, 8)).astype(dtype)
    check_op("MaxPool", x, **WINDOWS[1])
    check_op("MaxPool", x, n_outputs=2, **WINDOWS[1])
    check_op("MaxPoolNHWC", x, domain="miniinfer", **WINDOWS[2])


@pytest.mark.parametrize("storage_order", [0, 1])
@pytest.mark.parametrize("attrs", WINDOWS)
def test_indices(attrs: dict[str, Any], storage_order: int) -> None:
    x = np.round(normal(2, 3, 11, 10) * 2)  # with equal values in a window
    check_op("MaxPool", x, n_outputs=2, storage_order=storage_order, **attrs)


def test_indices_of_three_axes() -> None:
    check_op("MaxPool", normal(2, 2, 5, 6, 7), kernel_shape=[2, 3, 2], pads=[1, 1, 1, 0, 1, 1], n_outputs=2, storage_order=1)


def test_windows_of_padding_and_nan() -> None:
    attrs = {"kernel_shape": [2, 2], "dilations": [1, 1], "strides": [3, 3], "pads": [3, 3, 3, 3]}
    x = normal(1, 2, 7, 8)
    x[0, 0, 1, 1] = x[0, 1, 6, 6] = np.nan
    x[0, 1, 4, 4] = np.inf
    for op in ("MaxPool", "AveragePool", "LpPool"):
        check_op(op, x, tolerance=1e-5, **attrs)
    check_op("MaxPool", x, n_outputs=2, **attrs)


@pytest.mark.parametrize("include", [0, 1])
def test_counting_of_padding(include: int) -> None:
    for attrs in WINDOWS:
        check_op("AveragePool", normal(2, 3, 11, 10), tolerance=1e-5, count_include_pad=include, **attrs)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_norms(p: int, dtype: Any) -> None:
    check_op("LpPool", normal(2, 3, 11, 10, dtype=dtype), p=p, tolerance=2e-3 if dtype == np.float16 else 1e-5, **WINDOWS[1])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_one_and_three_axes(op: str) -> None:
    check_op(op, normal(2, 3, 17), tolerance=1e-5, kernel_shape=[4], strides=[3], pads=[1, 2])
    check_op(op, normal(2, 3, 5, 6, 7), tolerance=1e-5, kernel_shape=[2, 3, 2], strides=[2, 1, 2])


def test_nothing_to_write() -> None:
    check_op("MaxPool", normal(0, 3, 7, 8), kernel_shape=[2, 2])
    check_op("MaxPoolNHWC", normal(2, 7, 8, 0), domain="miniinfer", kernel_shape=[2, 2])


def test_several_blocks() -> None:
    check_op("MaxPoolNHWC", normal(2, 20, 20, 64), domain="miniinfer", **WINDOWS[1])


def test_wide_indices(wide_indices: None) -> None:
    x = normal(2, 20, 20, 64)
    check_op("MaxPoolNHWC", x, domain="miniinfer", **WINDOWS[1])
    check_op("MaxPool", x[:, :3], n_outputs=2, **WINDOWS[1])
