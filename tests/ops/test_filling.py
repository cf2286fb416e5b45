"""ConstantOfShape, Range, EyeLike, OneHot."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import Told, contents, infer, run, told

B, S = symbol("batch"), symbol("seq")


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


def scalar(value, dtype="int64"):
    return Told(np.array(value, dtype))


def dims(*items):
    return TensorType(DType.I64, (len(items),), np.array(items, object))


def test_constant_of_shape_fills():
    equal(run("ConstantOfShape", told(2, 3)), np.zeros((2, 3), np.float32))
    equal(run("ConstantOfShape", told(2, 0), value=np.array([7], np.uint8)), np.full((2, 0), 7, np.uint8))
    equal(run("ConstantOfShape", told(), value=np.array([1], ml_dtypes.bfloat16)), np.array(1, ml_dtypes.bfloat16))
    assert infer("ConstantOfShape", dims(B, 1, S), value=np.array([True])) == TensorType(DType.BOOL, (B, 1, S))
    assert len(infer("ConstantOfShape", TensorType(DType.I64, (3,))).shape) == 3
    assert infer("ConstantOfShape", TensorType(DType.I64, (B,))).shape is None
    assert contents("ConstantOfShape", [2], value=np.array([5])) == [5, 5]


def test_constant_of_shape_that_makes_no_sense_is_refused():
    with pytest.raises(ModelError, match="negative dimension"):
        infer("ConstantOfShape", told(2, -1))
    with pytest.raises(ModelError, match="not all 0 or more"):
        lookup("", "ConstantOfShape").evaluate([np.array([-1])], {}, n_outputs=1)
    with pytest.raises(ModelError, match="should be a vector"):
        infer("ConstantOfShape", TensorType(DType.I64, (1, 2)))
    with pytest.raises(ModelError, match="2 elements"):
        infer("ConstantOfShape", told(2), value=np.zeros(2))


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-4, 4).filter(bool))
def test_range_of_integers_agrees_with_python(start, limit, delta):
    got = run("Range", scalar(start, "int32"), scalar(limit, "int32"), scalar(delta, "int32"))
    equal(got, np.array(range(start, limit, delta), np.int32))


def test_range_of_floats_does_not_reach_the_limit():
    got = run("Range", *(scalar(v, "float32") for v in (0.5, 2.0, 0.5)))
    equal(got, np.array([0.5, 1.0, 1.5], np.float32))
    equal(run("Range", *(scalar(v, "float64") for v in (1.0, 0.0, -0.3))), 1 + np.arange(4) * -0.3)
    half = run("Range", *(scalar(v, "float16") for v in (0.0, 3000.0, 1.0)))
    equal(half, np.arange(3000, dtype=np.float32).astype(np.float16))


def test_range_keeps_symbols():
    types = [TensorType(DType.I64, (), np.array(v, object)) for v in (2, S + 2, 1)]
    assert infer("Range", *types) == TensorType(DType.I64, (S,))
    assert contents("Range", S, S + 4, 2) == [S, S + 2]
    unknown = TensorType(DType.I64, ())
    assert [str(d) for d in infer("Range", unknown, unknown, unknown).shape] == ["?y0.0"]


def test_range_that_makes_no_sense_is_refused():
    with pytest.raises(ModelError, match="delta is 0"):
        infer("Range", scalar(0), scalar(3), scalar(0))
    with pytest.raises(ModelError, match="element types differ"):
        infer("Range", scalar(0), scalar(3), scalar(1, "int32"))


@pytest.mark.parametrize("k", [-5, -1, 0, 2])
def test_eye_like_fills_a_diagonal(k):
    equal(run("EyeLike", np.zeros((3, 4), np.int32), k=k), np.eye(3, 4, k, dtype=np.int32))
    equal(run("EyeLike", np.zeros((3, 4), np.int32), k=k, dtype=16), np.eye(3, 4, k).astype(ml_dtypes.bfloat16))


def test_eye_like_wants_a_matrix():
    with pytest.raises(ModelError, match="rank 2"):
        infer("EyeLike", np.zeros(3))


@pytest.mark.parametrize("axis", [-1, 0, 1, -3])
def test_one_hot_puts_the_classes_on_a_new_axis(axis):
    indices = np.array([[0, 2, -1], [3, -4, 1]])
    hot = np.array([[[1, 0, 0], [0, 0, 1], [0, 0, 1]], [[0, 0, 0], [0, 0, 0], [0, 1, 0]]], np.float32)
    got = run("OneHot", indices, scalar(3), np.array([0, 1], np.float32), axis=axis)
    equal(got, np.moveaxis(hot, -1, axis))


def test_one_hot_takes_any_values_and_float_indices():
    off_on = np.array(["no", "yes"], object)
    got = run("OneHot", np.array([1.0, 0.0], np.float32), Told(np.array([2], np.float32)), off_on)
    equal(got, np.array([["no", "yes"], ["yes", "no"]], object))
    depth = TensorType(DType.I64, (), np.array(S, object))
    assert infer("OneHot", TensorType(DType.I64, (B,)), depth, np.zeros(2)) == TensorType(DType.F64, (B, S))
    with pytest.raises(ModelError, match="depth -1 is negative"):
        infer("OneHot", np.zeros(2), scalar(-1), np.zeros(2))
    with pytest.raises(ModelError, match="is not one number"):
        infer("OneHot", np.zeros(2), TensorType(DType.I64, (2,)), np.zeros(2))
    with pytest.raises(ModelError, match="rank 1"):
        infer("OneHot", np.zeros(2), scalar(2), np.zeros((1, 2)))
    with pytest.raises(ModelError, match="off and on"):
        infer("OneHot", np.zeros(2), scalar(2), np.zeros(3))
    with pytest.raises(ModelError, match=r"axis 2 is outside"):
        infer("OneHot", np.zeros(2), scalar(2), np.zeros(2), axis=2)


@pytest.mark.parametrize(
    ("operands", "said"),
    [
        ((0, np.inf, 1), "Range from 0 to inf by 1: expected finite numbers"),
        ((0, 5, np.nan), "Range from 0 to 5 by nan: expected finite numbers"),
        ((-1e308, 1e308, 1), r"Range from -1e\+308 to 1e\+308 by 1 has more elements than can be counted"),
        ((0, 1, 1e-320), "Range from 0 to 1 by .* has more elements than can be counted"),
    ],
)
def test_range_of_no_finite_length(operands, said):
    arrays = [np.array(v, np.float64) for v in operands]
    types = [TensorType(DType.F64, (), a) for a in arrays]
    for attempt in (lambda: lookup("", "Range").infer_types(types, {}, n_outputs=1),
                    lambda: lookup("", "Range").evaluate(arrays, {}, n_outputs=1)):  # fmt: skip
        with pytest.raises(ModelError, match=said):
            attempt()
