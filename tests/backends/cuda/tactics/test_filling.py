"""ConstantOfShape, Range, EyeLike, OneHot on the emulated device beside their references."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Fill
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics.lowered import lower_op
from tests.backends.nodes import make_graph


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, np.complex128, ml_dtypes.bfloat16])
def test_constant_of_shape(dtype):
    for shape in [(4097,), (3, 1367), (64, 65)]:
        check_op("ConstantOfShape", np.array(shape, np.int64), value=np.array([7], dtype), target=Target(multiprocessors=1))
    check_op("ConstantOfShape", np.array([41, 100]), by="fill")


@pytest.mark.parametrize("shape", [(3, 5), (0,), (1,), (), (64, 64)])
def test_a_small_constant_of_shape_is_known(shape):
    graph = make_graph(
        "ConstantOfShape",
        [np.array(shape, np.int64)],
        domain="",
        n_outputs=1,
        constants=(0,),
        body=None,
        attrs={"value": np.array([7], np.int32)},
    )
    (got,) = run_graph(graph, [], Target(), instead=())
    np.testing.assert_array_equal(got, np.full(shape, 7, np.int32))


def test_a_value_of_equal_bytes_is_set():
    for value in (0, -1):
        lowered = lower_op("ConstantOfShape", np.array([3, 5]), value=np.array([value], np.int64), constants=(0,))
        assert isinstance(lowered.actions[0], Fill)
    assert lower_op("ConstantOfShape", np.array([3]), value=np.array(["a"], object), constants=(0,)) is None
    assert lower_op("ConstantOfShape", np.array([3])) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int16, np.int64])
def test_range(dtype):
    step = 2 if np.dtype(dtype).kind == "i" else 0.25
    for ends in ((1, 5000 * step), (10, -4500 * step, -1)):
        start, stop, sign = (*ends, 1)[:3]
        check_op("Range", *(np.array(x, dtype) for x in (start, stop, step * sign)), by="range")
    check_op("Range", *(np.array(x, dtype) for x in (1, 100, 3)), instead=())  # so few are known
    check_op("Range", *(np.array(x, dtype) for x in (10, -3, 2)), instead=())


def test_long_ranges():
    check_op("Range", *(np.array(x, np.float32) for x in (0.1, 3000, 0.3)), target=Target(multiprocessors=1), tolerance=0.0)
    assert lower_op("Range", *(np.array(x) for x in (0, 9, 1))) is None


def test_eye_like():
    for k in (0, 1, -2, 50):
        check_op("EyeLike", np.ones((5, 6), np.float32), k=k)
    check_op("EyeLike", np.ones((5, 6), np.float32), dtype=11, k=1)
    check_op("EyeLike", np.ones((5, 6), np.float32), dtype=16)
    check_op("EyeLike", np.ones((5, 0), np.int8))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_one_hot(dtype):
    chosen, values = np.array([[0, 2], [-1, 7]]), np.array([3, 9], dtype)
    for axis in (-1, 0, 1):
        check_op("OneHot", chosen, np.array(6), values, axis=axis)
    check_op("OneHot", chosen, np.array([8]), values)  # several classes at once
    check_op("OneHot", np.array(3), np.array(6), values)
    check_op("OneHot", np.zeros((0, 2), np.int64), np.array(6), values)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32, np.float16])
def test_indices_of_any_type(dtype):
    check_op("OneHot", np.array([0, 2, 7, 3.7]).astype(dtype), np.array(6), np.array([0, 1], np.float32))


def test_a_depth_that_depends_on_data_is_the_hosts():
    assert lower_op("OneHot", np.array([1]), np.array(6), np.array([0, 1])) is None


def test_64_bit_indices(wide_indices):
    check_op("ConstantOfShape", np.array([3, 1367]), value=np.array([7], np.float32))
    check_op("Range", np.array(3), np.array(9000), np.array(2))
    check_op("OneHot", np.array([0, 2]), np.array(6), np.array([0, 1], np.float32))
    check_op("EyeLike", np.ones((5, 6), np.float32), k=1)
