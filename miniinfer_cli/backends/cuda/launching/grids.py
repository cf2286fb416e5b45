"""Grids, blocks, loads, index types: how much of a device a kernel over so many elements takes."""

from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Argument, Kernel, Launch, Operand

BLOCK = 256  # threads; what most kernels run best with
_SMALL = (1 << 31) - (1 << 24)  # elements below which an int, plus one step of the whole grid, does not overflow


def blocks_for(count: int, multiprocessors: int, per_thread: int = 1, block: int = BLOCK) -> int:
    """Blocks for a grid-stride loop over ``count`` elements: enough to fill the device a few times, at least one."""
    return max(1, min(-(-count // (block * per_thread)), multiprocessors * 16))


def index_name(largest: int) -> str:
    """The C type of ``MI_INDEX`` for offsets below ``largest``."""
    return "int" if largest < _SMALL else "long long"


def index_dtype(largest: int) -> "np.dtype[Any]":
    """The numpy type that goes with ``index_name``."""
    return np.dtype(np.int32 if largest < _SMALL else np.int64)


def launch_over(kernel: Kernel, count: int, arguments: tuple[Argument, ...], multiprocessors: int) -> Launch[Operand]:
    """A launch of a kernel that loops over ``count`` elements with the whole grid."""
    return Launch(kernel, (blocks_for(count, multiprocessors),), (BLOCK,), arguments)


def power_of_two_from(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return 1 << max(n - 1, 0).bit_length()


def load_width(multiple: int, nbytes: int, most: int = 8) -> int:
    """Elements of ``nbytes`` that one load of 16 bytes at most may take where rows are ``multiple`` elements long."""
    width = max(1, min(16 // nbytes, most))
    while multiple % width:
        width //= 2
    return width
