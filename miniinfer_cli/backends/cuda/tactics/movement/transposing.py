"""Permuting axes: by tiles through shared memory where the last axis moves, as a strided copy where runs stay together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Copy, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.strides import reach, row_major
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes, unit_type
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name
from miniinfer_cli.backends.cuda.launching.strided_copy import Layouts, compiled_rank, copy_layouts, layouts

COPY = "copy"
"""The key of a strided copy."""

_THREADS = 256
_LARGE, _SMALL = 64, 32  # sides of tiles; large ones hold elements of 4 bytes at most


@dataclass(frozen=True, slots=True)
class TransposeHeuristic:
    """The order is: a strided copy where the last axis stays, or where one to move is short; else tiles."""

    thin: int = 16
    """Elements: a tile over a shorter axis is mostly empty, and the caches make up for such short strides."""
    tile_blocks: int = 2
    """Blocks to a multiprocessor from which on tiles are large."""


TRANSPOSES = TransposeHeuristic()

Moving = Copy[Operand] | Launch[Operand]


def permute(
    destination: Operand, source: Operand, nbytes: int, shape: Sequence[int], perm: Sequence[int], target: Target
) -> Moving:
    """Axis i of the dense destination is axis ``perm[i]`` of the dense source of ``shape``, which has no axis of size 0."""
    _, make = permute_ways(destination, source, nbytes, shape, perm, target)[0]
    return make()


def transpose_tactics(
    site: Site,
    shape: Sequence[int],
    perm: Sequence[int],
    strides: Sequence[int] | None = None,
    table: TransposeHeuristic = TRANSPOSES,
) -> tuple[Tactic, ...]:
    """Input 0, seen as ``shape``, with its axes permuted, in output 0: the heuristic's favourite first.

    ``strides`` are those of the input, which is dense without them.
    """
    nbytes, estimate = element_nbytes(site.dtype()), replace(default_estimate(site), flops=0)

    def tactic(key: str, make: Callable[[], Moving]) -> Tactic:
        return Tactic(key, lambda work: work.add(make()), estimate)

    ways = permute_ways(Operand.output(0), Operand.input(0), nbytes, shape, perm, site.target, table, strides)
    return tuple(tactic(key, make) for key, make in ways)


def permute_ways(
    destination: Operand,
    source: Operand,
    nbytes: int,
    shape: Sequence[int],
    perm: Sequence[int],
    target: Target,
    table: TransposeHeuristic = TRANSPOSES,
    strides: Sequence[int] | None = None,
) -> list[tuple[str, Callable[[], Moving]]]:
    """The ways of ``permute`` with the keys of their tactics, the heuristic's favourite first; the source is dense without
    ``strides``."""
    walk = row_major(shape) if strides is None else strides
    sizes = [shape[p] for p in perm]
    form = layouts(nbytes, sizes, row_major(sizes), [walk[p] for p in perm], destination.offset, source.offset)
    if not form.sizes or form.source[-1] == 1:
        return [(COPY, lambda: copy_layouts(destination, source, form, target))]
    copy = (COPY, lambda: copy_layouts(destination, source, _in_best_order(form), target))
    row = _first_long(form.sizes, form.destination, table)
    column = _first_long(form.sizes, form.source, table)
    if row is None or column is None or row == column:
        return [copy]

    def tiles(side: int) -> tuple[str, Callable[[], Moving]]:
        return f"tiles {side}x{side}", lambda: _tiled(destination, source, form, row, column, side)

    sides = [_LARGE, _SMALL] if form.nbytes <= 4 else [_SMALL]
    if _tile_count(form, row, column, sides[0]) < table.tile_blocks * target.multiprocessors:
        sides.reverse()
    return [*map(tiles, sides), copy]


def _first_long(sizes: Sequence[int], strides: Sequence[int], table: TransposeHeuristic) -> int | None:
    """The axis nearest to the end of memory that fills a tile, None when the axes behind it are too many to stride over."""
    axis = min((i for i, n in enumerate(sizes) if n >= table.thin), key=lambda i: strides[i], default=None)
    return axis if axis is not None and strides[axis] <= table.thin else None


def _in_best_order(form: Layouts) -> Layouts:
    """The axes in the order of that side whose last axis is short: its accesses are then dense, the other's nearly so."""
    last = form.source.index(min(form.source))
    if form.sizes[last] >= form.sizes[-1]:
        return form
    order = sorted(range(len(form.sizes)), key=lambda i: -form.source[i])
    sizes, targets, sources = (tuple(v[i] for i in order) for v in (form.sizes, form.destination, form.source))
    return Layouts(form.nbytes, sizes, targets, sources)


def _tile_count(form: Layouts, row: int, column: int, side: int) -> int:
    rest = math.prod(n for i, n in enumerate(form.sizes) if i not in (row, column))
    return rest * -(-form.sizes[row] // side) * -(-form.sizes[column] // side)


def _tiled(destination: Operand, source: Operand, form: Layouts, row: int, column: int, side: int) -> Launch[Operand]:
    rows, columns = form.sizes[row], form.sizes[column]
    rest = [i for i in range(len(form.sizes)) if i not in (row, column)]
    batch = [form.sizes[i] for i in rest]
    tiles = (-(-rows // side), -(-columns // side))
    largest = max(math.prod(form.sizes), reach(form.sizes, form.source))
    index: np.dtype[Any] = index_dtype(largest)
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
            ("MI_INDEX", index_name(largest)),
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
