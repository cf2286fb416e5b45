"""Launches that keep the order of what is selected: count in each block, add the counts up, write at the offsets."""

from collections.abc import Callable, Sequence

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.launching.grids import index_name

BLOCK = 256  # as in compaction.cuh
_COMPACTED = 4096  # elements of a block, as there


def counts_nbytes(count: int) -> int:
    """Bytes of the scratch buffer of counts for a selection among ``count`` elements, whatever the index type."""
    return _blocks(count) * 8


def compact(
    count: int,
    counts: Operand,
    totals: Sequence[Operand],
    count_by: Callable[[tuple[int, ...]], Launch[Operand]],
    write_by: Callable[[tuple[int, ...]], Launch[Operand]],
    *,
    index: str = "",
) -> tuple[Launch[Operand], ...]:
    """Three launches: ``count_by(grid)``, the sum of the counts to at most three ``totals``, and ``write_by(grid)``.

    The first fills ``counts``, the last finds offsets there. ``index`` is MI_INDEX of both, by the count when left out.
    """
    grid = (_blocks(count),)
    kernel = Kernel("offsets_of_counts", "offsets.cu", (("MI_INDEX", index or index_name(count)),))
    given: list[Argument] = [*totals, *[NULL] * (3 - len(totals))]
    block = 1024 if grid[0] > BLOCK else BLOCK
    offsets = Launch(kernel, (1,), (block,), (counts, np.int32(grid[0]), *given))
    return count_by(grid), offsets, write_by(grid)


def _blocks(count: int) -> int:
    return max(1, -(-count // _COMPACTED))
