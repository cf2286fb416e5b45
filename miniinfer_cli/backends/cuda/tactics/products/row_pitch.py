"""Rows moved between a pitch of any number of elements and one at which every row begins at a multiple of 16 bytes."""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import unit_type
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over

VECTOR = 16
"""Bytes that kernels and libraries move at once, and want rows to begin at multiples of."""


@dataclass(frozen=True, slots=True)
class Rows:
    """``matrices`` of ``rows`` of ``columns`` elements of ``nbytes`` (1, 2, 4 or 8).

    Rows begin ``pitch`` elements apart, matrices ``stride``.
    """

    nbytes: int
    rows: int
    columns: int
    pitch: int
    matrices: int = 1
    stride: int = 0


def aligned(count: int, nbytes: int) -> int:
    """The next number of elements of ``nbytes`` (1 to 16) that fills a multiple of 16 bytes."""
    return -(-count * nbytes // VECTOR) * VECTOR // nbytes


def pack_rows(destination: Operand, source: Operand, form: Rows, target: Target) -> Launch[Operand]:
    """The source's one matrix of ``form``, dense. Operands, and the source's rows, begin at multiples of 16 bytes."""
    total = form.rows * form.columns
    index = index_dtype(total).type
    count = -(-total * form.nbytes // VECTOR)
    sizes = (index(count), index(total), index(form.columns), dividers([form.columns]))
    kernel = Kernel("pack_rows", "row_pitch.cu", _defines(form, total))
    return launch_over(kernel, count, (source, destination, *sizes, np.int64(form.pitch)), target.multiprocessors)


def pad_rows(
    destination: Operand, source: Operand, form: Rows, target: Target, *, height: int = 0, width: int = 0
) -> Launch[Operand]:
    """Dense matrices of ``height`` rows of ``width`` elements, whole vectors: the source's of ``form``, and zeros around them.

    Left out, they are the rows that there are, and their columns up to a whole vector. The destination begins at a multiple of 16
    bytes, the source at one of an element's.
    """
    height, vectors = height or form.rows, (width or aligned(form.columns, form.nbytes)) * form.nbytes // VECTOR
    count = form.matrices * height * vectors
    largest = count * VECTOR // form.nbytes
    index = index_dtype(largest).type
    sizes = (index(count), index(vectors), index(height), dividers([vectors, height]), index(form.rows), index(form.columns))
    kernel = Kernel("pad_rows", "row_pitch.cu", _defines(form, largest))
    distances = (np.int64(form.pitch), np.int64(form.stride))
    return launch_over(kernel, count, (source, destination, *sizes, *distances), target.multiprocessors)


def _defines(form: Rows, largest: int) -> tuple[tuple[str, str], ...]:
    return ("MI_T", unit_type(form.nbytes)), ("MI_INDEX", index_name(largest))
