"""ConvTranspose and ConvTransposeNHWC against scattering one element at a time, and their shape rules."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import convolve_transposed
from tests.ops import naive_windows
from tests.ops.checked import FLOATS, array, infer, run, run_expanded


@st.composite
def transposed_convolutions(draw):
    """Inputs x, w, b, attributes with explicit pads, and how large the output is."""
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, strides, dilations, sizes = each(1, 3), each(1, 3), each(1, 2), each(1, 3)
    extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]
    full = [(n - 1) * s + e + (k - 1) * d + 1 for n, s, e, k, d in zip(sizes, strides, extra, kernel, dilations, strict=True)]
    begin = [draw(st.integers(0, min(2, (f - 1) // 2))) for f in full]
    end = [draw(st.integers(0, min(2, (f - 1) // 2))) for f in full]
    group, per_group, wide = (draw(st.integers(1, 2)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal((draw(st.integers(1, 2)), per_group * group, *sizes))
    w = rng.standard_normal((per_group * group, wide, *kernel))
    b = rng.standard_normal(wide * group) if draw(st.booleans()) else None
    attrs = {"strides": strides, "dilations": dilations, "output_padding": extra, "pads": [*begin, *end], "group": group}
    return x, w, b, attrs, tuple(f - p - q for f, p, q in zip(full, begin, end, strict=True))


def expected(x, w, b, attrs, out_sizes):
    begin = attrs["pads"][: len(out_sizes)]
    options = {k: attrs[k] for k in ("strides", "dilations", "group")}
    return naive_windows.conv_transpose(x, w, b, begin=begin, out_sizes=out_sizes, **options)


@given(transposed_convolutions())
@settings(max_examples=60, deadline=None)
def test_each_input_adds_its_multiple_of_the_filters(case):
    x, w, b, attrs, out_sizes = case
    y = run("ConvTranspose", x, w, b, **attrs)
    np.testing.assert_allclose(y, expected(x, w, b, attrs, out_sizes), rtol=1e-12, atol=1e-12)


@given(transposed_convolutions())
@settings(max_examples=30, deadline=None)
def test_channels_last_and_its_expansion(case):
    x, w, b, attrs, out_sizes = case
    last = (np.moveaxis(x, 1, -1).copy(), np.moveaxis(w, 1, -1).copy(), *([b] if b is not None else []))
    y = run("ConvTransposeNHWC", *last, domain="miniinfer", **attrs)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected(x, w, b, attrs, out_sizes), rtol=1e-12, atol=1e-12)
    again = run_expanded("ConvTransposeNHWC", *last, domain="miniinfer", **attrs)
    np.testing.assert_allclose(again, y, rtol=1e-13, atol=1e-13)


ONES = np.ones((1, 1, 3))
TAPS = np.array([[[1.0, 2.0, 4.0]]])


@pytest.mark.parametrize("kernel", [(2,), (2, 2), (2, 3), (1, 2, 2)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_taps_that_reach_no_pixel_twice(kernel: tuple[int, ...], with_bias: bool) -> None:
    """A kernel as large as its strides, as detectors of text end in: one product, and each tap is copied to its pixels."""
    rng = np.random.default_rng(0)
    sizes = (3, 4, 2)[: len(kernel)]
    x, w = rng.standard_normal((2, 5, *sizes)), rng.standard_normal((5, 3, *kernel))
    b = rng.standard_normal(3) if with_bias else None
    attrs = {"strides": kernel, "dilations": (1,) * len(kernel), "pads": (0,) * 2 * len(kernel), "group": 1}
    out_sizes = tuple(n * k for n, k in zip(sizes, kernel, strict=True))
    with mock.patch.object(convolve_transposed, "tap_regions", side_effect=AssertionError("each tap by itself")):
        found = run("ConvTranspose", x, w, b, **attrs)
    np.testing.assert_allclose(found, expected(x, w, b, attrs, out_sizes), rtol=1e-9, atol=1e-12)
    cut = attrs | {"pads": (1,) + (0,) * (2 * len(kernel) - 1)}
    out_sizes = (out_sizes[0] - 1, *out_sizes[1:])
    np.testing.assert_allclose(run("ConvTranspose", x, w, b, **cut), expected(x, w, b, cut, out_sizes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("attrs", "y"),
    [
        ({}, [1, 3, 7, 6, 4]),
        ({"strides": [2]}, [1, 2, 5, 2, 5, 2, 4]),
        # Of the 7 above, 6 are wanted: the odd one is cut off at the end for SAME_UPPER, at the beginning for SAME_LOWER.
        ({"strides": [2], "auto_pad": "SAME_UPPER"}, [1, 2, 5, 2, 5, 2]),
        ({"strides": [2], "auto_pad": "SAME_LOWER"}, [2, 5, 2, 5, 2, 4]),
        ({"strides": [2], "auto_pad": "VALID", "pads": [9, 9]}, [1, 2, 5, 2, 5, 2, 4]),
        ({"strides": [2], "output_shape": [4]}, [5, 2, 5, 2]),
        ({"strides": [2], "output_shape": [6], "pads": [3, 3]}, [2, 5, 2, 5, 2, 4]),
        ({"strides": [2], "output_shape": [6], "auto_pad": "SAME_UPPER"}, [1, 2, 5, 2, 5, 2]),
        ({"strides": [2], "output_shape": [1, 1, 6]}, [2, 5, 2, 5, 2, 4]),
        ({"strides": [2], "output_shape": [9]}, [1, 2, 5, 2, 5, 2, 4, 0, 0]),
        ({"strides": [4]}, [1, 2, 4, 0, 1, 2, 4, 0, 1, 2, 4]),
        ({"strides": [4], "auto_pad": "SAME_UPPER"}, [1, 2, 4, 0, 1, 2, 4, 0, 1, 2, 4, 0]),
    ],
)
def test_how_the_output_is_cut(attrs, y):
    assert run("ConvTranspose", ONES, TAPS, **attrs).tolist() == [[y]]


def test_an_empty_batch_gives_an_empty_output():
    assert run("ConvTranspose", np.empty((0, 2, 3, 4)), np.ones((2, 5, 3, 3))).shape == (0, 5, 5, 6)


def test_no_channels_give_the_bias():
    y = run("ConvTranspose", np.empty((2, 0, 3)), np.empty((0, 2, 3)), np.array([1.0, 2.0]))
    assert np.array_equal(y, np.broadcast_to([[1.0], [2.0]], (2, 2, 5)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_half_floats_are_summed_in_f32(dtype):
    x = np.ones((1, 300, 1))
    x[0, 0] = 2048
    y = run("ConvTranspose", array(x, dtype), array(np.ones((300, 1, 1)), dtype))
    assert float(y[0, 0, 0]) == float(array(2048 + 299, dtype))


def f32(*shape):
    return TensorType(DType.F32, shape)


H = symbol("h")


@pytest.mark.parametrize(
    ("x", "w", "attrs", "expected"),
    [
        (f32(symbol("n"), 4, H, 5), f32(4, 3, 2, 2), {"strides": [2, 2], "group": 2}, "f32[n,6,2*h,10]"),
        (f32(1, 4, H), f32(4, 3, 3), {"strides": [2], "pads": [1, 1], "output_padding": [1]}, "f32[1,3,2*h]"),
        (f32(1, 4, H), f32(4, 3, 3), {"strides": [3], "auto_pad": "SAME_LOWER"}, "f32[1,3,3*h]"),
        (f32(1, 4, H), f32(4, 3, 3), {"output_shape": [17]}, "f32[1,3,17]"),
        (TensorType(DType.F32), f32(4, 3, 3), {}, "f32[?y0.0,3,?y0.2]"),
        (TensorType(DType.F32), TensorType(DType.F32), {}, "f32[?]"),
    ],
)
def test_shape_rule(x, w, attrs, expected):
    assert str(infer("ConvTranspose", x, w, **attrs)) == expected


@pytest.mark.parametrize(
    ("operands", "attrs", "message"),
    [
        ((f32(1, 5, 8), f32(4, 3, 3)), {}, "has 5 channels, weights .* expect 4"),
        ((f32(1, 4, 8), f32(4, 3, 3)), {"group": 3}, "which 3 groups do not divide"),
        ((f32(1, 4, 8), f32(4, 3, 3), f32(4)), {}, "bias .*: 4 is not 3"),
        ((f32(1, 4, 2), f32(4, 3, 2)), {"pads": [2, 1]}, "leave nothing of the output"),
        ((f32(1, 4, 8), f32(4, 3, 3)), {"output_padding": [-1]}, "output_padding is"),
        ((f32(1, 4, 8), f32(4, 3, 3)), {"output_shape": [8, 8]}, "output_shape is"),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer("ConvTranspose", *operands, **attrs)


def test_bands_of_a_large_one_are_copied_one_after_the_other() -> None:
    """The last band is shorter, and images do not share one."""
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 5, 7, 4)), rng.standard_normal((5, 3, 3, 2)), rng.standard_normal(3)
    attrs = {"strides": (3, 2), "dilations": (1, 1), "pads": (0,) * 4, "group": 1}
    whole = run("ConvTranspose", x, w, b, **attrs)
    for nbytes in (1, 1500, 2000):
        with mock.patch.object(convolve_transposed, "_BAND_NBYTES", nbytes):
            np.testing.assert_allclose(run("ConvTranspose", x, w, b, **attrs), whole, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(whole, expected(x, w, b, attrs, (21, 8)), rtol=1e-12, atol=1e-12)
