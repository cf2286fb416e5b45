"""Slice on the emulated device beside its reference."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Copy, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.lowered import lower_op

FAR = 2**62


def data(*shape, dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def operands(*lists):
    return [None if items is None else np.array(items, np.int64) for items in lists]


CUTS = [
    ([1, 2], [3, 5], None, None),
    ([1, -1], [3, -100], [0, -1], [1, -2]),  # backwards, past the front
    ([1], [3], [0], None),
    ([4], [3], [0], None),  # nothing
    ([0, 0], [FAR, FAR], [1, 2], [2, 4]),
    ([-1, -1, -1], [-FAR, -FAR, -FAR], [0, 1, 2], [-1, -1, -1]),  # all of it reversed
    ([-9, -7], [-FAR, -FAR], [0, 1], [-1, -2]),  # backwards from before the axis: its first element
    ([4], [FAR], [2], None),  # rows of a whole unit, off by one
    ([3], [7], [2], None),
]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.complex128])
def test_cuts(dtype):
    for cut in CUTS:
        check_op("Slice", data(4, 6, 8, dtype=dtype), *operands(*cut))


def test_long_rows():
    check_op("Slice", data(30, 1003), *operands([1], [1002], [1], [2]), target=Target(multiprocessors=1))


def test_dense_pieces_are_copies():
    cut = lower_op("Slice", data(4, 6, 8), *operands([1], [3], [0]), constants=(1, 2, 3))
    assert cut.actions == (Copy(Operand.output(0), Operand.input(0, 48 * 4), 96 * 4),)
    rows = lower_op("Slice", data(4, 6, 8), *operands([4], [8], [2]), constants=(1, 2, 3))
    assert ("MI_T", "Pack<u64, 2>") in rows.actions[0].kernel.defines


def test_bounds_that_depend_on_data_are_the_hosts():
    assert lower_op("Slice", data(4, 6), *operands([0], [2], [0])) is None


def test_64_bit_indices(wide_indices):
    check_op("Slice", data(4, 6, 8), *operands([1, -1], [3, -100], [0, -1], [1, -2]))
