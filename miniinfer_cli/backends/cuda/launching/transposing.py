"""Permuting axes: by tiles through shared memory where the last axis moves, as a strided copy where runs stay together."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.grids import index_dtype, index_name
from miniinfer_cli.backends.cuda.launching.strided_copy import Layouts, compiled_rank, copy_layouts, layouts, row_major
from miniinfer_cli.backends.cuda.site import Target
from miniinfer_cli.backends.cuda.steps import Copy, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.types import unit_type

_THREADS = 256
_THIN = 16  # elements: a tile over a shorter axis is mostly empty, and the caches make up for such short strides


def permute(
    target: Operand, source: Operand, nbytes: int, shape: Sequence[int], perm: Sequence[int], device: Target
) -> Copy[Operand] | Launch[Operand]:
    """Axis i of the dense target is axis ``perm[i]`` of the dense source of ``shape``, which has no axis of size 0."""
    strides = row_major(shape)
    sizes = [shape[p] for p in perm]
    plan = layouts(nbytes, sizes, row_major(sizes), [strides[p] for p in perm], target.offset, source.offset)
    if not plan.sizes or plan.source[-1] == 1:
        return copy_layouts(target, source, plan, device)
    row = _first_long(plan.sizes, plan.target)
    column = _first_long(plan.sizes, plan.source)
    if row is not None and column is not None and row != column:
        return _tiled(target, source, plan, row, column, device)
    return copy_layouts(target, source, _in_best_order(plan), device)


def _first_long(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The axis nearest to the end of memory that fills a tile, None when the axes behind it are too many to stride over."""
    axis = min((i for i, n in enumerate(sizes) if n >= _THIN), key=lambda i: strides[i], default=None)
    return axis if axis is not None and strides[axis] <= _THIN else None


def _in_best_order(plan: Layouts) -> Layouts:
    """The axes in the order of that side whose last axis is short: its accesses are then dense, the other's nearly so."""
    last = plan.source.index(min(plan.source))
    if plan.sizes[last] >= plan.sizes[-1]:
        return plan
    order = sorted(range(len(plan.sizes)), key=lambda i: -plan.source[i])
    sizes, targets, sources = (tuple(v[i] for i in order) for v in (plan.sizes, plan.target, plan.source))
    return Layouts(plan.nbytes, sizes, targets, sources)


def _tiled(target: Operand, source: Operand, plan: Layouts, row: int, column: int, device: Target) -> Launch[Operand]:
    rows, columns = plan.sizes[row], plan.sizes[column]
    rest = [i for i in range(len(plan.sizes)) if i not in (row, column)]
    batch = [plan.sizes[i] for i in rest]
    side = 64 if plan.nbytes <= 4 else 32
    if math.prod(batch) * -(-rows // side) * -(-columns // side) < 2 * device.multiprocessors:
        side = 32
    tiles = (-(-rows // side), -(-columns // side))
    count = math.prod(plan.sizes)
    index: np.dtype[Any] = index_dtype(count)
    rank = compiled_rank(len(rest))
    lead = rank - len(rest)
    kernel = Kernel(
        "transpose",
        "transpose.cu",
        (
            ("MI_T", unit_type(plan.nbytes)),
            ("MI_TILE", str(side)),
            ("MI_LOAD", str(_run(plan, plan.source, column))),
            ("MI_STORE", str(_run(plan, plan.target, row))),
            ("MI_RANK", str(rank)),
            ("MI_INDEX", index_name(count)),
        ),
    )
    sizes = (rows, columns, plan.source[row], plan.source[column], plan.target[row], plan.target[column], *tiles)
    arguments = (
        source,
        target,
        *(index.type(n) for n in sizes),
        np.array([1] * lead + batch, index),
        np.array([0] * lead + [plan.source[i] for i in rest], index),
        np.array([0] * lead + [plan.target[i] for i in rest], index),
    )
    return Launch(kernel, (math.prod(batch) * math.prod(tiles),), (_THREADS,), arguments)


def _run(plan: Layouts, strides: Sequence[int], axis: int) -> int:
    """Elements read (written) at once along a dense axis: 4, or as many as 16 bytes hold, where rows begin at multiples."""
    width = max(1, min(4, 16 // plan.nbytes))
    others = (s for i, s in enumerate(strides) if i != axis)
    return width if strides[axis] == 1 and not any(n % width for n in (plan.sizes[axis], *others)) else 1
