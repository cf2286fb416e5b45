"""Softmax, LogSoftmax and Hardmax on the emulated device beside their references."""

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda import grids
from miniinfer_cli.backends.cuda.launching.row_groups import row_groups
from miniinfer_cli.backends.cuda.target import Target
from tests.backends.cuda.harness import check_op

RNG = np.random.default_rng(7)
OPS = ("Softmax", "LogSoftmax", "Hardmax")
SMALL = Target(multiprocessors=2)


def normal(*shape, dtype=np.float32):
    return (RNG.standard_normal(shape) * 4).astype(dtype)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 5), -1), ((5, 3), 0), ((2, 8, 6), 1), ((300, 16), 1), ((2, 3, 768), -1), ((2, 1000), 1)]
)
def test_axes(op, shape, axis):
    check_op(op, normal(*shape), axis=axis, tolerance=5e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_types(dtype):
    for op in OPS:
        check_op(op, normal(4, 24, dtype=dtype), tolerance=None if op == "Softmax" else 2e-2 if dtype != np.float64 else 1e-12)
        check_op(
            op, normal(4, 24, dtype=dtype), axis=0, tolerance=None if op == "Softmax" else 2e-2 if dtype != np.float64 else 1e-12
        )


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_rows_longer_than_registers_hold(op):
    check_op(op, normal(2, 9001), axis=1, tolerance=1e-5)
    check_op(op, normal(3000, 2), axis=0, tolerance=5e-5)


def test_several_warps_share_few_long_columns():
    check_op("Softmax", normal(2, 900, 3), axis=1, tolerance=1e-5)


def test_infinities_and_nan():
    x = np.array([[1, np.inf, -np.inf, 2], [-np.inf] * 4, [np.nan, 1, 2, 3], [-np.inf, 0, 1, 2]], np.float32)
    for op in OPS:
        check_op(op, x)
        check_op(op, x.T.copy(), axis=0)
    for op in ("Softmax", "LogSoftmax"):
        long = np.zeros((4, 9001), np.float32)
        long[:, :4] = x
        check_op(op, long, tolerance=1e-5)


def test_scalars_and_empty_tensors():
    for op in OPS:
        check_op(op, np.float32(3).reshape(()))
        check_op(op, np.zeros((0, 3), np.float32))
        check_op(op, np.zeros((3, 0), np.float32))


def test_indices_of_64_bits(monkeypatch):
    monkeypatch.setattr(grids, "_SMALL", 0)
    for axis in (0, 1):
        check_op("Softmax", normal(5, 12), axis=axis)
        check_op("Hardmax", normal(5, 12), axis=axis)


def test_hardmax_of_integers():
    check_op("Hardmax", RNG.integers(-3, 3, (4, 6)).astype(np.int32), axis=0)


@pytest.mark.parametrize(
    ("rows", "length", "nbytes"), [(8192, 768, 2), (128, 768, 2), (8192, 4096, 4), (1, 7, 4), (5, 30000, 2), (10**6, 3, 8)]
)
def test_groups_cover_their_rows(rows, length, nbytes):
    groups = row_groups(rows, length, nbytes, Target())
    assert groups is not None
    assert groups.packs * groups.width == length and groups.width * nbytes <= 16
    assert groups.threads * groups.loads >= groups.packs and groups.loads * groups.width <= 64
    threads = groups.threads * groups.rows_per_block
    assert threads % 32 == 0 and threads <= 512
    assert groups.threads <= 32 or (groups.rows_per_block == 1 and groups.threads % 32 == 0)
    assert groups.grid(rows)[0] * groups.rows_per_block >= rows


def test_no_groups_for_rows_that_do_not_fit():
    assert row_groups(5, 40000, 2, Target()) is None
    assert row_groups(5, 9001, 4, Target()) is None
