"""DepthToSpace, SpaceToDepth, ReverseSequence, Trilu on the emulated device beside their references."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op, run_op

RNG = np.random.default_rng(3)


def data(*shape, dtype=np.float32):
    return RNG.integers(1, 100, shape).astype(dtype)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_blocks(mode, dtype):
    check_op("DepthToSpace", data(2, 12, 3, 20, dtype=dtype), blocksize=2, mode=mode)
    check_op("SpaceToDepth", data(2, 3, 6, 20, dtype=dtype), blocksize=2, mode=mode)
    check_op("DepthToSpace", data(0, 4, 3, 2, dtype=dtype), blocksize=2, mode=mode)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_reverse_sequence(dtype):
    for shape in [(5, 3), (5, 3, 16), (5, 3, 2, 5), (0, 3)]:
        check_op("ReverseSequence", data(*shape, dtype=dtype), np.array([min(n, shape[0]) for n in (5, 0, 3)]))
    check_op("ReverseSequence", data(5, 3, 4, dtype=dtype), np.array([3, 2, 1, 0, 2]), batch_axis=0, time_axis=1)


def test_lengths_outside_are_cut():
    (got,) = run_op("ReverseSequence", np.arange(4, dtype=np.float32).reshape(4, 1), np.array([9]))
    np.testing.assert_array_equal(got[:, 0], [3, 2, 1, 0])
    (got,) = run_op("ReverseSequence", np.arange(4, dtype=np.float32).reshape(4, 1), np.array([-9]))
    np.testing.assert_array_equal(got[:, 0], [0, 1, 2, 3])


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_trilu(upper, dtype):
    for shape in [(5, 7), (3, 6, 16), (4, 4), (2, 0, 3)]:
        check_op("Trilu", data(*shape, dtype=dtype), upper=upper)
        for k in (1, -2, 100, -100):
            check_op("Trilu", data(*shape, dtype=dtype), np.array(k), upper=upper)  # read on the device
            check_op("Trilu", data(*shape, dtype=dtype), np.array([k]), upper=upper, constants=(1,))


def test_many_matrices():
    check_op("Trilu", data(40, 32, 33), target=Target(multiprocessors=1))


def test_64_bit_indices(wide_indices):
    check_op("Trilu", data(3, 5, 7))
    check_op("ReverseSequence", data(5, 3, 4), np.array([5, 0, 3]))
    check_op("DepthToSpace", data(2, 12, 3, 4), blocksize=2)
