"""MaxUnpool and Col2Im: back from pooling and from unfolding; shapes and refusals."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import infer, run, told

B, C, H, W = (symbol(n) for n in ("batch", "channels", "height", "width"))


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


def test_unpooling_puts_maxima_where_they_came_from():
    x = np.array([[[[1, 5], [2, 0]], [[0, 0], [0, 7]]]], np.float32)
    pooled, places = np.array([[[[5]], [[7]]]], np.float32), np.array([[[[1]], [[7]]]])
    expected = np.where(x == x.max(axis=(2, 3), keepdims=True), x, 0)
    equal(run("MaxUnpool", pooled, places, kernel_shape=[2, 2], strides=[2, 2]), expected)
    larger = np.zeros((1, 2, 3, 2), np.float32)
    larger[:, :, :2] = expected
    equal(run("MaxUnpool", pooled, places, told(1, 2, 3, 2), kernel_shape=[2, 2], strides=[2, 2]), larger)


def test_unpooled_shapes():
    x, places = TensorType(DType.F32, (B, C, H, 4)), TensorType(DType.I64, (B, C, H, 4))
    attrs = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}
    assert infer("MaxUnpool", x, places, **attrs) == TensorType(DType.F32, (B, C, 2 * H - 1, 8))
    assert infer("MaxUnpool", x, places, told(1, 2, 3, 4), kernel_shape=[1, 1]) == TensorType(DType.F32, (1, 2, 3, 4))
    assert len(infer("MaxUnpool", x, places, TensorType(DType.I64, (4,)), kernel_shape=[1, 1]).shape) == 4
    with pytest.raises(ModelError, match=r"kernel_shape \[2\]"):
        infer("MaxUnpool", x, places, kernel_shape=[2])
    with pytest.raises(ModelError, match=r"strides \[2\] or pads None do not fit"):
        infer("MaxUnpool", x, places, kernel_shape=[2, 2], strides=[2])
    with pytest.raises(ModelError, match="4 is not 5"):
        infer("MaxUnpool", x, TensorType(DType.I64, (B, C, H, 5)), kernel_shape=[1, 1])
    with pytest.raises(ModelError, match="does not fit input"):
        infer("MaxUnpool", x, places, told(1, 2), kernel_shape=[2, 2])
    with pytest.raises(ModelError, match="index 4 is outside"):
        run("MaxUnpool", np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 4), kernel_shape=[2, 2])


@pytest.mark.parametrize("dtype", ["float32", "int32", "bfloat16"])
@pytest.mark.parametrize(
    ("image", "block", "attrs"),
    [
        ((5, 6), (2, 3), {}),
        ((5, 6), (2, 2), {"strides": [2, 3], "dilations": [2, 1], "pads": [1, 0, 2, 1]}),
        ((4,), (3,), {"pads": [1, 1]}),
        ((3, 3, 4), (2, 1, 2), {"strides": [1, 2, 2]}),
    ],
)
def test_folding_adds_every_block_to_its_place(image, block, attrs, dtype):
    rank = len(image)
    strides, gaps = attrs.get("strides", [1] * rank), attrs.get("dilations", [1] * rank)
    pads = attrs.get("pads", [0] * 2 * rank)
    counts = [(n + pads[i] + pads[i + rank] - gaps[i] * (block[i] - 1) - 1) // strides[i] + 1 for i, n in enumerate(image)]
    columns = np.random.default_rng(7).integers(-4, 5, (2, 3 * np.prod(block), np.prod(counts)))
    expected = np.zeros((2, 3, *image), np.int64)
    for number, place in enumerate(np.ndindex(*counts)):
        for row, (c, *tap) in enumerate(itertools.product(range(3), *map(range, block))):
            at = [p * s + t * g - before for p, s, t, g, before in zip(place, strides, tap, gaps, pads[:rank], strict=True)]
            if all(0 <= a < n for a, n in zip(at, image, strict=True)):
                expected[(slice(None), c, *at)] += columns[:, row, number]
    element = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    equal(run("Col2Im", columns.astype(element), told(*image), told(*block), **attrs), expected.astype(element))


def test_folded_shapes():
    image = TensorType(DType.I64, (2,), np.array([H, W], object))
    columns = TensorType(DType.F32, (B, 12, (H - 1) * (W - 1)))
    assert infer("Col2Im", columns, image, told(2, 2)) == TensorType(DType.F32, (B, 3, H, W))
    unknown = TensorType(DType.I64, (2,))
    assert [str(d) for d in infer("Col2Im", columns, unknown, unknown).shape] == ["batch", "?y0.1", "?y0.2", "?y0.3"]
    with pytest.raises(ModelError, match="12 rows"):
        infer("Col2Im", columns, image, told(5, 1))
    with pytest.raises(ModelError, match=r"block_shape \[0, 2\] is not positive"):
        infer("Col2Im", columns, image, told(0, 2))
    with pytest.raises(ModelError, match="7 is not 9"):
        infer("Col2Im", np.zeros((1, 4, 7)), told(4, 4), told(2, 2))
    with pytest.raises(ModelError, match="do not fit"):
        infer("Col2Im", columns, image, told(2, 2), strides=[1])
