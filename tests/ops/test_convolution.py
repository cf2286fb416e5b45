"""Conv and ConvNHWC against windows visited one by one, and their shape rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.convolve import Geometry, conv_channels_last, conv_scratch_nbytes
from miniinfer_cli.ops.windows import window
from tests.ops import naive_windows
from tests.ops.apart import Apart, Backwards
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

N, H, W = symbol("batch"), symbol("h"), symbol("w")


@st.composite
def convolutions(draw, max_rank=3):
    """Inputs x, w, b and attributes; small shapes, every attribute, depthwise and grouped often."""
    rank = draw(st.integers(1, max_rank))
    small = {1: 6, 2: 5, 3: 3}[rank]

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, strides, dilations, begin, end = each(1, 3), each(1, 3), each(1, 2), each(0, 2), each(0, 2)
    attrs = {"strides": strides, "dilations": dilations, "group": draw(st.integers(1, 3))}
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    attrs |= {"pads": [*begin, *end]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    per_group, wide = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    least = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [low + draw(st.integers(0, small)) for low in least]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal((draw(st.integers(1, 2)), per_group * attrs["group"], *sizes))
    w = rng.standard_normal((wide * attrs["group"], per_group, *kernel))
    b = rng.standard_normal(len(w)) if draw(st.booleans()) else None
    return x, w, b, attrs


def expected(x, w, b, attrs):
    options = {k: v for k, v in attrs.items() if k != "group"}
    geometry = window("Conv", w.shape[2:], **options)
    begin, end = geometry.padding(x.shape[2:])
    return naive_windows.conv(
        x, w, b, strides=geometry.strides, begin=begin, end=end, dilations=geometry.dilations, group=attrs["group"]
    )


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_conv_is_the_sum_over_its_windows(case):
    x, w, b, attrs = case
    np.testing.assert_allclose(run("Conv", x, w, b, **attrs), expected(x, w, b, attrs), rtol=1e-12, atol=1e-12)


@given(convolutions(max_rank=2))
@settings(max_examples=30, deadline=None)
def test_channels_last_is_conv_on_moved_axes(case):
    x, w, b, attrs = case
    x, w = np.moveaxis(x, 1, -1).copy(), np.moveaxis(w, 1, -1).copy()
    y = run("ConvNHWC", x, w, b, domain="miniinfer", **attrs)
    wanted = expected(np.moveaxis(x, -1, 1), np.moveaxis(w, -1, 1), b, attrs)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_channels_last_expands_to_conv(bias):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 4, 6)), rng.standard_normal((4, 3, 2, 3))
    inputs = (x, w, rng.standard_normal(4)) if bias else (x, w)
    attrs = {"strides": [1, 2], "pads": [1, 0, 0, 1], "group": 2}
    y = run("ConvNHWC", *inputs, domain="miniinfer", **attrs)
    np.testing.assert_allclose(run_expanded("ConvNHWC", *inputs, domain="miniinfer", **attrs), y, rtol=1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
def test_half_floats_are_summed_in_f32_and_rounded_once(dtype):
    x, w = np.ones((1, 4096, 1, 1)), np.full((1, 4096, 1, 1), 1.0)
    x[0, 0], x[0, 1:9] = 2048, 0.25  # a sum kept in f16 or bf16 would lose the small terms one by one
    y = run("Conv", array(x, dtype), array(w, dtype), np.asarray(array([0.5], dtype)))
    assert float(y[0, 0, 0, 0]) == float(array(2048 + 2 + 4087 + 0.5, dtype))


def test_zero_channels_and_zero_batch():
    assert run("Conv", np.zeros((0, 3, 5, 5)), np.ones((2, 3, 3, 3))).shape == (0, 2, 3, 3)
    y = run("Conv", np.zeros((1, 0, 5, 5)), np.ones((2, 0, 3, 3)), np.array([1.0, 2.0]))
    assert y[0, :, 0, 0].tolist() == [1.0, 2.0]


# x sizes, w sizes, group, strides, padding: pointwise, strided pointwise, gathered, several tiles (along either axis),
# several images in one tile, depthwise of every stride, with two filters for each channel, of one pixel; narrow groups
# whose outputs are as many as, fewer than, and more than their inputs; wide groups.
KERNELS = [
    ((1, 9, 8, 16), (8, 1, 1, 16), 1, (1, 1), 0),
    ((2, 9, 8, 16), (8, 1, 1, 16), 1, (2, 3), 0),
    ((1, 9, 8, 16), (8, 3, 3, 16), 1, (1, 2), 1),
    ((2, 90, 40, 64), (2, 3, 3, 64), 1, (1, 1), 1),
    ((1, 1, 4000, 64), (2, 3, 3, 64), 1, (1, 1), 1),
    ((5, 9, 8, 3), (4, 3, 3, 3), 1, (2, 1), 1),
    ((2, 70, 80, 32), (32, 3, 3, 1), 32, (1, 1), 1),
    ((1, 21, 19, 48), (48, 5, 3, 1), 48, (2, 2), 1),
    ((2, 20, 61, 32), (32, 5, 5, 1), 32, (1, 2), 2),
    ((1, 12, 20, 8), (8, 3, 2, 1), 8, (2, 3), 1),
    ((1, 9, 8, 6), (12, 3, 3, 1), 6, (1, 1), 1),
    ((1, 9, 8, 6), (6, 1, 1, 1), 6, (2, 1), 0),
    ((2, 9, 8, 12), (12, 3, 3, 3), 4, (1, 1), 1),
    ((1, 9, 8, 16), (4, 3, 2, 4), 4, (1, 2), 1),
    ((1, 9, 8, 8), (20, 3, 3, 2), 4, (1, 1), 0),
    ((2, 9, 8, 20), (8, 3, 3, 5), 4, (1, 1), 1),
    ((2, 9, 8, 20), (8, 1, 1, 5), 4, (2, 1), 0),
    ((1, 30, 30, 256), (256, 1, 1, 256), 1, (1, 1), 0),
    ((1, 7, 7, 512), (512, 3, 3, 512), 1, (1, 1), 1),
]
# What threads share, where there is enough of it: tiles, rows of output; pieces of a gathered tile and parts of its product.
PARTS = {
    ((2, 90, 40, 64), (2, 3, 3, 64)): [30],
    ((1, 1, 4000, 64), (2, 3, 3, 64)): [16],
    ((2, 70, 80, 32), (32, 3, 3, 1)): [4],
    ((1, 30, 30, 256), (256, 1, 1, 256)): [6],
    ((1, 7, 7, 512), (512, 3, 3, 512)): [3],
}


@pytest.mark.parametrize(("x_shape", "w_shape", "group", "strides", "padding"), KERNELS)
def test_caller_given_memory_and_threads_change_nothing(x_shape, w_shape, group, strides, padding):
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s, dtype=np.float32) for s in (x_shape, w_shape))
    bias = rng.standard_normal(w_shape[0], dtype=np.float32)
    geometry = Geometry(strides, (padding,) * 2, (padding,) * 2, (1, 1), group)
    plain = conv_channels_last(x, w, bias, geometry)
    exact = conv_channels_last(x.astype(np.float64), w.astype(np.float64), bias.astype(np.float64), geometry)
    np.testing.assert_allclose(plain, exact, rtol=1e-4, atol=1e-4)

    results = []
    for for_each in (Backwards(3), Apart(3)):
        nbytes = conv_scratch_nbytes(x_shape, w_shape, 4, geometry, threads=3)
        scratch = np.full(nbytes, 0xFF, np.uint8)  # NaN wherever it is read
        out = np.full(plain.shape, np.nan, np.float32)
        assert conv_channels_last(x, w, bias, geometry, out=out, scratch=scratch, for_each=for_each) is out
        results.append(out)
    assert results[0].tobytes() == results[1].tobytes()
    np.testing.assert_allclose(results[0], exact, rtol=1e-4, atol=1e-4)
    assert for_each.parts == PARTS.get((x_shape, w_shape), [])


@pytest.mark.parametrize("strides", [(1, 2), (2, 3), (1, 4)])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 2), (2, 1)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1), (1, 2)])
def test_depthwise_with_columns_left_out(strides, kernel, dilations):
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 5, 8, 13)), rng.standard_normal((5, 1, *kernel))
    x[0, 0, 4, 5] = np.inf  # what no window reads must not be multiplied by anything, not by 0 either
    got = run("Conv", x, w, None, group=5, strides=strides, dilations=dilations, pads=[1, 0, 0, 2])
    wanted = naive_windows.conv(x, w, None, strides=strides, begin=(1, 0), end=(0, 2), dilations=dilations, group=5)
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_scratch_that_is_too_small_is_refused():
    x, w = np.ones((1, 5, 5, 2), np.float32), np.ones((3, 3, 3, 2), np.float32)
    geometry = Geometry((1, 1), (1, 1), (1, 1), (1, 1))
    short = np.empty(conv_scratch_nbytes(x.shape, w.shape, 4, geometry) - 4, np.uint8)
    with pytest.raises(ValueError, match="reshape"):
        conv_channels_last(x, w, None, geometry, scratch=short)


def test_scattered_output_is_refused():
    x, w = np.ones((1, 5, 5, 2), np.float32), np.ones((3, 1, 1, 2), np.float32)
    geometry = Geometry((1, 1), (0, 0), (0, 0), (1, 1))
    with pytest.raises(ValueError, match="contiguous"):
        conv_channels_last(x, w, None, geometry, out=np.empty((1, 5, 5, 6), np.float32)[..., ::2])


def f32(*shape):
    return TensorType(DType.F32, shape)


@pytest.mark.parametrize(
    ("x", "w", "attrs", "expected"),
    [
        (f32(N, 3, H, W), f32(8, 3, 3, 3), {"pads": [1, 1, 1, 1]}, "f32[batch,8,h,w]"),
        (
            f32(N, 3, H, W),
            f32(8, 3, 3, 3),
            {"pads": [1] * 4, "strides": [2, 2]},
            "f32[batch,8,floor((h+1)/(2)),floor((w+1)/(2))]",
        ),
        (f32(N, 3, H, 7), f32(8, 3, 1, 1), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "f32[batch,8,floor((h+1)/(2)),4]"),
        (f32(N, 3, 8), f32(symbol("k"), 3, symbol("t")), {}, "f32[batch,k,-t+9]"),
        (TensorType(DType.F32), f32(8, 3, 3, 3), {}, "f32[?y0.0,8,?y0.2,?y0.3]"),
        (TensorType(DType.F32), TensorType(DType.F32), {}, "f32[?]"),
        (TensorType(DType.F32), TensorType(DType.F32), {"kernel_shape": [3]}, "f32[?y0.0,?y0.1,?y0.2]"),
    ],
)
def test_shape_rule(x, w, attrs, expected):
    assert str(infer("Conv", x, w, **attrs)) == expected


@pytest.mark.parametrize(
    ("operands", "attrs", "message"),
    [
        ((f32(1, 4, 8, 8), f32(8, 3, 3, 3)), {}, "has 4 channels, weights .* with group 1 expect 3"),
        ((f32(1, 4, 8, 8), f32(9, 2, 3, 3)), {"group": 2}, "have 9 features, which 2 groups do not divide"),
        ((f32(1, 4, 8, 8), f32(8, 4, 3)), {}, "do not agree on a rank"),
        ((f32(1, 4), f32(8, 4)), {}, "rank of 3 or more"),
        ((f32(1, 4, 8, 8), f32(8, 4, 3, 3)), {"kernel_shape": [3, 5]}, "kernel_shape against the weights: 5 is not 3"),
        ((f32(1, 4, 8, 8), f32(8, 4, 3, 3), f32(7)), {}, "bias .*: 7 is not 8"),
        ((f32(1, 4, 8, 8), f32(8, 4, 3, 3), f32(8, 1)), {}, "expected one dimension"),
        ((f32(1, 4, 2, 8), f32(8, 4, 3, 3)), {}, "a kernel of 3 .* does not fit spatial axis 0 of 2"),
        ((f32(1, 4, 8, 8), f32(8, 4, 3, 3)), {"group": 0}, "group is 0"),
        ((f32(1, 4, 8, 8), TensorType(DType.F16, (8, 4, 3, 3))), {}, "one element type"),
        ((TensorType(DType.I32, (1, 4, 8, 8)), TensorType(DType.I32, (8, 4, 3, 3))), {}, "does not take an input i32"),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("Conv", *operands, **attrs)
