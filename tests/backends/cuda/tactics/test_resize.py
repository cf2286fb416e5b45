"""Resize."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Copy, Launch, Lowered
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.lowered import lower_op

F32 = np.float32
PLACES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"]
MODES = ["nearest", "linear", "cubic"]


def image(shape, dtype=np.float32):
    r = np.random.default_rng(0).random(shape)
    if "int" in np.dtype(dtype).name and np.dtype(dtype).itemsize * 8 > 4:
        return (r * 255 - (0 if np.dtype(dtype).name.startswith("u") else 128)).astype(dtype)
    return (r * 2 - 0.5).astype(dtype)


def scales(*factors):
    return None, np.array(factors, F32)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest(place, rounding):
    options = {"coordinate_transformation_mode": place, "nearest_mode": rounding}
    check_op("Resize", image((2, 3, 5, 7)), *scales(1, 1, 2, 2.5), **options)
    check_op("Resize", image((2, 5, 7, 4)), *scales(1, 0.6, 1.3, 1), **options)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("more", [{}, {"antialias": 1}, {"exclude_outside": 1}])
def test_weighted(place, mode, more):
    options = {"coordinate_transformation_mode": place, "mode": mode, **more}
    check_op("Resize", image((2, 3, 5, 7)), *scales(1, 1, 2, 2.5), **options)
    check_op("Resize", image((2, 5, 7, 4)), *scales(1, 0.6, 0.3, 1), **options)  # channels last
    check_op("Resize", image((2, 1, 4, 5, 6)), None, None, np.array([2, 1, 8, 3, 12]), **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "dtype", [np.float16, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.uint8, np.int8, np.int32, np.uint64]
)
def test_every_type(mode, dtype):
    check_op("Resize", image((2, 3, 5, 8), dtype), *scales(1, 1, 2, 2), mode=mode)
    check_op("Resize", image((2, 4, 6, 8), dtype), *scales(1, 2, 0.5, 1), mode=mode)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.bool_, ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_nearest_moves_every_type(dtype):
    check_op("Resize", image((3, 5, 4), dtype), *scales(2, 1, 2))
    check_op("Resize", image((3, 5, 16), dtype), *scales(2, 1.5, 1))


def test_of_four_bits_the_low_ones_stay():
    x = np.array([[-8, 7, -8, 7, 7, 7, -8]]).astype(ml_dtypes.int4)
    check_op("Resize", x, *scales(1, 3), mode="cubic")


@pytest.mark.parametrize("mode", MODES)
def test_crops(mode):
    options = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.5}
    check_op("Resize", image((2, 3, 5, 8)), np.array([0.2, 0.3, 0.8, 1.4], F32), None, np.array([6, 7]), axes=[2, 3], **options)
    check_op(
        "Resize",
        image((5, 8, 3), np.float16),
        np.array([-0.2, 0.3, 0.8, 1.4], F32),
        None,
        np.array([6, 7]),
        axes=[0, 1],
        **options,
    )


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_kept_aspect(policy):
    for mode in MODES:
        x = image((2, 3, 5, 8))
        check_op("Resize", x, None, None, np.array([9, 20]), mode=mode, axes=[2, 3], keep_aspect_ratio_policy=policy)


def test_axes_apart_out_of_order_and_alone():
    check_op("Resize", image((3, 5, 4)), *scales(2, 1, 2), mode="linear")
    check_op("Resize", image((3, 5, 4)), *scales(2, 3), mode="linear", axes=[2, 0])
    check_op("Resize", image((7,)), *scales(2), mode="cubic")
    check_op("Resize", image((2, 3, 4, 5, 6)), *scales(1, 2, 2, 2, 2), mode="nearest")  # four neighbours


def test_many_taps():
    check_op("Resize", image((1, 2, 150, 200)), *scales(1, 1, 0.1, 0.1), mode="cubic", antialias=1)


def test_nothing_and_no_change():
    check_op("Resize", image((0, 7)), *scales(2, 2))
    check_op("Resize", image((3, 7)), None, None, np.array([3, 0]))
    check_op("Resize", image((3, 7)), *scales(1, 1), mode="linear")


def test_wide_indices(wide_indices):
    for mode in MODES:
        check_op("Resize", image((2, 3, 5, 8)), *scales(1, 1, 2, 2), mode=mode)


def test_two_axes_take_one_launch_without_scratch():
    for mode in MODES:
        for shape, factors in (((1, 8, 16, 16), (1, 1, 2, 2)), ((1, 16, 16, 8), (1, 2, 2, 1))):
            lowered = lower_op("Resize", image(shape), *scales(*factors), mode=mode, constants=(2,))
            assert isinstance(lowered, Lowered) and not lowered.scratch
            (launch,) = lowered.actions
            assert isinstance(launch, Launch)
    same = lower_op("Resize", image((2, 3)), *scales(1, 1), constants=(2,))
    assert isinstance(same, Lowered) and isinstance(same.actions[0], Copy)


def test_late_scales_are_not_ours():
    assert lower_op("Resize", image((2, 4)), *scales(2, 2)) is None


@pytest.mark.parametrize(
    ("attrs", "sizes", "keys"),
    [
        ({"mode": "linear"}, (9, 15), ["one pass", "2 passes"]),
        ({"mode": "nearest"}, (9, 15), ["one pass", "2 passes"]),
        ({"mode": "cubic", "antialias": 1}, (3, 15), ["2 passes", "one pass"]),
    ],
    ids=["few taps", "nearest", "many taps"],
)
def test_every_tactic_resizes_when_it_is_forced(attrs, sizes, keys):
    x, wanted = np.random.default_rng(3).standard_normal((1, 2, 6, 7)).astype(np.float32), np.array([1, 2, *sizes])
    found = check_every_tactic("Resize", x, None, None, wanted, constants=(3,), target=Target(), tolerance=1e-5, **attrs)
    assert found == [f"resize in {key}" for key in keys]
