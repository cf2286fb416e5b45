"""Where index tensors point: the arguments of ``Places`` in kernels/places.cuh, from shapes."""

import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Argument
from miniinfer_cli.backends.cuda.contract.strides import merge_axes, row_major
from miniinfer_cli.backends.cuda.launching.division import dividers
from miniinfer_cli.backends.cuda.launching.grids import index_dtype
from miniinfer_cli.backends.cuda.launching.strided_copy import compiled_rank, walk


def element_places(data: Sequence[int], indices: Sequence[int], axis: int, largest: int) -> tuple[int, tuple[Argument, ...]]:
    """MI_RANK and the arguments where each of ``indices`` is the coordinate of one element along ``axis``."""
    index = index_dtype(largest).type
    strides = row_major(data)
    fixed = [0 if i == axis else s for i, s in enumerate(strides)]
    sizes, (walked,) = merge_axes(indices, fixed)
    rank = compiled_rank(len(sizes))
    return rank, (*walk(rank, largest, sizes, walked), index(data[axis]), index(strides[axis]))


def slice_places(sizes: Sequence[int], per_batch: int, largest: int) -> tuple[Argument, ...]:
    """The arguments where each vector of ``len(sizes)`` indices has a slice's coordinates, ``per_batch`` of them a batch.

    MI_RANK is the number of coordinates.
    """
    index = index_dtype(largest)
    extent, stride = index.type(max(per_batch, 1)), index.type(math.prod(sizes))
    return (np.array(sizes, index), dividers([max(n, 1) for n in sizes]), np.array(row_major(sizes), index), extent, stride)
