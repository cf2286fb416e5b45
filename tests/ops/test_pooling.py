"""The poolings against windows visited one by one; where the maxima were; what padding counts for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.pool import average_pool, max_pool
from miniinfer_cli.ops.windows import window
from tests.ops import naive_windows
from tests.ops.checked import FLOATS, array, infer, run, run_expanded

NAN = float("nan")


@st.composite
def poolings(draw, *, whole_numbers=False):
    """Input and attributes; whole numbers make ties."""
    rank = draw(st.integers(1, 3))
    small = {1: 6, 2: 4, 3: 2}[rank]

    def each(low, high):
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, strides, dilations = each(1, 3), each(1, 3), each(1, 2)
    begin, end = ([draw(st.integers(0, k - 1)) for k in kernel] for _ in range(2))
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, small)) for k, d in zip(kernel, dilations, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *sizes)
    x = rng.integers(-3, 3, shape).astype(np.float64) if whole_numbers else rng.standard_normal(shape)
    attrs = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    attrs |= {"pads": [*begin, *end]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    return x, attrs | {"ceil_mode": int(draw(st.booleans()))}


def naive(x, attrs, reduce):
    options = {k: v for k, v in attrs.items() if k != "kernel_shape"}
    geometry = window("Pool", attrs["kernel_shape"], **options)
    begin, end = geometry.padding(x.shape[2:])
    return naive_windows.pool(
        x,
        reduce,
        kernel=geometry.kernel,
        strides=geometry.strides,
        begin=begin,
        end=end,
        dilations=geometry.dilations,
        ceil_mode=attrs["ceil_mode"] and not attrs.get("auto_pad", "").startswith("SAME"),
    )


@given(poolings())
@settings(max_examples=60, deadline=None)
def test_max_pool(case):
    x, attrs = case
    np.testing.assert_array_equal(run("MaxPool", x, **attrs), naive(x, attrs, lambda values, *_: max(values, default=-np.inf)))


@given(poolings(whole_numbers=True), st.booleans())
@settings(max_examples=60, deadline=None)
def test_max_pool_indices_point_at_the_first_maximum(case, column_major):
    x, attrs = case
    sizes = x.shape[2:]

    def first(values, places, _):
        if not values:
            return -1
        place = places[int(np.argmax(values))]
        return np.ravel_multi_index(place, sizes, order="F" if column_major else "C")

    within = naive(x, attrs, first)
    plane = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(sizes)) * np.prod(sizes)
    y, indices = run("MaxPool", x, n_outputs=2, storage_order=int(column_major), **attrs)
    np.testing.assert_array_equal(y, run("MaxPool", x, **attrs))
    reached = within >= 0
    np.testing.assert_array_equal(indices[reached], (within + plane)[reached])


@given(poolings(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_average_pool(case, include_pad):
    x, attrs = case

    def mean(values, _, padded):
        return sum(values) / max(padded if include_pad else len(values), 1)

    y = run("AveragePool", x, count_include_pad=int(include_pad), **attrs)
    np.testing.assert_allclose(y, naive(x, attrs, mean), rtol=1e-12, atol=1e-14)


@given(poolings(), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_lp_pool(case, p):
    x, attrs = case
    y = run("LpPool", x, p=p, **attrs)
    np.testing.assert_allclose(y, naive(x, attrs, lambda values, *_: sum(abs(v) ** p for v in values) ** (1 / p)), rtol=1e-6)


@given(poolings())
@settings(max_examples=25, deadline=None)
def test_channels_last_poolings_and_their_expansions(case):
    x, attrs = case
    last = np.moveaxis(x, 1, -1).copy()
    for op, more in (("MaxPool", {}), ("AveragePool", {"count_include_pad": 1})):
        y = run(f"{op}NHWC", last, domain="miniinfer", **attrs, **more)
        np.testing.assert_allclose(np.moveaxis(y, -1, 1), run(op, x, **attrs, **more), rtol=1e-13)
        np.testing.assert_array_equal(run_expanded(f"{op}NHWC", last, domain="miniinfer", **attrs, **more), y)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_max_pool_of_integers_pads_with_the_lowest(dtype):
    x = array([[[3, 1, 2]]], dtype)
    y, indices = run("MaxPool", x, n_outputs=2, kernel_shape=[2], pads=[1, 1])
    assert (y.tolist(), indices.tolist()) == ([[[3, 3, 2, 2]]], [[[0, 0, 2, 2]]])
    assert run("MaxPool", array([[[-5, -9]]], "int8"), kernel_shape=[2], pads=[1, 0]).tolist() == [[[-5, -5]]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_max_pool_of_every_float_type(dtype):
    x = array([[[1, 3, -2, 5]]], dtype)
    y, indices = run("MaxPool", x, n_outputs=2, kernel_shape=[2], pads=[1, 1])
    assert (y.dtype.name, y.astype(np.float64).tolist(), indices.tolist()) == (dtype, [[[1, 3, 3, 5, 5]]], [[[0, 1, 1, 3, 3]]])
    np.testing.assert_array_equal(run("MaxPool", x, kernel_shape=[2], pads=[1, 1]), y)
    assert float(run("GlobalMaxPool", x).item()) == 5


def test_nan_is_a_maximum():
    x = np.array([[[1.0, NAN, 3.0, NAN]]])
    y, indices = run("MaxPool", x, n_outputs=2, kernel_shape=[2])
    np.testing.assert_array_equal(y, [[[NAN, NAN, NAN]]])
    assert indices.tolist() == [[[1, 1, 3]]]
    np.testing.assert_array_equal(run("MaxPool", x, kernel_shape=[2]), y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_averages_of_half_floats_are_summed_in_f32(dtype):
    x = np.full((1, 1, 4096), 1.0)
    x[0, 0, 0] = 1 + 4096
    exact = float(array(2.0, dtype))
    assert float(run("AveragePool", array(x, dtype), kernel_shape=[4096])[0, 0, 0]) == exact
    assert float(run("GlobalAveragePool", array(x, dtype))[0, 0, 0]) == exact


def test_global_poolings():
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4) - 20
    assert run("GlobalAveragePool", x).tolist() == [[[[-14.5]], [[-2.5]]]]
    assert run("GlobalMaxPool", x).tolist() == [[[[-9.0]], [[3.0]]]]
    assert run("GlobalLpPool", x, p=1).tolist() == [[[[174.0]], [[42.0]]]]
    np.testing.assert_allclose(run("GlobalLpPool", x)[0, 1, 0, 0], np.sqrt((x[0, 1] ** 2).sum()), rtol=1e-6)
    last = np.moveaxis(x, 1, -1).copy()
    y = run("GlobalAveragePoolNHWC", last, domain="miniinfer")
    assert y.tolist() == [[[[-14.5, -2.5]]]]
    np.testing.assert_array_equal(run_expanded("GlobalAveragePoolNHWC", last, domain="miniinfer"), y)


def test_poolings_write_where_they_are_told():
    x = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)
    geometry = window("Pool", [3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    for pool in (max_pool, lambda x, g, axis, out=None: average_pool(x, g, axis, False, out)):
        plain = pool(x, geometry, 1)
        out = np.full_like(plain, NAN)
        assert pool(x, geometry, 1, out=out) is out
        np.testing.assert_array_equal(out, plain)


N, H = symbol("n"), symbol("h")


@pytest.mark.parametrize(
    ("op", "attrs", "expected"),
    [
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}, "f32[n,4,floor((h+1)/(2)),5]"),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, "f32[n,4,floor((h)/(2)),5]"),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}, "f32[n,4,floor((h)/(2)),5]"),
        ("LpPool", {"kernel_shape": [1, 1], "auto_pad": "SAME_UPPER", "strides": [1, 3]}, "f32[n,4,h,4]"),
        ("GlobalMaxPool", {}, "f32[n,4,1,1]"),
        ("GlobalLpPool", {}, "f32[n,4,1,1]"),
    ],
)
def test_shape_rules(op, attrs, expected):
    assert str(infer(op, TensorType(DType.F32, (N, 4, H, 10)), **attrs)) == expected
    assert str(infer(op, TensorType(DType.F32), **attrs)) == "f32[?]"


@pytest.mark.parametrize(
    ("op", "x", "attrs", "message"),
    [
        ("MaxPool", (1, 1, 4), {"kernel_shape": [2, 2]}, "expected rank 4 for kernel_shape"),
        ("MaxPool", (1, 1, 4), {"kernel_shape": [2], "storage_order": 2}, "storage_order is 2"),
        ("AveragePool", (1, 1, 4), {"kernel_shape": [5]}, "a kernel of 5 .* does not fit"),
        ("LpPool", (1, 1, 4), {"kernel_shape": [2], "p": 0}, "p is 0"),
        ("GlobalLpPool", (1, 1, 4), {"p": 0}, "p is 0"),
        ("GlobalAveragePool", (4,), {}, "expects batch, channels"),
        ("AveragePool", (1, 1, 4), {}, "kernel_shape"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(op, x, attrs, message):
    with pytest.raises(ModelError, match=message):
        infer(op, TensorType(DType.F32, x), **attrs)


def test_only_max_pool_takes_integers():
    x = TensorType(DType.I8, (1, 1, 4))
    assert str(infer("MaxPool", x, kernel_shape=[2])) == "i8[1,1,3]"
    with pytest.raises(ModelError, match="does not take an input i8"):
        infer("AveragePool", x, kernel_shape=[2])
