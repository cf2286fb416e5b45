"""DeformConv against its definition, one sampling point at a time."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import FLOATS, array, infer, run


def sample(plane, place):
    """Linear interpolation between the elements around ``place``; zero where there are none."""
    total = 0.0
    for corner in itertools.product(*((math.floor(p), math.floor(p) + 1) for p in place)):
        if all(0 <= i < size for i, size in zip(corner, plane.shape, strict=True)):
            total += plane[corner] * math.prod(1 - abs(p - i) for p, i in zip(place, corner, strict=True))
    return total


def by_the_definition(x, w, offset, b, mask, *, strides, pads, dilations, group, offset_group):
    n, channels, rank = len(x), x.shape[1], x.ndim - 2
    kernel, out_sizes, taps = w.shape[2:], offset.shape[2:], math.prod(w.shape[2:])
    shifts = offset.reshape(n, offset_group, taps, rank, *out_sizes)
    factors = np.ones((n, offset_group, taps, *out_sizes)) if mask is None else mask.reshape(n, offset_group, taps, *out_sizes)
    y = np.zeros((n, len(w), *out_sizes))
    for image, k, *out in np.ndindex(*y.shape):
        for c in range(w.shape[1]):
            channel = k // (len(w) // group) * w.shape[1] + c
            og = channel // (channels // offset_group)
            for t, tap in enumerate(np.ndindex(*kernel)):
                place = [
                    out[a] * strides[a] - pads[a] + tap[a] * dilations[a] + shifts[(image, og, t, a, *out)] for a in range(rank)
                ]
                y[(image, k, *out)] += sample(x[image, channel], place) * w[(k, c, *tap)] * factors[(image, og, t, *out)]
    return y if b is None else y + b.reshape(-1, *(1,) * rank)


@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from([1, 2]), st.sampled_from([1, 2]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_deform_conv(seed, rank, group, offset_group, with_mask):
    rng = np.random.default_rng(seed)
    kernel, strides, dilations = (rng.integers(1, 3, rank).tolist() for _ in range(3))
    pads = rng.integers(0, 2, 2 * rank).tolist()
    sizes = rng.integers(3, 6 - rank // 3, rank).tolist()
    out_sizes = [
        (size + pads[a] + pads[rank + a] - (kernel[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a, size in enumerate(sizes)
    ]
    taps = math.prod(kernel)
    x, w = rng.standard_normal((2, 4, *sizes)), rng.standard_normal((2, 4 // group, *kernel))
    offset = rng.uniform(-2, 2, (2, offset_group * taps * rank, *out_sizes))
    mask = rng.uniform(0, 1, (2, offset_group * taps, *out_sizes)) if with_mask else None
    b = rng.standard_normal(2) if with_mask else None
    attrs = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, "offset_group": offset_group}
    operands = [x, w, offset] if mask is None else [x, w, offset, b, mask]
    np.testing.assert_allclose(
        run("DeformConv", *operands, **attrs), by_the_definition(x, w, offset, b, mask, **attrs), atol=1e-12
    )


def test_without_offsets_it_is_conv():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 2))
    attrs = {"strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
    y = run("Conv", x, w, **attrs)
    offset = np.zeros((2, 12, *y.shape[2:]))
    np.testing.assert_allclose(run("DeformConv", x, w, offset, **attrs), y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
def test_half_floats_are_summed_in_f32(dtype):
    x, w = np.ones((1, 300, 1, 1)), np.ones((1, 300, 1, 1))
    x[0, 0] = 2048
    y = run("DeformConv", *(array(v, dtype) for v in (x, w, np.zeros((1, 2, 1, 1)))))
    assert float(y.item()) == float(array(2048 + 299, dtype))


def f32(*shape):
    return TensorType(DType.F32, shape)


N, H = symbol("n"), symbol("h")


def test_shape_rule():
    y = infer("DeformConv", f32(N, 4, H, 8), f32(6, 4, 3, 3), f32(N, 18, H, 8), None, f32(N, 9, H, 8), pads=[1] * 4)
    assert str(y) == "f32[n,6,h,8]"
    unknown = TensorType(DType.F32)
    assert str(infer("DeformConv", unknown, unknown, unknown)) == "f32[?]"


@pytest.mark.parametrize(
    ("offset", "mask", "attrs", "message"),
    [
        (f32(1, 17, 6, 6), None, {}, "channels of offset .* 17 is not 18"),
        (f32(1, 18, 6, 5), None, {}, "sizes of offset .* 6 is not 5"),
        (f32(1, 18, 6), None, {}, "offset is .* expected rank 4"),
        (f32(1, 18, 6, 6), f32(1, 8, 6, 6), {}, "channels of mask .* 8 is not 9"),
        (f32(1, 54, 6, 6), None, {"offset_group": 3}, "offset_group 3 does not divide"),
    ],
)
def test_operands_that_do_not_fit_are_refused(offset, mask, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("DeformConv", f32(1, 4, 8, 8), f32(2, 4, 3, 3), offset, *([None, mask] if mask else []), **attrs)
