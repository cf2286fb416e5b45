"""MaxUnpool, Col2Im."""

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op


def random(shape, dtype=np.float32, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 20).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("out", [None, (2, 2, 9, 9), (2, 2, 6, 8), (3, 2, 5, 9)])
def test_unpool(dtype, out):
    # Counted from the end too, and several that go to the same place: the last stays.
    indices = np.random.default_rng(1).integers(-100, 2 * 2 * 6 * 8, (2, 2, 3, 4))
    shape = [] if out is None else [np.array(out)]
    check_op("MaxUnpool", random((2, 2, 3, 4), dtype), indices, *shape, kernel_shape=[2, 2], strides=[2, 2])


def test_unpool_of_one_axis_with_pads():
    indices = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    check_op("MaxUnpool", random((2, 3, 4)), indices, kernel_shape=[3], strides=[2], pads=[1, 0])


def test_unpool_of_nothing():
    check_op("MaxUnpool", random((0, 2, 3)), np.zeros((0, 2, 3), np.int64), kernel_shape=[2], strides=[2])


def columns(image, block, dtype=np.float32, **attrs):
    """A test of Col2Im for these sizes."""
    axes = len(image)
    step, gap, pad = attrs.get("strides", [1] * axes), attrs.get("dilations", [1] * axes), attrs.get("pads", [0] * 2 * axes)
    counts = [
        (s + pad[i] + pad[axes + i] - gap[i] * (k - 1) - 1) // step[i] + 1
        for i, (s, k) in enumerate(zip(image, block, strict=True))
    ]
    x = random((2, 3 * int(np.prod(block)), int(np.prod(counts))), dtype)
    check_op("Col2Im", x, np.array(image), np.array(block), tolerance=None if dtype != np.float32 else 1e-5, **attrs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int32, np.uint8, np.bool_])
def test_col2im_of_every_type(dtype):
    columns((5, 6), (2, 3), dtype)


@pytest.mark.parametrize(
    ("image", "block", "attrs"),
    [
        ((5, 5), (1, 5), {}),
        ((6, 7), (3, 2), {"strides": [2, 3]}),
        ((6, 7), (3, 2), {"dilations": [1, 3], "pads": [1, 0, 2, 3]}),
        ((6, 7), (3, 2), {"strides": [2, 1], "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        ((9,), (3,), {"strides": [2]}),
        ((3, 4, 5), (1, 2, 5), {"pads": [0, 1, 0, 0, 0, 1]}),
    ],
)
def test_col2im_geometry(image, block, attrs):
    columns(image, block, **attrs)


def test_wide_indices(wide_indices):
    columns((5, 6), (2, 3))
    check_op("MaxUnpool", random((1, 1, 2)), np.array([[[3, 0]]]), kernel_shape=[2], strides=[2])


def test_complex_columns_are_not_ours():
    x = np.zeros((1, 4, 4), np.complex64)
    assert lower_op("Col2Im", x, np.array([3, 3]), np.array([2, 2]), constants=(1, 2)) is None
