"""Launches that reduce a tensor over any of its axes, for whichever lowering needs that.

Axes are merged to runs that are kept and runs that are reduced, by turns. Each stage reduces one run, the longest first: the
innermost along rows, another along columns. What a stage leaves for the next one lies in scratch. A run is split over
blocks, with one more stage, where the results alone would not fill the device. No stage depends on timing: results repeat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Action, Argument, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, load_width, power_of_two_from
from miniinfer_cli.backends.cuda.tactics.reduction.reduction_heuristic import REDUCTIONS, ReductionHeuristic

_BLOCK = 256
_UNROLL = 4  # MI_UNROLL of reduce.cu


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
    along_rows: bool

    @property
    def key(self) -> str:
        """The key of a tactic whose first stage is this."""
        threads = self.along if self.along_rows else self.across
        name = f"reduce by {threads} threads" if threads > 1 else "reduce by a thread"
        return f"{name} in {self.splits} parts" if self.splits > 1 else name


def reduction_tactics(
    site: Site, what: Reduction, axes: Sequence[int], table: ReductionHeuristic = REDUCTIONS
) -> Lowered | tuple[Tactic, ...]:
    """Input 0 reduced over ``axes`` into output 0: the ways of the first stage, the heuristic's favourite first."""
    shape, source, destination = site.shape(0), Operand.input(0), Operand.output(0)
    runs = _runs(shape, axes)
    estimate = default_estimate(site)
    estimate = replace(estimate, flops=max(estimate.flops, math.prod(shape)))
    if runs is None:
        return Lowered((), tactic="reduce")
    outer, length, inner = _first_stage(runs)[1:]
    ways = _ways(what, outer, length, inner, site.target, table, from_parts=False)

    def tactic(way: _Way) -> Tactic:
        def make() -> Lowered:
            stages = reduce_actions(what, shape, axes, source, destination, site.target, first=way)
            return Lowered(stages.actions, stages.scratch)

        parts = outer * way.splits * inner * what.part_nbytes if way.splits > 1 else 0
        return tactic_of(way.key, make, estimate + Estimate(parts // what.part_nbytes, 2 * parts))

    by_key: dict[str, _Way] = {}
    for way in ways:
        by_key.setdefault(way.key, way)
    return tuple(map(tactic, by_key.values()))


def reduce_actions(
    what: Reduction,
    shape: Sequence[int],
    axes: Sequence[int],
    source: Operand,
    destination: Operand,
    target: Target,
    first_scratch: int = 0,
    first: _Way | None = None,
) -> Stages:
    """``source`` of ``shape`` reduced over ``axes`` (none negative) into ``destination``, whose axes are those kept, dense.

    ``first``: the way of the first stage, the heuristic's favourite without it.
    """
    count = math.prod(shape[a] for a in axes)
    found = _runs(shape, axes)
    if found is None:
        return Stages((), ())
    runs = found
    actions: list[Action] = []
    scratch: list[int] = []
    while any(reduced for _, reduced in runs):
        at, outer, length, inner = _first_stage(runs)
        way = first if first is not None and not actions else None
        way = way or _ways(what, outer, length, inner, target, REDUCTIONS, from_parts=bool(actions))[0]
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


def _runs(shape: Sequence[int], axes: Sequence[int]) -> list[tuple[int, bool]] | None:
    """Runs of axes, of which one is reduced at least; None where nothing is to be written."""
    results = math.prod(d for i, d in enumerate(shape) if i not in set(axes))
    if results == 0:
        return None
    runs = merged_runs(shape, axes) if math.prod(shape[a] for a in axes) else [(results, False), (0, True)]
    return runs if any(reduced for _, reduced in runs) else [(1, True), *runs]


def _first_stage(runs: Sequence[tuple[int, bool]]) -> tuple[int, int, int, int]:
    """The longest run that is reduced, by its number; elements before, along and behind it."""
    at = max((i for i, (_, reduced) in enumerate(runs) if reduced), key=lambda i: runs[i][0])
    outer, length, inner = math.prod(d for d, _ in runs[:at]), runs[at][0], math.prod(d for d, _ in runs[at + 1 :])
    return (at, 1, length, outer * inner) if length <= 1 else (at, outer, length, inner)


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


def _ways(
    what: Reduction, outer: int, length: int, inner: int, target: Target, table: ReductionHeuristic, *, from_parts: bool
) -> list[_Way]:
    """The ways of a stage, the favourite first."""
    along_rows = inner == 1 and length > 1
    width = 1
    if not from_parts:
        width = load_width(length if along_rows else inner, what.nbytes, 8 if what.part_nbytes < 12 else 4)
    if along_rows:
        return _row_ways(outer, length, width, target, table)
    return _column_ways(outer * inner // width, length, width, target, table)


def _row_ways(rows: int, length: int, width: int, target: Target, table: ReductionHeuristic) -> list[_Way]:
    packs = -(-length // width)
    warp, block = min(power_of_two_from(packs), 32), min(_BLOCK, power_of_two_from(-(-packs // _UNROLL)))
    busy = rows * 32 >= target.multiprocessors * table.few_threads
    lanes = block if packs >= table.long_rows or (packs > table.some_loads and not busy) else warp
    splits = 1
    if lanes == _BLOCK and rows < target.multiprocessors * table.few_results:
        most = packs // (_BLOCK * table.part_loads)
        splits = max(1, min(most, target.multiprocessors * table.part_blocks // rows))

    def way(lanes: int, splits: int) -> _Way:
        chunk = -(-packs // splits) * width
        across = rows_per_block(rows, lanes, _BLOCK, target)
        return _Way(lanes, across, width, chunk, max(1, -(-length // chunk)), along_rows=True)

    others = [way(n, parts) for n in dict.fromkeys((warp, max(block, 32))) for parts in table.other_parts if parts * n <= packs]
    return [way(lanes, splits), *others]


def _column_ways(columns: int, length: int, width: int, target: Target, table: ReductionHeuristic) -> list[_Way]:
    room = _BLOCK // min(32, power_of_two_from(columns))
    across = 1
    while across < room and across * _UNROLL < length and columns * across < target.multiprocessors * table.column_threads:
        across *= 2

    def way(across: int, splits: int) -> _Way:
        along = min(_BLOCK // across, power_of_two_from(columns))
        if along * across < 32:
            along = 32 // across
        chunk = max(1, -(-length // splits))
        return _Way(along, across, width, chunk, max(1, -(-length // chunk)), along_rows=False)

    blocks, splits = -(-columns // way(across, 1).along), 1
    if blocks < target.multiprocessors * table.few_results:
        most = length // (across * table.column_loads)
        splits = max(1, min(most, target.multiprocessors * table.part_blocks // blocks))
    others = [way(n, parts) for n in dict.fromkeys((1, room)) for parts in table.other_parts if parts * n <= max(length, 1)]
    return [way(across, splits), *others]


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
    if way.along_rows:
        grid = (-(-outer // way.across), way.splits)
        rows = (source, target, index(outer), index(length), *numbers)
        return Launch(Kernel("reduce_rows", "reduce.cu", settings), grid, (way.along, way.across), rows)
    columns = outer * inner // way.width
    shared = way.along * way.across * way.width * what.part_nbytes if way.across > 1 else 0
    arguments: tuple[Argument, ...] = (source, target, index(columns), index(length), index(inner), *numbers)
    grid = (-(-columns // way.along), way.splits)
    return Launch(Kernel("reduce_columns", "reduce.cu", settings), grid, (way.along, way.across), arguments, shared)
