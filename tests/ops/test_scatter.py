"""Scatter, ScatterElements, ScatterND, TensorScatter: writing, reducing where indices meet, and what does not fit."""

import itertools

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from tests.ops.checked import contents, infer, run, told

B, S = symbol("batch"), symbol("seq")
REDUCE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def equal(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


def test_scatter_elements_writes_each_into_its_own_line():
    x = np.zeros((3, 3), np.float32)
    updates = np.array([[1.0, 1.1, 1.2], [2.0, 2.1, 2.2]], np.float32)
    indices = np.array([[1, 0, 2], [0, 2, 1]])
    expected = np.array([[2.0, 1.1, 0.0], [1.0, 0.0, 2.2], [0.0, 2.1, 1.2]], np.float32)
    equal(run("ScatterElements", x, indices, updates), expected)
    equal(run("ScatterElements", x.T, indices.T - 3, updates.T, axis=-1), expected.T)
    equal(run("Scatter", x, indices, updates), expected)
    equal(x, np.zeros((3, 3), np.float32))


@pytest.mark.parametrize("reduction", REDUCE)
def test_reductions_gather_up_repeated_indices(reduction):
    rng = np.random.default_rng(3)
    x, updates = rng.integers(-4, 5, (4, 3)), rng.integers(-4, 5, (6, 3))
    indices = rng.integers(-4, 4, (6, 3))
    expected, rows = x.copy(), x.copy()
    for i, j in np.ndindex(6, 3):
        expected[indices[i, j], j] = REDUCE[reduction](expected[indices[i, j], j], updates[i, j])
    for i in range(6):
        rows[indices[i, 0]] = REDUCE[reduction](rows[indices[i, 0]], updates[i])
    equal(run("ScatterElements", x, indices, updates, reduction=reduction), expected)
    equal(run("ScatterND", x, indices[:, :1], updates, reduction=reduction), rows)


def test_half_floats_add_up_in_f32():
    ones = np.full(300, 1, ml_dtypes.bfloat16)
    got = run("ScatterElements", np.zeros(1, ml_dtypes.bfloat16), np.zeros(300, np.int64), ones, reduction="add")
    equal(got, np.array([300], ml_dtypes.bfloat16))  # one by one in bf16 it would stay at 256


def test_scatter_nd_writes_slices_and_elements():
    x = np.arange(24).reshape(2, 3, 4)
    expected = x.copy()
    expected[1, 2], expected[0, 0] = 0, 7
    updates = np.stack([np.zeros(4, np.int64), np.full(4, 7)])
    equal(run("ScatterND", x, np.array([[1, -1], [0, 0]]), updates), expected)
    words = np.array(["a", "b", "c"], object)
    equal(run("ScatterND", words, np.array([[2]]), np.array(["z"], object)), np.array(["a", "b", "z"], object))
    assert contents("ScatterND", [B, 1, S], [[1], [2]], [S, 4]) == [B, S, 4]
    assert contents("ScatterElements", [B, 1, S], [1], [S]) == [B, S, S]


@pytest.mark.parametrize(
    ("op", "indices", "updates", "attrs", "message"),
    [
        ("ScatterElements", (2, 3), (2, 3), {"reduction": "mean"}, "'mean' is not one of"),
        ("ScatterElements", (2,), (2,), {}, "differ in rank"),
        ("ScatterElements", (2, 3), (2, 2), {}, "3 is not 2"),
        ("ScatterElements", (2, 3), (2, 3), {"axis": 2}, "axis 2 is outside"),
        ("ScatterND", (2, 0), (2, 2, 3), {}, "0 coordinates do not index"),
        ("ScatterND", (2, 3), (2,), {}, "3 coordinates do not index"),
        ("ScatterND", (5, 1), (5,), {}, "should have rank 2"),
        ("ScatterND", (5, 1), (5, 4), {}, "4 is not 3"),
    ],
)
def test_operands_that_do_not_fit_are_refused(op, indices, updates, attrs, message):
    data = TensorType(DType.F32, (2, 3))
    with pytest.raises(ModelError, match=message):
        infer(op, data, TensorType(DType.I64, indices), TensorType(DType.F32, updates), **attrs)


def test_unknown_ranks_pass():
    data, indices, updates = (TensorType(DType.F32), TensorType(DType.I64), TensorType(DType.F32))
    for known in itertools.product([True, False], repeat=3):
        types = [TensorType(t.dtype, (B, 1)) if k else t for t, k in zip((data, indices, updates), known, strict=True)]
        assert infer("ScatterND", *types) == types[0] == infer("ScatterElements", *types)


def test_updates_of_another_type_are_refused():
    with pytest.raises(ModelError, match="differ in element type"):
        infer("ScatterND", TensorType(DType.F32, (2,)), TensorType(DType.I64, (1, 1)), TensorType(DType.F64, (1,)))


def test_a_scalar_has_no_axis_to_write_along():
    scalar = TensorType(DType.F32, ())
    with pytest.raises(ModelError, match="needs an axis"):
        infer("ScatterElements", scalar, TensorType(DType.I64, ()), scalar)


def test_an_index_outside_is_refused():
    with pytest.raises(ModelError, match=r"ScatterElements index 2 is outside \[-2, 1\]"):
        run("ScatterElements", np.zeros(2), np.array([2]), np.ones(1))


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter_writes_from_each_samples_index(mode):
    cache, update = np.zeros((2, 1, 5, 2), np.float32), np.arange(1, 13, dtype=np.float32).reshape(2, 1, 3, 2)
    starts = [0, 2] if mode == "linear" else [4, 2]
    expected = cache.copy()
    for sample, step in np.ndindex(2, 3):
        expected[sample, :, (starts[sample] + step) % 5] = update[sample, :, step]
    equal(run("TensorScatter", cache, update, told(*starts), mode=mode), expected)
    equal(run("TensorScatter", cache.swapaxes(1, 2), update.swapaxes(1, 2), told(*starts), mode=mode, axis=1),
          expected.swapaxes(1, 2))  # fmt: skip


def test_tensor_scatter_without_indices_starts_at_zero():
    got = run("TensorScatter", np.zeros((1, 4, 1), np.int8), np.ones((1, 2, 1), np.int8))
    equal(got, np.array([[[1], [1], [0], [0]]], np.int8))
    cache = TensorType(DType.F16, (B, 8, S, 64))
    assert infer("TensorScatter", cache, TensorType(DType.F16, (B, 8, 1, 64))) == cache


def test_tensor_scatter_that_does_not_fit_is_refused():
    cache, update = np.zeros((1, 4, 1)), np.ones((1, 2, 1))
    with pytest.raises(ModelError, match="writes 2 entries at 3 into a cache of 4"):
        run("TensorScatter", cache, update, told(3))
    with pytest.raises(ModelError, match="writes 2 entries at -1 into"):
        run("TensorScatter", cache, update, told(-1))
    with pytest.raises(ModelError, match="longer than the cache"):
        infer("TensorScatter", update, cache)
    with pytest.raises(ModelError, match="batch axis"):
        infer("TensorScatter", cache, update, axis=0)
    with pytest.raises(ModelError, match="'ring' is neither"):
        infer("TensorScatter", cache, update, mode="ring")
