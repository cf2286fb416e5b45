"""ConvInteger by constant weights on the CPU beside its reference: every sum exact."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.lowering.quantized_conv import stays_exact
from miniinfer_cli.ops.convolve_winograd import turned_weights
from tests.backends.cpu.lowering.one_node import check_op


def whole(*shape: int, dtype: Any = np.uint8) -> Any:
    limits = np.iinfo(dtype)
    return np.random.default_rng(shape).integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("x", [np.uint8, np.int8])
@pytest.mark.parametrize("w", [np.uint8, np.int8])
@pytest.mark.parametrize("points", [(), (3,), (3, 5)])
def test_every_type(x: Any, w: Any, points: tuple[int, ...]) -> None:
    zeros = [np.asarray(p, t) for p, t in zip(points, (x, w), strict=False)]
    check_op("ConvInteger", whole(2, 3, 6, 5, dtype=x), whole(4, 3, 3, 2, dtype=w), *zeros, constants=(1, 3), tactic="exact conv")


@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((1, 3, 7), (4, 3, 3), {}),
        ((1, 3, 6, 6), (4, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((1, 3, 6, 6), (4, 3, 1, 1), {"strides": [2, 2]}),
        ((1, 2, 9, 9), (3, 2, 3, 3), {"dilations": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((1, 2, 4, 4, 4), (3, 2, 2, 2, 2), {}),
        ((0, 3, 6, 6), (4, 3, 3, 3), {}),
    ],
)
def test_every_window(x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any]) -> None:
    zero = np.asarray(7, np.uint8)
    check_op("ConvInteger", whole(*x), whole(*w, dtype=np.int8), zero, constants=(1,), tactic="exact conv", **attrs)


def test_zero_points_of_features() -> None:
    zeros = (np.asarray([3], np.uint8), np.arange(4, dtype=np.uint8))
    check_op("ConvInteger", whole(1, 3, 6, 5), whole(4, 3, 3, 2), *zeros, constants=(1, 3), tactic="exact conv")


def test_sums_beyond_what_f32_holds() -> None:
    x, w = np.full((1, 200, 3, 3), 255, np.uint8), np.full((2, 200, 3, 3), 255, np.uint8)
    w[0, 0, 0, 0] = 254
    check_op("ConvInteger", x, w, constants=(1,), tactic="exact conv", pads=[1, 1, 1, 1])


def test_what_is_left_to_the_reference() -> None:
    x, w, zero = whole(1, 4, 6, 5), whole(4, 2, 3, 2), np.asarray(3, np.uint8)
    check_op("ConvInteger", x, w, zero, constants=(1,), tactic="reference", group=2)
    check_op("ConvInteger", whole(1, 2, 6, 5), w, zero, tactic="reference")
    check_op("ConvInteger", whole(1, 2, 6, 5), w, zero, zero, constants=(1,), tactic="reference")


@pytest.mark.parametrize("zero", [None, 0, 131, 255])
def test_fewer_multiplications_are_exact(zero: int | None) -> None:
    x, w = whole(1, 32, 11, 14), (whole(40, 32, 3, 3) // 4 + 96).astype(np.uint8)
    points = [np.asarray(p, np.uint8) for p in (() if zero is None else (zero, 128))]
    constants = (1,) if zero is None else (1, 3)
    signed = w if zero is not None else (w.astype(np.int16) - 128).astype(np.int8)
    attrs = {"pads": [1, 1, 1, 1]}
    check_op("ConvInteger", x, signed, *points, constants=constants, tactic="exact winograd", **attrs)
    x[:] = 255
    check_op("ConvInteger", x, signed, *points, constants=constants, tactic="exact winograd", **attrs)


def test_where_fewer_multiplications_might_not_be_exact_there_are_all() -> None:
    x = np.where(np.indices((1, 64, 12, 12)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    w = np.where(np.indices((64, 64, 3, 3))[2:].sum(axis=0) % 2, 127, -128).astype(np.int8)
    check_op("ConvInteger", x, w, constants=(1,), tactic="exact conv", pads=[1, 1, 1, 1])


def test_what_is_exact_is_told_by_the_largest_sums() -> None:
    """Weights of one size g in 64 channels: two products of a column are within 64 g (4 * 1.5 * 510 + 4 * 2.25 * 1020)."""
    for size in (21, 22):
        w = np.full((1, 3, 3, 64), size, np.float32)
        assert stays_exact(turned_weights(4 * w), w) == (64 * size * 12240 < 1 << 24)
    assert stays_exact(turned_weights(np.zeros((1, 3, 3, 4), np.float32)), np.zeros((1, 3, 3, 4), np.float32))
