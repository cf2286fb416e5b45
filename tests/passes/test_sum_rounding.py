import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.ir import DType, constant
from miniinfer_cli.passes import sum_rounding
from miniinfer_cli.passes.sum_rounding import round_keeping_sums

KINDS = {DType.F16: np.dtype(np.float16), DType.BF16: np.dtype(ml_dtypes.bfloat16)}


def exact(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def steps(values):
    """The distance of each number to the next one above it."""
    return np.nextafter(abs(values), values.dtype.type(np.inf)).astype(np.float64) - abs(values).astype(np.float64)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(
    ("shape", "kept"),
    [((16, 12, 3, 3), (0,)), ((24, 1, 3, 3), (0,)), ((700, 20), (1,)), ((2, 6, 4, 3, 3), (0, 2)), ((3, 40, 8), (0, 2))],
    ids=["convolution", "depthwise", "product", "transposed, groups", "batched product"],
)
def test_every_weight_is_a_neighbour_of_the_exact_one_and_sums_are_kept(dtype, shape, kept):
    weights = exact(*shape)
    got = round_keeping_sums(constant(weights), dtype, kept).array()
    assert got.shape == shape and got.dtype == KINDS[dtype]
    wide, step = got.astype(np.float64), steps(got)
    assert (abs(wide - weights) <= step).all()
    summed = tuple(i for i in range(len(shape)) if i not in kept)
    assert (abs((wide - weights).sum(axis=summed)) <= step.max(axis=summed) / 2 + 1e-9).all()
    plain = weights.astype(KINDS[dtype]).astype(np.float64)
    # Few are turned, and those that lose least.
    assert np.sqrt(np.mean((wide - weights) ** 2)) <= 1.15 * np.sqrt(np.mean((plain - weights) ** 2))


def test_zeros_exact_numbers_and_rows_that_overflow_stay():
    weights = exact(4, 50)
    weights[0, ::2] = 0
    weights[1] = np.float16(weights[1])
    weights[2, 3] = 1e6
    weights[3, 7] = np.nan
    with np.errstate(over="ignore"):
        got, plain = round_keeping_sums(constant(weights), DType.F16, (0,)).array(), weights.astype(np.float16)
    assert (got[0, ::2] == 0).all()
    assert np.array_equal(got[1:], plain[1:], equal_nan=True)
    assert (got[0] != plain[0]).any()


def test_no_weight_is_turned_into_an_infinity():
    weights = np.full((1, 40), 65519, np.float32)  # rounds down, and the next number above is infinite
    assert (round_keeping_sums(constant(weights), DType.F16, (0,)).array() == 65504).all()


@pytest.mark.parametrize("kept", [(0,), (1,), (0, 2)])
def test_a_block_of_a_large_one_is_part_of_the_whole(monkeypatch, kept):
    weights = exact(70, 12, 50)
    large = round_keeping_sums(constant(weights), DType.F16, kept)
    assert not large.is_small and type(large) is sum_rounding.SumRounded
    whole = large.array()
    monkeypatch.setattr(sum_rounding, "_ELEMENTS", 2000)
    for index in ((slice(3, 9), slice(0, 12), slice(0, 50)), (slice(0, 70), slice(5, 6), slice(7, 31)), (slice(2, 2),) * 3):
        assert np.array_equal(large.block(index), whole[index])
    assert b"".join(large.chunks(5000)) == whole.tobytes()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (5,)])
def test_odd_shapes(shape):
    weights = exact(*shape)
    assert np.array_equal(round_keeping_sums(constant(weights), DType.F16, (0,)).array(), weights.astype(np.float16))
