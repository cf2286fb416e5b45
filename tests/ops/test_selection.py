"""NonZero, Compress, Unique: results whose size the shape rule leaves open."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import infer

B, S = symbol("batch"), symbol("seq")
X = TensorType(DType.F32, (B, S, 3))


def evaluate(op, *inputs, n_outputs=1, **attrs):
    results = lookup("", op).evaluate(inputs, attrs, n_outputs=n_outputs)
    assert len(results) == n_outputs
    return results[0] if n_outputs == 1 else results


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


def texts(type):
    return [str(d) for d in type.shape]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "complex64", "bfloat16", "int4", "float16"])
def test_non_zero_lists_coordinates(dtype):
    x = np.array([[0, 1, 0], [1, 1, 0]]).astype(getattr(ml_dtypes, dtype, None) or dtype)
    equal(evaluate("NonZero", x), np.array([[0, 1, 1], [1, 0, 1]]))


def test_non_zero_of_scalars_strings_and_nan():
    equal(evaluate("NonZero", np.array(3)), np.empty((0, 1), np.int64))
    equal(evaluate("NonZero", np.array(0)), np.empty((0, 0), np.int64))
    equal(evaluate("NonZero", np.array(["", "a"], object)), np.array([[1]]))
    equal(evaluate("NonZero", np.array([0, np.nan])), np.array([[1]]))


def test_sizes_that_depend_on_the_data_are_left_open():
    assert (infer("NonZero", X).dtype, texts(infer("NonZero", X))) == (DType.I64, ["3", "?y0.1"])
    condition = TensorType(DType.BOOL, (S,))
    assert texts(infer("Compress", X, condition, axis=1)) == ["batch", "?y0.1", "3"]
    assert texts(infer("Compress", X, condition)) == ["?y0.0"]
    assert [(t.dtype, texts(t)) for t in infer("Unique", X, axis=1, n_outputs=4)] == [
        (DType.F32, ["batch", "?y0.1", "3"]),
        (DType.I64, ["?y1.0"]),
        (DType.I64, ["seq"]),
        (DType.I64, ["?y3.0"]),
    ]
    assert [texts(t) for t in infer("Unique", X, n_outputs=3)] == [["?y0.0"], ["?y1.0"], ["3*batch*seq"]]


def test_a_scalar_has_no_axis_to_choose_along():
    for op, inputs in (("Compress", [np.array([True])]), ("Unique", [])):
        with pytest.raises(ModelError, match=f"{op} needs an axis"):
            infer(op, TensorType(DType.F32, ()), *inputs, axis=0)


def test_compress_takes_where_the_condition_holds():
    x = np.arange(12).reshape(3, 4)
    equal(evaluate("Compress", x, np.array([True, False, True]), axis=0), x[[0, 2]])
    equal(evaluate("Compress", x, np.array([False, True]), axis=-1), x[:, [1]])
    equal(evaluate("Compress", x, np.array([False, True, False, False, True])), np.array([1, 4]))
    words = np.array(["a", "b"], object)
    equal(evaluate("Compress", words, np.array([False, True])), words[1:])
    with pytest.raises(ModelError, match="beyond the 3 of axis 0"):
        evaluate("Compress", x, np.array([False, False, False, True]), axis=0)


@given(nps.arrays(np.int8, nps.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.integers(0, 2)), st.data())
def test_unique_agrees_with_numpy(x, data):
    axis = data.draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    for got, expected in zip(evaluate("Unique", x, n_outputs=4, **_axis(axis)), (values, first, inverse, counts), strict=True):
        np.testing.assert_array_equal(got, expected.reshape(got.shape))


@given(nps.arrays(np.float32, (6, 2), elements=st.integers(0, 1)), st.sampled_from([None, 0, 1]))
def test_unique_in_first_seen_order(x, axis):
    values, first, inverse, counts = evaluate("Unique", x, sorted=0, n_outputs=4, **_axis(axis))
    flat, at = (x.reshape(-1), 0) if axis is None else (x, axis)
    assert list(first) == sorted(first)
    equal(values, np.take(flat, first, at))
    equal(np.take(values, inverse, at), flat)
    equal(counts, np.bincount(inverse))


def _axis(axis):
    return {} if axis is None else {"axis": axis}


def test_unique_of_nothing():
    for axis in (0, 1):
        values, *others = evaluate("Unique", np.empty((0, 3), np.float32), axis=axis, n_outputs=4)
        assert (values.shape, [o.size for o in others]) == (((0, 3), [0, 0, 0]) if axis == 0 else ((0, 1), [1, 3, 1]))


def test_unique_sorts_strings_and_narrow_floats():
    equal(evaluate("Unique", np.array(["b", "a", "b"], object)), np.array(["a", "b"], object))
    rows = np.array([["b", "x"], ["a", "y"], ["b", "x"]], object)
    equal(evaluate("Unique", rows, axis=0), rows[[1, 0]])
    narrow = np.array([[2, 1], [2, 1]], ml_dtypes.bfloat16)
    equal(evaluate("Unique", narrow, axis=1), narrow[:, ::-1])
