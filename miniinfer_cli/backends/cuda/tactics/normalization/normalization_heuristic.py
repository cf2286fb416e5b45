"""When which way of a normalization or a softmax is the heuristic's favourite: the thresholds of the family in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NormalizationHeuristic:
    """The order is: rows in registers, where they fit; softmax of columns; statistics (or sums) by a reduction, and another pass.

    Numbers of rows and threads are those to a multiprocessor.
    """

    warp_rows: int = 8
    """Rows from which on a warp takes one ..."""
    warp_loads: int = 4
    """... with so many loads a thread at most; longer rows, and few, are a block's."""
    one_load_rows: int = 1
    """Rows below which a thread of a block loads once, so that little is done one after the other ..."""
    two_load_rows: int = 4
    """... or twice; beyond, four times at least."""
    long_columns: int = 1024
    """Elements of a column from which on softmax takes sums by a reduction ..."""
    busy_threads: int = 1024
    """... where there are fewer threads than these: 32 for each column. Threads share a column while there are fewer."""
    shared_columns: tuple[int, ...] = (1, 8, 32)
    """Numbers of threads to a column that are offered besides the favourite."""
    joined_step_us: float = 0.8
    """Microseconds that a step less saves, of those that are joined with a normalization ..."""
    joined_nbytes_per_us: float = 4e6
    """... and the rate at which what passes between them need not be written and read."""


NORMALIZATIONS = NormalizationHeuristic()
