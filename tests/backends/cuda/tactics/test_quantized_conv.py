"""ConvInteger and QLinearConv, which are exact."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Array
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.test_convolution import BF16, normal


def whole(dtype: Any, *shape: int) -> Array:
    limits = np.iinfo(dtype)
    return np.random.default_rng(sum(shape)).integers(limits.min, limits.max + 1, shape).astype(dtype)


def scalar(value: float, dtype: Any) -> Array:
    return np.array(value, dtype)


@pytest.mark.parametrize("features", [20, 4])
@pytest.mark.parametrize(("x_type", "w_type"), [(np.uint8, np.int8), (np.int8, np.uint8)])
def test_integers(x_type: Any, w_type: Any, features: int) -> None:
    x, w = whole(x_type, 2, 3, 9, 8), whole(w_type, features, 3, 3, 2)
    check_op("ConvInteger", x, w)
    check_op("ConvInteger", x, w, scalar(100, x_type), scalar(3, w_type), pads=[1, 1, 1, 0], strides=[2, 1])
    check_op("ConvInteger", x, w, None, whole(w_type, features), dilations=[2, 1])


def test_groups_and_axes() -> None:
    check_op("ConvInteger", whole(np.uint8, 2, 4, 9, 8), whole(np.int8, 4, 1, 3, 3), scalar(7, np.uint8), group=4)
    check_op("ConvInteger", whole(np.uint8, 2, 4, 9), whole(np.int8, 40, 2, 3), scalar(7, np.uint8), group=2, pads=[1, 1])
    check_op("ConvInteger", whole(np.uint8, 0, 4, 9), whole(np.int8, 20, 4, 3))


def quantized(x_type: Any, y_type: Any, features: int, per_feature: bool, scale_type: Any = np.float32) -> list[Array | None]:
    count = (features,) if per_feature else ()
    w_zero = whole(np.int8, *count) // 30 if per_feature else scalar(-2, np.int8)
    w_scale = (np.abs(normal(features)) * 0.01).astype(scale_type) if per_feature else scalar(0.013, scale_type)
    return [
        whole(x_type, 2, 3, 9, 8),
        scalar(0.11, scale_type),
        scalar(90, x_type),
        whole(np.int8, features, 3, 3, 3),
        w_scale,
        w_zero,
        scalar(0.9, scale_type),
        scalar(20, y_type),
    ]


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("features", [20, 5])
@pytest.mark.parametrize(("x_type", "y_type"), [(np.uint8, np.uint8), (np.int8, np.int8), (np.uint8, np.int8)])
def test_requantized(x_type: Any, y_type: Any, features: int, per_feature: bool) -> None:
    operands = quantized(x_type, y_type, features, per_feature)
    check_op("QLinearConv", *operands, pads=[1, 1, 1, 1])
    check_op("QLinearConv", *operands, whole(np.int32, features) // (1 << 20), strides=[2, 2])


@pytest.mark.parametrize("scale_type", [np.float16, BF16])
def test_narrow_scales(scale_type: Any) -> None:
    check_op("QLinearConv", *quantized(np.uint8, np.uint8, 5, True, scale_type))


def test_sums_wrap_around_in_32_bits() -> None:
    operands = quantized(np.uint8, np.uint8, 5, False)
    check_op("QLinearConv", *operands, np.full(5, np.iinfo(np.int32).max, np.int32))


def test_wide_indices(wide_indices: None) -> None:
    check_op("QLinearConv", *quantized(np.uint8, np.uint8, 20, True), pads=[1, 1, 1, 1])


def test_every_tactic_convolves_when_it_is_forced() -> None:
    for features, keys in ((20, ["tiles 64x64", "direct"]), (5, ["direct", "tiles 64x64"])):
        x, w = whole(np.uint8, 2, 3, 9, 8), whole(np.int8, features, 3, 3, 2)
        assert check_every_tactic("ConvInteger", x, w, scalar(7, np.uint8), target=Target()) == keys
        operands = quantized(np.uint8, np.uint8, features, True)
        assert check_every_tactic("QLinearConv", *operands, pads=[1, 1, 1, 1], target=Target()) == keys
