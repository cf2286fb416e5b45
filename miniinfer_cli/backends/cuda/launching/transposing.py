"""Permuting axes: by tiles through shared memory where the last axis moves, as a strided copy where runs stay together."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.grids import index_dtype, index_name
from miniinfer_cli.backends.cuda.launching.strided_copy import Layouts, compiled_rank, copy_layouts, layouts
from miniinfer_cli.backends.cuda.steps import Copy, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.strides import row_major
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.types import unit_type

_THREADS = 256
_THIN = 16  # elements: a tile over a shorter axis is mostly empty, and the caches make up for such short strides


def permute(
    destination: Operand, source: Operand, nbytes: int, shape: Sequence[int], perm: Sequence[int], target: Target
) -> Copy[Operand] | Launch[Operand]:
    """Axis i of the dense destination is axis ``perm[i]`` of the dense source of ``shape``, which has no axis of size 0."""
    strides = row_major(shape)
    sizes = [shape[p] for p in perm]
    form = layouts(nbytes, sizes, row_major(sizes), [strides[p] for p in perm], destination.offset, source.offset)
    if not form.sizes or form.source[-1] == 1:
        return copy_layouts(destination, source, form, target)
    row = _first_long(form.sizes, form.destination)
    column = _first_long(form.sizes, form.source)
    if row is not None and column is not None and row != column:
        return _tiled(destination, source, form, row, column, target)
    return copy_layouts(destination, source, _in_best_order(form), target)


def _first_long(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The axis nearest to the end of memory that fills a tile, None when the axes behind it are too many to stride over."""
    axis = min((i for i, n in enumerate(sizes) if n >= _THIN), key=lambda i: strides[i], default=None)
    return axis if axis is not None and strides[axis] <= _THIN else None


def _in_best_order(form: Layouts) -> Layouts:
    """The axes in the order of that side whose last axis is short: its accesses are then dense, the other's nearly so."""
    last = form.source.index(min(form.source))
    if form.sizes[last] >= form.sizes[-1]:
        return form
    order = sorted(range(len(form.sizes)), key=lambda i: -form.source[i])
    sizes, targets, sources = (tuple(v[i] for i in order) for v in (form.sizes, form.destination, form.source))
    return Layouts(form.nbytes, sizes, targets, sources)


def _tiled(destination: Operand, source: Operand, form: Layouts, row: int, column: int, target: Target) -> Launch[Operand]:
    rows, columns = form.sizes[row], form.sizes[column]
    rest = [i for i in range(len(form.sizes)) if i not in (row, column)]
    batch = [form.sizes[i] for i in rest]
    side = 64 if form.nbytes <= 4 else 32
    if math.prod(batch) * -(-rows // side) * -(-columns // side) < 2 * target.multiprocessors:
        side = 32
    tiles = (-(-rows // side), -(-columns // side))
    count = math.prod(form.sizes)
    index: np.dtype[Any] = index_dtype(count)
    rank = compiled_rank(len(rest))
    lead = rank - len(rest)
    kernel = Kernel(
        "transpose",
        "transpose.cu",
        (
            ("MI_T", unit_type(form.nbytes)),
            ("MI_TILE", str(side)),
            ("MI_LOAD", str(_run(form, form.source, column))),
            ("MI_STORE", str(_run(form, form.destination, row))),
            ("MI_RANK", str(rank)),
            ("MI_INDEX", index_name(count)),
        ),
    )
    sizes = (rows, columns, form.source[row], form.source[column], form.destination[row], form.destination[column], *tiles)
    arguments = (
        source,
        destination,
        *(index.type(n) for n in sizes),
        np.array([1] * lead + batch, index),
        np.array([0] * lead + [form.source[i] for i in rest], index),
        np.array([0] * lead + [form.destination[i] for i in rest], index),
    )
    return Launch(kernel, (math.prod(batch) * math.prod(tiles),), (_THREADS,), arguments)


def _run(form: Layouts, strides: Sequence[int], axis: int) -> int:
    """Elements read (written) at once along a dense axis: 4, or as many as 16 bytes hold, where rows begin at multiples."""
    width = max(1, min(4, 16 // form.nbytes))
    others = (s for i, s in enumerate(strides) if i != axis)
    return width if strides[axis] == 1 and not any(n % width for n in (form.sizes[axis], *others)) else 1
