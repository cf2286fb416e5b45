"""The geometry of sliding windows, for concrete and for symbolic sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import symbol
from miniinfer_cli.ir.dims import evaluate
from miniinfer_cli.ops.windows import tap_slices, window
from tests.ops import naive_windows

H = symbol("h")


@st.composite
def axes(draw):
    """kernel, stride, dilation, begin and end of one axis."""
    kernel = draw(st.integers(1, 5))
    padding = st.integers(0, kernel - 1)
    return kernel, draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(padding), draw(padding)


def make(axis, **attrs):
    kernel, stride, dilation, begin, end = axis
    return window("Op", [kernel], strides=[stride], dilations=[dilation], pads=[begin, end], **attrs)


@given(axes(), st.integers(1, 20), st.booleans())
def test_output_size_counts_the_windows(axis, size, ceil_mode):
    kernel, stride, dilation, begin, end = axis
    (expected,) = naive_windows.output_sizes([size], [kernel], [stride], [begin], [end], [dilation], ceil_mode)
    geometry = make(axis, ceil_mode=int(ceil_mode))
    if expected:
        assert geometry.output_sizes([size]) == (expected,)
    else:
        with pytest.raises(ModelError, match="does not fit"):
            geometry.output_sizes([size])


@given(axes(), st.integers(15, 40), st.booleans(), st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
def test_a_symbolic_size_means_what_the_concrete_one_does(axis, size, ceil_mode, auto_pad):
    geometry = make(axis, ceil_mode=int(ceil_mode), auto_pad=auto_pad)
    (symbolic,) = geometry.output_sizes([H])
    assert evaluate(symbolic, {"h": size}) == geometry.output_sizes([size])[0]


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"strides": [2], "pads": [3, 3]}, "floor((h+1)/(2))"),
        ({"strides": [1], "pads": [3, 3]}, "h"),
        ({"strides": [2], "auto_pad": "SAME_UPPER"}, "floor((h+1)/(2))"),
        ({"strides": [2], "pads": [3, 3], "ceil_mode": 1}, "floor((h)/(2))+1"),
    ],
)
def test_symbolic_output_size(attrs, expected):
    (size,) = window("Op", [7], **attrs).output_sizes([H])
    assert str(size) == expected


@given(axes(), st.integers(1, 20), st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
def test_same_padding_gives_one_output_per_stride(axis, size, auto_pad):
    kernel, stride, dilation, *_ = axis
    geometry = make(axis, auto_pad=auto_pad)
    (begin,), (end,) = geometry.padding([size])
    assert geometry.output_sizes([size]) == (-(-size // stride),)
    assert 0 <= (end - begin if auto_pad == "SAME_UPPER" else begin - end) <= 1
    fixed = window("Op", [kernel], strides=[stride], dilations=[dilation], pads=[begin, end])
    assert fixed.output_sizes([size]) == geometry.output_sizes([size])


def test_explicit_and_valid_padding():
    assert window("Op", [3, 3], pads=[1, 2, 3, 4]).padding([9, 9]) == ((1, 2), (3, 4))
    assert window("Op", [3, 3], pads=[1, 2, 3, 4], auto_pad="VALID").padding([9, 9]) == ((0, 0), (0, 0))


@given(st.integers(-9, 9), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
def test_tap_slices_cover_exactly_the_positions_inside(offset, stride, size, out_size):
    to, read = tap_slices(offset, stride, size, out_size)
    inside = [(o, o * stride + offset) for o in range(out_size) if 0 <= o * stride + offset < size]
    assert list(zip(range(out_size)[to], range(size)[read], strict=True)) == inside


@pytest.mark.parametrize(
    ("kernel", "attrs", "message"),
    [
        ([3], {"auto_pad": "SAME"}, "auto_pad is 'SAME'"),
        ([3], {"strides": [1, 1]}, "strides .* 2 entries, expected 1 for 1 spatial axes"),
        ([3], {"pads": [1]}, "pads .* expected 2"),
        ([3], {"dilations": [0]}, "dilations .* below 1"),
        ([3], {"pads": [0, -1]}, "pads .* below 0"),
        ([0], {}, "kernel_shape .* below 1"),
    ],
)
def test_malformed_attributes_are_refused(kernel, attrs, message):
    with pytest.raises(ModelError, match=message):
        window("Op", kernel, **attrs)
