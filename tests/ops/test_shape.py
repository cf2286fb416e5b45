"""Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze: contents, sizes left to be found, symbolic dimensions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import contents, infer, run, told

B, S, H = symbol("batch"), symbol("seq"), symbol("h")
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ANY_RANK = TensorType(DType.F32)


def f32(*dims):
    return TensorType(DType.F32, dims)


def shape_of(op, *inputs, **attrs):
    return infer(op, *inputs, **attrs).shape


@pytest.mark.parametrize("start", [None, -9, -2, 0, 1, 9])
@pytest.mark.parametrize("end", [None, -9, -1, 0, 2, 9])
def test_shape_takes_a_slice_of_the_dimensions(start, end):
    attrs = {name: value for name, value in (("start", start), ("end", end)) if value is not None}
    np.testing.assert_array_equal(run("Shape", X, **attrs), np.array(X.shape[start:end], np.int64), strict=True)
    assert infer("Shape", f32(B, 3, S), **attrs).known.tolist() == list((B, 3, S)[start:end])


def test_shape_of_unknown_rank_has_unknown_length_and_contents():
    type = infer("Shape", ANY_RANK)
    assert (type.dtype, len(type.shape), type.known) == (DType.I64, 1, None)


def test_size_multiplies_the_dimensions():
    np.testing.assert_array_equal(run("Size", X), np.array(24, np.int64), strict=True)
    assert infer("Size", f32(B, 3, S)).known.item() == 3 * B * S
    assert infer("Size", ANY_RANK).known is None


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((2, 3, 4), [6, 4], (6, 4)),
        ((2, 3, 4), [0, -1], (2, 12)),
        ((2, 3, 4), [-1], (24,)),
        ((1,), [], ()),
        ((), [1, 1], (1, 1)),
        ((0, 3), [0, 5], (0, 5)),
        ((0, 3), [0, -1], (0, 3)),
        ((B, S, 768), [0, 0, 12, 64], (B, S, 12, 64)),
        ((B, S, 768), [0, -1, 12, 64], (B, S, 12, 64)),
        ((B, S, 768), [B, S, -1, 64], (B, S, 12, 64)),
        ((B * S, 768), [B, -1, 768], (B, S, 768)),
        ((B + S, 4, H), [-1, H, 2], (2 * B + 2 * S, H, 2)),
        ((B + S, H), [B + S, -1], (B + S, H)),
        ((B, H), [-1, 2], (B * H // 2, 2)),
        ((B, 2 * H), [-1, H], (2 * B, H)),
    ],
)
def test_reshape_finds_the_dimension_left_over(source, target, expected):
    assert shape_of("Reshape", f32(*source), shape_operand(target)) == expected
    if all(isinstance(d, int) for d in source):
        x = np.arange(math.prod(source), dtype=np.int32).reshape(source)
        np.testing.assert_array_equal(run("Reshape", x, told(*target)), x.reshape(expected), strict=True)


def shape_operand(items):
    known = np.array(items, object if any(not isinstance(i, int) for i in items) else np.int64)
    return TensorType(DType.I64, known.shape, known)


def test_reshape_with_allowzero_takes_zero_for_zero():
    empty = np.empty((0, 4), np.float32)
    assert run("Reshape", empty, told(3, 0), allowzero=1).shape == (3, 0)
    with pytest.raises(ModelError, match="allowzero=1"):
        infer("Reshape", empty, told(0, -1), allowzero=1)


def test_reshape_to_an_unknown_shape_keeps_what_is_known():
    assert [str(d) for d in shape_of("Reshape", X, TensorType(DType.I64, (2,)))] == ["?y0.0", "?y0.1"]
    assert shape_of("Reshape", X, TensorType(DType.I64, (B,))) is None
    assert [str(d) for d in shape_of("Reshape", ANY_RANK, told(0, 5, -1))] == ["?y0.0", "5", "?y0.2"]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ((2, 3), [-1, -1], "more than one dimension"),
        ((2, 3), [-2, 3], "negative dimension"),
        ((2, 3), [2, 3, 0], "copies dimension 2, but the input has rank 2"),
        ((2, 3), [4, -1], r"does not divide the input \[2,3\]"),
        ((2, 3), [0, -1, 0], "has rank 2"),
        ((2, 3), [5], "6 elements, not 5"),
    ],
)
def test_reshape_that_does_not_fit_is_refused(source, target, message):
    with pytest.raises(ModelError, match=message):
        infer("Reshape", f32(*source), shape_operand(target))


@given(st.lists(st.integers(1, 6), max_size=5), st.data())
def test_reshape_agrees_with_numpy(dims, data):
    order = data.draw(st.permutations(dims))
    target = list(order)
    if target and data.draw(st.booleans()):
        target[data.draw(st.integers(0, len(target) - 1))] = -1
    x = np.arange(math.prod(dims)).reshape(dims)
    np.testing.assert_array_equal(run("Reshape", x, told(*target)), x.reshape(order), strict=True)


@pytest.mark.parametrize("axis", range(-3, 4))
def test_flatten_splits_before_the_axis(axis):
    split = axis % 3 if axis != 3 else 3
    expected = X.reshape(math.prod(X.shape[:split]), -1)
    np.testing.assert_array_equal(run("Flatten", X, axis=axis), expected, strict=True)


def test_flatten_of_symbols_multiplies_them():
    assert shape_of("Flatten", f32(B, S, 4)) == (B, 4 * S)
    assert shape_of("Flatten", f32(), axis=0) == (1, 1)
    with pytest.raises(ModelError, match=r"axis 4 is outside \[-3, 3\]"):
        infer("Flatten", X, axis=4)


def test_squeeze_removes_axes_of_size_one():
    x = X.reshape(1, 2, 3, 1, 4)
    np.testing.assert_array_equal(run("Squeeze", x), X, strict=True)
    np.testing.assert_array_equal(run("Squeeze", x, told(-2)), X[None], strict=True)
    assert shape_of("Squeeze", f32(B, 1, S), told(1)) == (B, S)
    assert shape_of("Squeeze", f32(B, 1, S)) is None
    with pytest.raises(ModelError, match=r"axis 1 of f32\[1,2,3,1,4\] is not of size 1"):
        infer("Squeeze", x, told(1))
    assert len(shape_of("Squeeze", x, TensorType(DType.I64, (2,)))) == 3


def test_unsqueeze_counts_axes_in_the_result():
    np.testing.assert_array_equal(run("Unsqueeze", X, told(-1, 0)), X[None, ..., None], strict=True)
    assert shape_of("Unsqueeze", f32(B, S), told(1, 2)) == (B, 1, 1, S)
    with pytest.raises(ModelError, match="name an axis twice"):
        infer("Unsqueeze", X, told(0, -5))
    assert len(shape_of("Unsqueeze", X, TensorType(DType.I64, (1,)))) == 4


def test_axes_that_cannot_be_are_refused():
    for op in ("Squeeze", "Unsqueeze"):
        with pytest.raises(ModelError, match=f"{op} axes should be a vector"):
            infer(op, X, TensorType(DType.I64, (1, 1)))
    with pytest.raises(ModelError, match=r"removes 4 axes of f32\[2,3,4\]"):
        infer("Squeeze", X, TensorType(DType.I64, (4,)))
    with pytest.raises(ModelError, match="fewer of size 1"):
        infer("Squeeze", f32(10), TensorType(DType.I64, (1,)))
    assert shape_of("Squeeze", f32(B), TensorType(DType.I64, (1,))) == ()
    with pytest.raises(ModelError, match="target should be a vector"):
        infer("Reshape", X, TensorType(DType.I64, (2, 2)))


def test_symbolic_contents_move_with_the_shape():
    assert contents("Reshape", [B, 2, S, 4], [2, -1]) == [[B, 2], [S, 4]]
    assert contents("Unsqueeze", [B, 2], [0]) == [[B, 2]]
    assert contents("Squeeze", [[B, 2]], [0]) == [B, 2]
    assert contents("Flatten", [[B, 2], [S, 4]], axis=0) == [[B, 2, S, 4]]
    assert contents("Reshape", [1, 2, 3, 4], [B, -1]) is None


def test_strings_keep_their_type():
    x = np.array(["a", "b", "c", "d"], object)
    np.testing.assert_array_equal(run("Reshape", x, told(2, -1)), np.array([["a", "b"], ["c", "d"]], object), strict=True)
