"""When which way of a matrix product is the heuristic's favourite: the thresholds of the family in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProductHeuristic:
    """The order is: a row or column of floats by our kernels, which read the weights as fast as memory gives them; then the
    library; then our kernels, a few rows at a time where there are few, else in tiles.

    A part is a piece of k that blocks of its own sum up, where there would be too few blocks.
    """

    few_rows: int = 8
    """Rows, or columns, that the kernels for few rows take at most."""
    most_calls: int = 64
    """Calls of the library that a batch over several axes may take."""
    transposed_calls: int = 8
    """Calls that one Transpose costs as much as: with more, an Einsum is rearranged to one product."""
    small_tile: int = 64
    large_tile: int = 128
    """Taken where there are as many of them as multiprocessors, and elements are below 8 bytes."""
    tile_blocks: int = 2
    """Blocks of tiles to a multiprocessor that parts are to make, where there is less than one."""
    tile_part: int = 256
    """Elements of k in a part of tiles, at least."""
    row_blocks: int = 4
    """Blocks of few rows to a multiprocessor that parts are to make ..."""
    scarce_row_blocks: int = 2
    """... where there are fewer than so many."""
    part_along_n: int = 64
    """Elements of k in a part at least, where threads lie side by side along n."""
    loads_along_k: int = 4
    """The same in loads of each thread, where they lie along k."""
    most_parts: int = 1024
    other_parts: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of parts that are offered besides the favourite."""


PRODUCTS = ProductHeuristic()
