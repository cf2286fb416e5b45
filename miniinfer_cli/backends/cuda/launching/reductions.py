"""Launches that reduce a tensor over any of its axes, for whichever lowering needs that.

Axes are merged to runs that are kept and runs that are reduced, by turns. Each stage reduces one run, the longest first: the
innermost along rows, another along columns. What a stage leaves for the next one lies in scratch. A run is split over
blocks, with one more stage, where the results alone would not fill the device. No stage depends on timing: results repeat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.grids import index_dtype, index_name, load_width, power_of_two_from
from miniinfer_cli.backends.cuda.steps import Action, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.target import Target

_BLOCK = 256
_UNROLL = 4  # MI_UNROLL of reduce.cu
_FEW_PACKS = 8  # loads that a thread of a split should have at least


@dataclass(frozen=True, slots=True)
class Reduction:
    """``kind`` is a reduction of reduce.cuh over elements of C type ``element`` (``nbytes`` each) to the C type ``result``.

    ``part_nbytes``: what a stage leaves for each of its results. ``before``: an expression in x, applied to each element;
    ``after``: one in w and n, the total and the number of elements. ``last``: of equal extremes the last position.
    """

    kind: str
    element: str
    nbytes: int
    result: str
    part_nbytes: int
    before: str = ""
    after: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True)
class Stages:
    """The launches, and bytes of each scratch buffer that they use, numbered from ``first_scratch`` on."""

    actions: tuple[Action, ...]
    scratch: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """One stage over [outer, length, inner]: threads along and across, elements a load, positions a split, splits."""

    along: int
    across: int
    width: int
    chunk: int
    splits: int


def reduce_actions(
    what: Reduction,
    shape: Sequence[int],
    axes: Sequence[int],
    source: Operand,
    destination: Operand,
    target: Target,
    first_scratch: int = 0,
) -> Stages:
    """``source`` of ``shape`` reduced over ``axes`` (none negative) into ``destination``, whose axes are those kept, dense."""
    count = math.prod(shape[a] for a in axes)
    results = math.prod(d for i, d in enumerate(shape) if i not in set(axes))
    if results == 0:
        return Stages((), ())
    runs = merged_runs(shape, axes) if count else [(results, False), (0, True)]
    if not any(reduced for _, reduced in runs):
        runs = [(1, True), *runs]
    actions: list[Action] = []
    scratch: list[int] = []
    while any(reduced for _, reduced in runs):
        at = max((i for i, (_, reduced) in enumerate(runs) if reduced), key=lambda i: runs[i][0])
        outer, length, inner = math.prod(d for d, _ in runs[:at]), runs[at][0], math.prod(d for d, _ in runs[at + 1 :])
        if length <= 1:
            outer, inner = 1, outer * inner
        way = _way(what, outer, length, inner, target, from_parts=bool(actions))
        left = [(way.splits, True)] if way.splits > 1 else []
        runs = _joined([*runs[:at], *left, *runs[at + 1 :]])
        is_last = not any(reduced for _, reduced in runs)
        to = destination
        if not is_last:
            to = Operand.scratch(first_scratch + len(scratch))
            scratch.append(outer * way.splits * inner * what.part_nbytes)
        actions.append(_launch(what, way, (outer, length, inner), source, to, bool(actions), not is_last, count))
        source = to
    return Stages(tuple(actions), tuple(scratch))


def merged_runs(shape: Sequence[int], axes: Sequence[int]) -> list[tuple[int, bool]]:
    """Size of each run of axes that are all reduced (True) or all kept, axes of size 1 left out."""
    return _joined([(d, i in set(axes)) for i, d in enumerate(shape) if d != 1])


def _joined(runs: Sequence[tuple[int, bool]]) -> list[tuple[int, bool]]:
    out: list[tuple[int, bool]] = []
    for size, reduced in runs:
        if out and out[-1][1] == reduced:
            out[-1] = (out[-1][0] * size, reduced)
        else:
            out.append((size, reduced))
    return out


def rows_per_block(rows: int, threads: int, block: int, target: Target) -> int:
    """How many rows of so many ``threads`` share a block: whole warps, up to ``block`` threads where there are many rows."""
    if threads >= 32:
        return 1 if threads > 32 else min(block // 32, power_of_two_from(-(-rows // target.multiprocessors)))
    return max(32 // threads, min(block // threads, power_of_two_from(-(-rows // target.multiprocessors))))


def _way(what: Reduction, outer: int, length: int, inner: int, target: Target, *, from_parts: bool) -> _Way:
    wide = (
        1
        if from_parts
        else load_width(length if _along_rows(length, inner) else inner, what.nbytes, 8 if what.part_nbytes < 12 else 4)
    )
    if _along_rows(length, inner):
        return _rows_way(outer, length, wide, target)
    return _columns_way(outer, length, inner, wide, target)


def _along_rows(length: int, inner: int) -> bool:
    return inner == 1 and length > 1


def _rows_way(rows: int, length: int, width: int, target: Target) -> _Way:
    packs = -(-length // width)
    lanes = min(power_of_two_from(packs), 32)
    if packs >= 32 * _UNROLL * 2 or (packs > 64 and rows * 32 < target.multiprocessors * 512):
        lanes = min(_BLOCK, power_of_two_from(-(-packs // _UNROLL)))
    across = rows_per_block(rows, lanes, _BLOCK, target)
    splits = 1
    if lanes == _BLOCK and rows < target.multiprocessors * 2:
        splits = max(1, min(packs // (_BLOCK * _FEW_PACKS), target.multiprocessors * 4 // rows))
    chunk = -(-packs // splits) * width
    return _Way(lanes, across, width, chunk, max(1, -(-length // chunk)))


def _columns_way(outer: int, length: int, inner: int, width: int, target: Target) -> _Way:
    columns = outer * inner // width
    across = 1
    room = _BLOCK // min(32, power_of_two_from(columns))
    while across < room and across * _UNROLL < length and columns * across < target.multiprocessors * 1024:
        across *= 2
    along = min(_BLOCK // across, power_of_two_from(columns))
    if along * across < 32:
        along = 32 // across
    blocks, splits = -(-columns // along), 1
    if blocks < target.multiprocessors * 2:
        splits = max(1, min(length // (across * _FEW_PACKS * 2), target.multiprocessors * 4 // blocks))
    chunk = max(1, -(-length // splits))
    return _Way(along, across, width, chunk, max(1, -(-length // chunk)))


def _launch(
    what: Reduction,
    way: _Way,
    sizes: tuple[int, int, int],
    source: Operand,
    target: Operand,
    from_parts: bool,
    to_parts: bool,
    count: int,
) -> Launch[Operand]:
    outer, length, inner = sizes
    largest = outer * max(length, 1) * inner
    index = index_dtype(largest).type
    defines = [
        ("MI_REDUCTION", what.kind),
        ("MI_T", what.element),
        ("MI_R", what.result),
        ("MI_N", str(way.width)),
        ("MI_INDEX", index_name(largest)),
        ("MI_FROM_PARTS", str(int(from_parts))),
        ("MI_TO_PARTS", str(int(to_parts))),
    ]
    # What a stage does not do is left out, so that stages of different reductions share a kernel.
    if what.before and not from_parts:
        defines.append(("MI_PRE(x)", what.before))
    if what.after and not to_parts:
        defines.append(("MI_POST(w, n)", what.after))
    if what.last:
        defines.append(("MI_LAST", "1"))
    settings = tuple(defines)
    numbers = (index(way.chunk), np.float64(count))
    if _along_rows(length, inner):
        grid = (-(-outer // way.across), way.splits)
        rows = (source, target, index(outer), index(length), *numbers)
        return Launch(Kernel("reduce_rows", "reduce.cu", settings), grid, (way.along, way.across), rows)
    columns = outer * inner // way.width
    shared = way.along * way.across * way.width * what.part_nbytes if way.across > 1 else 0
    arguments: tuple[Argument, ...] = (source, target, index(columns), index(length), index(inner), *numbers)
    grid = (-(-columns // way.along), way.splits)
    return Launch(Kernel("reduce_columns", "reduce.cu", settings), grid, (way.along, way.across), arguments, shared)
