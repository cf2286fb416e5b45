"""Division by a product and a shift, as kernels/division.cuh does it, against division."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from miniinfer_cli.backends.cuda.launching.division import dividers

LARGEST = (1 << 31) - 1


@given(st.integers(1, LARGEST), st.integers(0, LARGEST))
@example(1, LARGEST)
@example(LARGEST, LARGEST)
@example((1 << 30) + 1, LARGEST)
@example(7, LARGEST - 1)
def test_every_quotient_is_exact(size, n):
    multiplier, shift = (int(i) for i in dividers([size]))
    assert n * multiplier < 1 << 64  # what the device multiplies in
    for m in (n, n - n % size, max(n - n % size - 1, 0)):
        assert m * multiplier >> shift == m // size


def test_sizes_beyond_32_bits_have_a_place_and_no_meaning():
    assert dividers([3, 1 << 40]).dtype == np.uint32
    assert dividers([3, 1 << 40]).shape == (4,)
