"""Unique: sort, find where groups of equal elements (or slices) start, and write what is asked for of each."""

import math
from dataclasses import dataclass

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Action, Argument, Bound, Fill, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, bits_type, c_type
from miniinfer_cli.backends.cuda.launching.grids import blocks_for, index_dtype, index_name, power_of_two_from
from miniinfer_cli.backends.cuda.tactics.sorting.compaction import BLOCK, compact, counts_nbytes
from miniinfer_cli.backends.cuda.tactics.sorting.selection import gather_chosen, select_flagged
from miniinfer_cli.backends.cuda.tactics.sorting.sorting import ASCENDING, MERGE_TILE, Rows, sort_rows

_RUN = 2048  # slices that a block sorts


@lowers("Unique")
def lower_unique(site: Site) -> Lowered | None:
    """Elements are sorted by their keys; slices along an axis by comparing them element by element."""
    if site.dtype() in HOST_ONLY:
        return None
    shape, axis = site.shape(0), site.attr("axis")
    at = 0 if axis is None else axis % len(shape)
    n = math.prod(shape) if axis is None else shape[at]
    bounds = {i: Bound((n,), 0) for i in (1, 3) if site.gives(i)}
    bounds[0] = Bound((n,), 0) if axis is None else Bound(shape, at)
    if n == 0:
        return Lowered(tuple(Fill(Operand.count(i), 0, 8) for i in bounds), bounds=bounds)
    if axis is not None and math.prod(shape) == 0:
        return None  # slices without elements
    work = _Work(site, n, None if axis is None else (math.prod(shape[:at]), math.prod(shape[at + 1 :])))
    return Lowered(work.actions(), tuple(work.scratch), bounds=bounds, tactic="sort")


@dataclass
class _Work:
    """The launches for ``n`` elements, or for slices between ``around`` = (outer, inner) elements."""

    site: Site
    n: int
    around: tuple[int, int] | None

    def __post_init__(self) -> None:
        self.scratch: list[int] = []
        outer, inner = self.around or (1, 1)
        largest = outer * self.n * inner + _RUN
        self.index = index_dtype(largest)
        self.sizes = (self.index.type(outer), self.index.type(self.n), self.index.type(inner))
        self.defines = (
            ("MI_T", c_type(self.site.dtype())),
            ("MI_SLICES", str(int(self.around is not None))),
            ("MI_INDEX", index_name(largest)),
        )

    def actions(self) -> tuple[Action, ...]:
        sort, items = self._sorted_elements() if self.around is None else self._sorted_slices()
        x, n = Operand.input(0), self.index.type(self.n)
        counts, groups, starts = self._new(counts_nbytes(self.n)), self._numbers(), self._numbers()
        totals = tuple(Operand.count(i) for i in (0, 1, 3) if self.site.gives(i))
        unsorted = not self.site.attr("sorted", 1)
        firsts: Argument = self._new(self.n) if unsorted else NULL
        ranks: Argument = self._numbers() if unsorted else NULL
        actions: list[Action] = [*sort]
        actions += self._compact(
            counts, totals, ("unique_count", (x, items, *self.sizes, counts)),
            ("unique_groups", (x, items, *self.sizes, counts, groups, starts, firsts)),
        )  # fmt: skip
        if unsorted:
            assert isinstance(firsts, Operand) and isinstance(ranks, Operand)
            actions += select_flagged("write_ranks", self.defines[-1][1], firsts, self.n, counts, ranks)
        values: Argument = Operand.output(0) if self.around is None else NULL
        chosen = NULL if self.around is None else self._numbers()
        others = (self.site.result(i) for i in (1, 2, 3))
        blocks = blocks_for(self.n, self.site.target.multiprocessors)
        arguments = (x, items, n, groups, starts, Operand.count(0), ranks, values, chosen, *others)
        actions.append(self._launch("unique_write", (blocks,), arguments))
        if self.around is not None:
            outer, inner = self.around
            assert isinstance(chosen, Operand)
            number = self.defines[-1][1]
            actions.append(gather_chosen(self.site, chosen, number, Operand.count(0), (outer, self.n, self.n, inner)))
        return tuple(actions)

    def _sorted_elements(self) -> tuple[tuple[Launch[Operand], ...], Operand]:
        rows = Rows(Operand.input(0), self.site.dtype(), 1, self.n, 1, self.n, ASCENDING)
        sorting = sort_rows(rows, self.site.target, outputs=None)
        self.scratch += sorting.scratch
        return sorting.actions, sorting.items

    def _sorted_slices(self) -> tuple[tuple[Launch[Operand], ...], Operand]:
        x = Operand.input(0)
        run = min(_RUN, power_of_two_from(max(self.n, 2)))
        runs = -(-self.n // run)
        current, other = self._new(runs * run * 4), self._new(runs * run * 4)
        block = min(max(run // 2, 32), 1024)
        launches = [self._launch("unique_sort", (runs,), (x, current, *self.sizes, np.int32(run)), block, run * 4)]
        while runs > 1:
            pairs, keep = -(-runs // 2), min(2 * run, self.n)
            tiles = -(-keep // MERGE_TILE)
            arguments = (x, current, other, *self.sizes, *map(np.int32, (runs, run, keep, tiles)))
            launches.append(self._launch("unique_merge", (pairs * tiles,), arguments))
            current, other, runs, run = other, current, pairs, keep
        return tuple(launches), current

    def _compact(
        self,
        counts: Operand,
        totals: tuple[Operand, ...],
        count: tuple[str, tuple[Argument, ...]],
        write: tuple[str, tuple[Argument, ...]],
    ) -> tuple[Launch[Operand], ...]:
        return compact(
            self.n,
            counts,
            totals,
            lambda grid: self._launch(count[0], grid, count[1]),
            lambda grid: self._launch(write[0], grid, write[1]),
            index=self.defines[-1][1],
        )

    def _launch(
        self, name: str, grid: tuple[int, ...], arguments: tuple[Argument, ...], block: int = BLOCK, shared_nbytes: int = 0
    ) -> Launch[Operand]:
        element, *others = self.defines
        if self.around is None:
            # Elements are not looked at here, the items are: element types of one size share the kernels.
            moved = bits_type(self.site.dtype())
            element = ("MI_T", moved if name == "unique_write" else "u64" if moved == "u64" else "u32")
        return Launch(Kernel(name, "unique.cu", (element, *others)), grid, (block,), arguments, shared_nbytes)

    def _new(self, nbytes: int) -> Operand:
        self.scratch.append(nbytes)
        return Operand.scratch(len(self.scratch) - 1)

    def _numbers(self) -> Operand:
        return self._new(self.n * self.index.itemsize)
