"""Rows between a pitch of any number of elements and one of whole vectors, both ways, on the emulated device."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.products.row_pitch import Rows, aligned, pack_rows, pad_rows
from tests.backends.cuda.performing import Buffer, launch

TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIZES = [(1, 1), (3, 5), (9, 16), (7, 33), (40, 257), (6, 1001), (2, 17)]


def numbered(nbytes: int, rows: int, columns: int) -> Any:
    return (np.arange(rows * columns) * 37 + 11).astype(TYPES[nbytes]).reshape(rows, columns)


def perform(action: Launch[Operand], source: Buffer, offset: int, destination: Buffer) -> None:
    addresses = {Operand.input(0): source.address + offset, Operand.output(0): destination.address}
    launch(action, addresses.__getitem__)
    source.check()
    destination.check()


@pytest.mark.parametrize("nbytes", TYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_rows_are_packed(nbytes: int, sizes: tuple[int, int]) -> None:
    rows, columns = sizes
    x, pitch = numbered(nbytes, rows, columns), aligned(columns, nbytes) + 16 // nbytes
    source, destination = Buffer(rows * pitch * nbytes), Buffer(rows * columns * nbytes)
    source.view(x.dtype, (rows, pitch))[:, :columns] = x
    form = Rows(nbytes, rows, columns, pitch)
    perform(pack_rows(Operand.output(0), Operand.input(0), form, Target()), source, 0, destination)
    np.testing.assert_array_equal(destination.view(x.dtype, x.shape), x)


@pytest.mark.parametrize("nbytes", TYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("skipped", [0, 1])
def test_rows_are_padded_with_zeros(nbytes: int, sizes: tuple[int, int], skipped: int) -> None:
    rows, columns = sizes
    x, pitch, padded = numbered(nbytes, rows, columns), columns + skipped, aligned(columns, nbytes)
    source, destination = Buffer((skipped + rows * pitch) * nbytes), Buffer(rows * padded * nbytes)
    source.view(x.dtype, (skipped + rows * pitch,))[skipped:].reshape(rows, pitch)[:, :columns] = x
    action = pad_rows(Operand.output(0), Operand.input(0), Rows(nbytes, rows, columns, pitch), Target())
    perform(action, source, skipped * nbytes, destination)
    want = np.zeros((rows, padded), x.dtype)
    want[:, :columns] = x
    np.testing.assert_array_equal(destination.view(x.dtype, want.shape), want)


def test_an_aligned_is_the_next_multiple_of_sixteen_bytes() -> None:
    assert [aligned(n, 2) for n in (1, 8, 9, 50257)] == [8, 8, 16, 50264]
    assert [aligned(n, 4) for n in (1, 4, 5)] == [4, 4, 8]
    assert [aligned(n, 1) for n in (16, 17)] == [16, 32]
    assert [aligned(n, 16) for n in (1, 3)] == [1, 3]
