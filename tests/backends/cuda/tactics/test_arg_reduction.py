"""ArgMax and ArgMin on the emulated device beside their references."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_ties_axes_and_keepdims(op, last):
    x = RNG.integers(-3, 3, (4, 9, 8)).astype(np.float32)
    for axis in (0, 1, -1):
        check_op(op, x, axis=axis, select_last_index=last, keepdims=axis & 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint64])
def test_types(dtype):
    x = (RNG.standard_normal((3, 40)) * 50).astype(dtype)
    check_op("ArgMax", x, axis=1)
    check_op("ArgMin", x, axis=1)


@pytest.mark.parametrize("last", [0, 1])
def test_nan_comes_first(last):
    x = np.array([[1, np.nan, 5, np.nan], [np.inf, 2, np.inf, -np.inf]], np.float32)
    for op in ("ArgMax", "ArgMin"):
        check_op(op, x, axis=1, select_last_index=last)
        check_op(op, x, axis=0, select_last_index=last)


def test_long_axes_are_split():
    x = RNG.integers(0, 1000, (1, 20000)).astype(np.int32)
    check_op("ArgMax", x, axis=1, target=Target(multiprocessors=2))
    check_op("ArgMax", x, axis=1, select_last_index=1, target=Target(multiprocessors=2))
    check_op("ArgMin", x.reshape(5000, 4), axis=0, target=Target(multiprocessors=2))


def test_scalars_and_no_results():
    check_op("ArgMax", np.float32(3).reshape(()))
    check_op("ArgMax", np.zeros((0, 3), np.float32), axis=1)


def test_indices_of_64_bits(wide_indices):
    check_op("ArgMax", RNG.standard_normal((5, 12)).astype(np.float32), axis=1)


def test_every_tactic_finds_the_extreme_when_it_is_forced():
    keys = check_every_tactic("ArgMax", RNG.integers(-9, 9, (3, 600)).astype(np.float32), axis=1, target=Target())
    assert keys == ["reduce by 64 threads", "reduce by 32 threads", "reduce by 32 threads in 4 parts"]
