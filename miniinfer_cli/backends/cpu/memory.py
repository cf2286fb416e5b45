"""The arena of a program on the host."""

import numpy as np

from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.host_memory import SMALLER, expect_memory, mib
from miniinfer_cli.ir import Array


def allocate_arena(nbytes: int) -> Array:
    """A byte array that starts on a 64-byte line, so that vector loads of the aligned offsets do not split lines."""
    if nbytes > 1 << 28:  # less is not worth the look
        expect_memory(nbytes, "memory for the activations")
    try:
        raw = np.empty(nbytes + 64, np.uint8)
    except MemoryError:
        raise OutOfMemoryError(f"memory for the activations: {mib(nbytes)} needed, and not given", hint=SMALLER) from None
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]
