"""The Reduce operations against plain loops over the elements."""

import itertools
import math

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops.sums import add_up
from tests.ops.checked import array, contents, infer, run, run_expanded, told

N = symbol("n")

# What each makes of a list of numbers, in exact arithmetic.
MEANINGS = {
    "ReduceSum": math.fsum,
    "ReduceMean": lambda xs: math.fsum(xs) / len(xs),
    "ReduceProd": math.prod,
    "ReduceMax": max,
    "ReduceMin": min,
    "ReduceL1": lambda xs: math.fsum(abs(x) for x in xs),
    "ReduceL2": lambda xs: math.sqrt(math.fsum(x * x for x in xs)),
    "ReduceSumSquare": lambda xs: math.fsum(x * x for x in xs),
    "ReduceLogSum": lambda xs: math.log(math.fsum(xs)),
    "ReduceLogSumExp": lambda xs: math.log(math.fsum(math.exp(x) for x in xs)),
}
COMPOSITES = ["ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"]
DATA = np.random.default_rng(5).uniform(0.5, 3, (2, 3, 4))


def by_loops(op, data, over, keepdims):
    kept = [i for i in range(data.ndim) if i not in over]
    shape = [1 if i in over else n for i, n in enumerate(data.shape)]
    out = np.empty([data.shape[i] for i in kept])
    for index in itertools.product(*(range(data.shape[i]) for i in kept)):
        at = [slice(None)] * data.ndim
        for axis, position in zip(kept, index, strict=True):
            at[axis] = position
        out[index] = MEANINGS[op](data[tuple(at)].reshape(-1).tolist())
    return out.reshape(shape) if keepdims else out


@pytest.mark.parametrize("op", MEANINGS)
@pytest.mark.parametrize(("given", "over"), [(told(1), {1}), (told(-1, 0), {0, 2}), (None, {0, 1, 2}), (told(), {0, 1, 2})])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduces_over_the_axes(op, given, over, keepdims):
    inputs = [DATA] if given is None else [DATA, given]
    expected = by_loops(op, DATA, over, keepdims)
    np.testing.assert_allclose(run(op, *inputs, keepdims=keepdims), expected, rtol=1e-12)
    np.testing.assert_allclose(run(op, DATA.astype(np.float32), *inputs[1:], keepdims=keepdims), expected, rtol=1e-6)


@pytest.mark.parametrize("op", MEANINGS)
def test_over_no_axis_only_the_other_steps_are_done(op):
    expected = np.array([[MEANINGS[op]([x]) for x in row] for row in DATA[0].tolist()])
    np.testing.assert_allclose(run(op, DATA[0], told(), noop_with_empty_axes=1), expected, rtol=1e-12)
    np.testing.assert_allclose(run(op, DATA[0], noop_with_empty_axes=1), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("op", "dtype", "expected"),
    [
        ("ReduceSum", "float32", 0),
        ("ReduceProd", "float32", 1),
        ("ReduceL1", "int32", 0),
        ("ReduceL2", "float32", 0),
        ("ReduceSumSquare", "int64", 0),
        ("ReduceLogSum", "float32", -np.inf),
        ("ReduceLogSumExp", "float32", -np.inf),
        ("ReduceMax", "float32", -np.inf),
        ("ReduceMax", "int8", -128),
        ("ReduceMax", "uint8", 0),
        ("ReduceMax", "bool", False),
        ("ReduceMin", "float16", np.inf),
        ("ReduceMin", "int8", 127),
        ("ReduceMin", "bool", True),
    ],
)
def test_over_nothing(op, dtype, expected):
    result = run(op, np.zeros((2, 0, 3), dtype), told(1), keepdims=0)
    np.testing.assert_array_equal(result, np.full((2, 3), expected, dtype))


@pytest.mark.parametrize(
    ("op", "expected"),
    [("ReduceSum", -8), ("ReduceMean", -1), ("ReduceProd", 32), ("ReduceL1", 12), ("ReduceL2", 6), ("ReduceSumSquare", 38)],
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_stay_integers_rounded_towards_zero(op, expected, dtype):
    result = run(op, np.array([-4, -1, 2, -4, -1], dtype))
    np.testing.assert_array_equal(result, np.array([expected], dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_width_sums_are_rounded_once(dtype):
    # 4096 ones: a running sum in either type would stop at 256 or 2048.
    assert run("ReduceSum", array(np.ones(4096), dtype)).astype(np.float32) == 4096
    assert run("ReduceL2", array(np.full(4, 1000.0), dtype)).astype(np.float32) == 2000


def test_large_exponents_do_not_overflow():
    np.testing.assert_allclose(run("ReduceLogSumExp", np.array([1000.0, 1000.0])), [1000 + math.log(2)])
    np.testing.assert_array_equal(run("ReduceLogSumExp", np.array([np.inf, 1.0])), [np.inf])


def test_booleans_are_ordered():
    table = np.array([[True, False], [False, False], [True, True]])
    np.testing.assert_array_equal(run("ReduceMax", table, told(1), keepdims=0), [True, False, True])
    np.testing.assert_array_equal(run("ReduceMin", table, told(1), keepdims=0), [False, False, True])


def test_a_scalar_is_its_own_sum():
    assert run("ReduceSum", np.array(3.0)) == 3


@pytest.mark.parametrize("op", COMPOSITES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("given", [(), (told(0, 2),)])
def test_expansion_gives_the_same(op, dtype, keepdims, given):
    data = array(DATA, dtype)
    result = run(op, data, *given, keepdims=keepdims)
    tolerance = {"float64": 1e-12, "float32": 1e-6, "float16": 0}[dtype]
    np.testing.assert_allclose(run_expanded(op, data, *given, keepdims=keepdims), result, rtol=tolerance)


@pytest.mark.parametrize(
    ("x", "given", "attrs", "shape"),
    [
        (TensorType(DType.F32, (N, 4, 5)), (told(1),), {}, (N, 1, 5)),
        (TensorType(DType.F32, (N, 4, 5)), (told(1, -3),), {"keepdims": 0}, (5,)),
        (TensorType(DType.F32, (N, 4)), (), {}, (1, 1)),
        (TensorType(DType.F32, (N, 4)), (), {"noop_with_empty_axes": 1}, (N, 4)),
        (TensorType(DType.F32, (N, 4)), (TensorType(DType.I64, (0,)),), {"noop_with_empty_axes": 1}, (N, 4)),
        (TensorType(DType.F32), (told(1),), {}, None),
    ],
)
def test_shapes(x, given, attrs, shape):
    assert infer("ReduceSum", x, *given, **attrs) == TensorType(DType.F32, shape)


def test_axes_known_at_run_time_alone_leave_the_rank():
    x, some = TensorType(DType.F32, (2, 3, 4)), TensorType(DType.I64, (2,))
    assert infer("ReduceSum", x, some).rank == 3
    assert infer("ReduceSum", x, some, keepdims=0).rank == 1
    assert infer("ReduceSum", x, TensorType(DType.I64, (N,)), keepdims=0).shape is None
    assert not any(isinstance(d, int) for d in infer("ReduceSum", x, some).shape)


@pytest.mark.parametrize(("bad", "message"), [(told(2), r"axis 2 is outside \[-2, 1\]"), (told(0, -2), "name an axis twice")])
def test_bad_axes_are_refused(bad, message):
    with pytest.raises(ModelError, match=message):
        infer("ReduceMean", TensorType(DType.F32, (2, 3)), bad)


@pytest.mark.parametrize("axes", [TensorType(DType.C64, (1,), np.array([1j])), TensorType(DType.F32, (1,))])
def test_axes_are_integers(axes):
    with pytest.raises(ModelError, match="expected integers"):
        infer("ReduceMean", TensorType(DType.F32, (2, 3)), axes)


def test_shape_arithmetic_is_followed():
    assert contents("ReduceProd", [N, 3, N], keepdims=0) == 3 * N * N
    assert contents("ReduceSum", [N, 3, -1]) == [N + 2]
    assert contents("ReduceMax", [N + 2, N, 1], keepdims=0) == N + 2
    assert contents("ReduceMin", [N, N + 4, N + 1], keepdims=0) == N
    assert contents("ReduceMax", [N, 4], keepdims=0) is None


def test_the_mean_of_nothing_is_nan_without_a_word():
    x = np.zeros((0, 3), np.float32)
    assert np.isnan(run("ReduceMean", x, told(0), keepdims=0)).tolist() == [True] * 3
    assert run("ReduceMean", x.astype(np.int64), told(0), keepdims=0).tolist() == [0] * 3
    assert run("ReduceMean", x, told(1)).shape == (0, 1)


@pytest.mark.parametrize("shape", [(1, 201, 213, 5), (3, 130, 7), (2, 65, 1, 3)])
def test_sums_over_many_rows_are_exact_but_for_a_rounding(shape: tuple[int, ...]) -> None:
    """Row by row, 43 000 additions were off by 3e-6: the means of a detector's images, then, by 7e-5 at its end."""
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    axes = tuple(range(1, len(shape) - 1))
    exact = x.astype(np.float64).sum(axes, keepdims=True)
    for keep in (True, False):
        found = add_up(x, axes, keep=keep)
        expected = exact if keep else exact.squeeze(axes)
        assert found.shape == expected.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    out = np.empty(exact.shape, np.float32)
    assert add_up(x, axes, keep=True, out=out) is out
    np.testing.assert_allclose(out, exact, rtol=1e-6)


def test_sums_along_other_axes() -> None:
    x = np.random.default_rng(0).random((70, 3, 80)).astype(np.float32)
    for axes in ((0,), (-1,), (0, 2), (1, 2), (0, 1, 2), (-3, 1)):
        np.testing.assert_allclose(add_up(x, axes, keep=False), x.astype(np.float64).sum(axes), rtol=2e-6)


def test_sums_of_what_is_not_finite() -> None:
    x = np.ones((1, 90, 4), np.float32)
    x[0, 3] = [np.inf, -np.inf, np.nan, 1]
    x[0, 80] = [1, 1, 1, np.inf]
    np.testing.assert_array_equal(add_up(x, (1,), keep=False), [[np.inf, -np.inf, np.nan, np.inf]])
