"""When which way of a convolution is the heuristic's favourite: the thresholds of the family in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConvolutionHeuristic:
    """The order is: what memory bounds by our kernels (depthwise, and a single pixel as the product that it is); patches as
    rows of a product (``patches.py`` says which); a product with a residual by cuBLASLt; cuDNN; a product by cuBLASLt; then our
    kernels: products, tiles, one element a thread.

    Of a fused region the libraries, and our kernels in the first case, take as much as they can at once; a shorter part by
    them comes before all of it by our other kernels.
    """

    narrow: int = 16
    """Features of a group below which tiles are mostly empty, so that a thread makes one element."""
    outputs_of_thread: int = 4
    """Outputs along the last axis that a thread of the depthwise kernel makes, where it holds a row of weights ..."""
    busy_threads: int = 128
    """... and there are so many threads to a multiprocessor all the same; else it makes one, of fewer channels."""


CONVOLUTIONS = ConvolutionHeuristic()
