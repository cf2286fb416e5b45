"""When which way of a reduction is the heuristic's favourite: the thresholds of the family in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReductionHeuristic:
    """A warp or a block for each row; a thread or several for each column; a run in parts where there are too few blocks.

    Numbers of threads, rows and blocks are those to a multiprocessor.
    """

    long_rows: int = 256
    """Loads of a row from which on a block takes it ..."""
    some_loads: int = 64
    """... or beyond so many already ..."""
    few_threads: int = 512
    """... where warps would be fewer threads than these."""
    column_threads: int = 1024
    """Threads share a column while there are fewer than these."""
    few_results: int = 2
    """Blocks (rows of a block) below which a run is cut into parts ..."""
    part_blocks: int = 4
    """... that are to make so many."""
    part_loads: int = 8
    """Loads that a thread has of a part of a row at least ..."""
    column_loads: int = 16
    """... and of a part of a column."""
    other_parts: tuple[int, ...] = (1, 4)
    """Numbers of parts that are offered besides the favourite."""


REDUCTIONS = ReductionHeuristic()
