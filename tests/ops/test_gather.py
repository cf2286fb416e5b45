"""Gather, GatherElements, GatherND: against numpy's indexing, with negative, missing and symbolic indices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import contents, infer, run

B, S = symbol("batch"), symbol("seq")
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def f32(*dims):
    return TensorType(DType.F32, dims)


def i64(*dims):
    return TensorType(DType.I64, dims)


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


@given(nps.array_shapes(min_dims=1, max_dims=3, max_side=4), st.data())
def test_gather_agrees_with_numpy(dims, data):
    x = np.arange(np.prod(dims), dtype=np.int32).reshape(dims)
    axis = data.draw(st.integers(-len(dims), len(dims) - 1))
    size = dims[axis]
    places = nps.array_shapes(min_dims=0, max_dims=2, max_side=3)
    indices = data.draw(nps.arrays(np.int64, places, elements=st.integers(-size, size - 1)))
    lead = (slice(None),) * (axis % len(dims))
    equal(run("Gather", x, indices, axis=axis), x[(*lead, indices)])


def test_gather_puts_the_shape_of_the_indices_in_place_of_the_axis():
    assert infer("Gather", f32(100, 16), i64(B, S)) == f32(B, S, 16)
    assert infer("Gather", f32(B, S, 16), i64(), axis=1) == f32(B, 16)
    assert infer("Gather", TensorType(DType.F32), i64(B)).shape is None
    equal(run("Gather", np.array(["a", "b"], object), np.array([1, 1])), np.array(["b", "b"], object))


def test_gather_of_shape_contents():
    assert contents("Gather", [B, 2, S], 2) == S
    assert contents("Gather", [B, 2, S], [0, -1]) == [B, S]
    assert contents("Gather", [B, 2, S], [B]) is None


@pytest.mark.parametrize(("indices", "bad"), [([0, 3], "3"), ([-4, 0], "-4"), ([9, -9], "9")])
def test_an_index_outside_is_refused(indices, bad):
    for op, x, i in (
        ("Gather", X, np.array(indices)),
        ("GatherElements", X, np.array(indices).reshape(1, 2, 1)),
        ("GatherND", X[0], np.array(indices).reshape(2, 1)),
    ):
        with pytest.raises(ModelError, match=rf"{op} index {bad} is outside \[-3, 2\]"):
            run(op, x, i, **({} if op == "GatherND" else {"axis": 1}))


def test_gather_elements_takes_each_from_its_own_line():
    x = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.int32)
    equal(run("GatherElements", x, np.array([[1, 2, 0], [2, 0, 0]])), np.array([[4, 8, 3], [7, 2, 3]], np.int32))
    equal(run("GatherElements", x, np.array([[0, -1], [2, 2]]), axis=1), np.array([[1, 3], [6, 6]], np.int32))
    assert infer("GatherElements", f32(B, S), i64(B, 1), axis=1) == f32(B, 1)
    assert len(infer("GatherElements", X, TensorType(DType.I64)).shape) == 3
    with pytest.raises(ModelError, match="differ in rank"):
        infer("GatherElements", X, np.zeros(2, np.int64))


@given(nps.arrays(np.float32, (3, 4, 2), elements=st.integers(-9, 9)), st.integers(0, 2), st.data())
def test_gather_elements_agrees_with_take_along_axis(x, axis, data):
    indices = data.draw(nps.arrays(np.int32, (3, 4, 2), elements=st.integers(0, x.shape[axis] - 1)))
    equal(run("GatherElements", x, indices, axis=axis), np.take_along_axis(x, indices.astype(np.int64), axis))


@pytest.mark.parametrize(
    ("indices", "batch_dims", "expected"),
    [
        ([[0, 1], [1, -1]], 0, X[[0, 1], [1, 2]]),
        ([[0, 1, 2]], 0, X[[0], [1], [2]]),
        ([[1], [0]], 1, np.stack([X[0, 1], X[1, 0]])),
        ([[[2, 0], [0, 3]], [[1, 1], [-1, -1]]], 1, np.stack([X[0][[2, 0], [0, 3]], X[1][[1, -1], [1, -1]]])),
        ([[[1], [2], [0]], [[3], [0], [1]]], 2, np.take_along_axis(X, np.array([[[1], [2], [0]], [[3], [0], [1]]]), 2)[..., 0]),
    ],
)
def test_gather_nd_reads_at_coordinates(indices, batch_dims, expected):
    equal(run("GatherND", X, np.array(indices), batch_dims=batch_dims), expected)


def test_scalars_have_no_axis_to_index():
    for op in ("Gather", "GatherElements"):
        with pytest.raises(ModelError, match=f"{op} needs an axis"):
            infer(op, f32(), i64())
    with pytest.raises(ModelError, match="0 coordinates"):
        infer("GatherND", X, i64(2, 0))


def test_gather_nd_keeps_symbols():
    assert infer("GatherND", f32(B, S, 16), i64(B, 5, 1), batch_dims=1) == f32(B, 5, 16)
    assert infer("GatherND", f32(B, S, 16), i64(S, 3)) == f32(S)
    assert infer("GatherND", f32(B, S), i64(4, S)).shape is None
    with pytest.raises(ModelError, match="3 coordinates after 0 batch axes"):
        infer("GatherND", f32(B, S), i64(4, 3))
    with pytest.raises(ModelError, match="2 is not 3"):
        infer("GatherND", f32(2, S), i64(3, 1), batch_dims=1)
