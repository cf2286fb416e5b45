"""How the threads of group.cuh share rows that they hold in registers: how many to a row, how many loads each."""

from collections.abc import Sequence
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.launching.grids import load_width, power_of_two_from
from miniinfer_cli.backends.cuda.tactics.normalization.normalization_heuristic import NORMALIZATIONS, NormalizationHeuristic
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import rows_per_block

_THREADS = 512  # of __launch_bounds__: so many threads may have 128 registers each
_BLOCK = 128
_MOST_ELEMENTS = 64  # of a row that a thread holds
_MOST_LOADS = 4  # of a thread in a group of less than a warp
_LEAST_FILLED = 0.8  # of the packs that its threads could load
_LOADS = (1, 2, 3, 4, 6, 8, 12, 16)  # a kernel is compiled for each of these that is met


@dataclass(frozen=True, slots=True)
class RowGroups:
    """``threads`` take a row of ``packs`` packs of ``width`` elements, ``loads`` packs each; ``rows_per_block`` rows a block."""

    width: int
    packs: int
    threads: int
    loads: int
    rows_per_block: int

    @property
    def key(self) -> str:
        """The key of a tactic that takes rows so."""
        return f"rows by {self.threads} threads" if self.threads > 1 else "rows by a thread"

    def grid(self, rows: int) -> tuple[int]:
        """Blocks for so many rows."""
        return (-(-rows // self.rows_per_block),)

    @property
    def block(self) -> tuple[int, int]:
        """Threads of a block."""
        return self.threads, self.rows_per_block


def row_ways(
    rows: int, length: int, nbytes: int, target: Target, multiple: int = 0, table: NormalizationHeuristic = NORMALIZATIONS
) -> tuple[RowGroups, ...]:
    """Groups for ``rows`` rows of ``length`` elements of ``nbytes``, the favourite first; none when a row does not fit.

    ``multiple``: loads must not straddle its multiples.
    """
    width = load_width(multiple or length, nbytes)
    packs = length // width
    usual = [n for n in _LOADS if n * width <= _MOST_ELEMENTS]
    if packs <= 32:
        numbers = dict.fromkeys((power_of_two_from(packs), 32))
        ways = [RowGroups(width, packs, n, 1, rows_per_block(rows, n, _BLOCK, target)) for n in numbers]
        return tuple(ways + _few_threads(rows, width, packs, usual, target))
    warps = [RowGroups(width, packs, 32, n, _BLOCK // 32) for n in usual if n * 32 >= packs][:1]
    blocks: dict[int, RowGroups] = {}
    for wanted in (1, 2, 4):
        for loads in (n for n in usual if n >= wanted):
            threads = -(-packs // (32 * loads)) * 32
            if threads <= _THREADS:
                blocks[wanted] = RowGroups(width, packs, threads, loads, 1)
                break
    several = target.multiprocessors
    fitting = 1 if rows < several * table.one_load_rows else 2 if rows < several * table.two_load_rows else 4
    first: list[RowGroups] = []
    if packs <= 32 * table.warp_loads and rows >= several * table.warp_rows:
        first = warps
    elif fitting in blocks:
        first = [blocks[fitting]]
    by_threads: dict[int, RowGroups] = {}
    for groups in (*first, *warps, *blocks.values(), *_few_threads(rows, width, packs, usual, target)):
        by_threads.setdefault(groups.threads, groups)
    return tuple(by_threads.values())


def _few_threads(rows: int, width: int, packs: int, usual: Sequence[int], target: Target) -> list[RowGroups]:
    """Groups of less than a warp whose threads load several times, and seldom nothing: more bytes under way, fewer shuffles."""
    found: list[RowGroups] = []
    for threads in (4, 8, 16):
        loads = next((n for n in usual if n * threads >= packs), 0)
        if 1 < loads <= _MOST_LOADS and packs > _LEAST_FILLED * loads * threads:
            found.append(RowGroups(width, packs, threads, loads, rows_per_block(rows, threads, _BLOCK, target)))
    return found
