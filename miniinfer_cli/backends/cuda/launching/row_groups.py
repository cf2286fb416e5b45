"""How the threads of group.cuh share rows that they hold in registers: how many to a row, how many loads each."""

from dataclasses import dataclass

from miniinfer_cli.backends.cuda.grids import load_width, power_of_two_from
from miniinfer_cli.backends.cuda.launching.reductions import rows_per_block
from miniinfer_cli.backends.cuda.target import Target

_THREADS = 512  # of __launch_bounds__: so many threads may have 128 registers each
_BLOCK = 128
_MOST_ELEMENTS = 64  # of a row that a thread holds
_LOADS = (1, 2, 3, 4, 6, 8, 12, 16)  # a kernel is compiled for each of these that is met


@dataclass(frozen=True, slots=True)
class RowGroups:
    """``threads`` take a row of ``packs`` packs of ``width`` elements, ``loads`` packs each; ``rows_per_block`` rows a block."""

    width: int
    packs: int
    threads: int
    loads: int
    rows_per_block: int

    def grid(self, rows: int) -> tuple[int]:
        """Blocks for so many rows."""
        return (-(-rows // self.rows_per_block),)

    @property
    def block(self) -> tuple[int, int]:
        """Threads of a block."""
        return self.threads, self.rows_per_block


def row_groups(rows: int, length: int, nbytes: int, target: Target, multiple: int = 0) -> RowGroups | None:
    """Groups for ``rows`` rows of ``length`` elements of ``nbytes``; None when a row does not fit into registers.

    ``multiple``: loads must not straddle its multiples.
    """
    width = load_width(multiple or length, nbytes)
    packs = length // width
    usual = [n for n in _LOADS if n * width <= _MOST_ELEMENTS]
    if packs <= 32:
        threads = power_of_two_from(packs)
        return RowGroups(width, packs, threads, 1, rows_per_block(rows, threads, _BLOCK, target))
    if packs <= 32 * 4 and rows >= target.multiprocessors * 8:
        return RowGroups(width, packs, 32, next(n for n in usual if n * 32 >= packs), _BLOCK // 32)
    # Few rows: many threads to each, so that little is done one after the other.
    wanted = 1 if rows < target.multiprocessors else 2 if rows < target.multiprocessors * 4 else 4
    for loads in usual:
        threads = -(-packs // (32 * loads)) * 32
        if loads >= wanted and threads <= _THREADS:
            return RowGroups(width, packs, threads, loads, 1)
    return None
