"""Sizes prepared for division by a product and a shift; the device's side is ``Dividers`` of kernels/division.cuh."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.ir import Array


def dividers(sizes: Sequence[int]) -> Array:
    """The argument ``Dividers<N>`` for N sizes of 1 or more.

    With s the bits of size - 1 and m = ceil(2^(31+s) / size), n * m >> 31+s is n // size for every n below 2^31
    (Granlund and Montgomery 1994, theorem 4.2). Sizes above that belong to kernels with 64-bit indices, which divide.
    """
    shifts = [31 + (size - 1).bit_length() for size in sizes]
    multipliers = [-(-(1 << shift) // size) if size < 1 << 31 else 0 for shift, size in zip(shifts, sizes, strict=True)]
    return np.array([*multipliers, *(s if s < 64 else 0 for s in shifts)], np.uint32)
