"""Resize on the CPU beside its reference."""

from typing import Any

import numpy as np
import pytest

from tests.backends.cpu.lowering.one_node import check_op

X = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel"])
def test_whole_numbers_of_times(dtype: Any, mode: str) -> None:
    attrs: dict[str, Any] = {"coordinate_transformation_mode": mode, "nearest_mode": "round_prefer_floor"}
    if mode == "asymmetric":
        attrs["nearest_mode"] = "floor"
    x = X.astype(dtype)
    for scales in ([1, 2, 2, 1], [1, 1, 1, 1], [3, 1, 2, 1]):
        check_op("Resize", x, None, np.asarray(scales, np.float32), constants=(2,), tactic="repeated", **attrs)
    check_op("Resize", x, None, None, np.asarray([6, 8]), constants=(3,), axes=[1, 2], tactic="repeated", **attrs)
    check_op("Resize", x[:, :0], None, np.asarray([1, 2, 2, 1], np.float32), constants=(2,), tactic="repeated", **attrs)


@pytest.mark.parametrize(
    ("scales", "attrs"),
    [
        ([1, 1, 2, 2], {}),  # along the last axis
        ([1, 1, 1.5, 1], {}),
        ([1, 1, 0.5, 1], {}),
        ([1, 1, 2, 1], {"mode": "linear"}),
        ([1, 1, 3, 1], {"coordinate_transformation_mode": "align_corners"}),
        ([1, 1, 2, 1], {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil"}),
    ],
)
def test_what_is_left_to_the_reference(scales: list[float], attrs: dict[str, Any]) -> None:
    check_op("Resize", X, None, np.asarray(scales, np.float32), constants=(2,), tactic="reference", tolerance=1e-5, **attrs)


def test_crops_are_left_to_the_reference() -> None:
    crops = np.asarray([0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    scales = np.asarray([1, 2, 2, 1], np.float32)
    attrs = {"coordinate_transformation_mode": "tf_crop_and_resize"}
    check_op("Resize", X, crops, scales, constants=(1, 2), tactic="reference", tolerance=1e-5, **attrs)
