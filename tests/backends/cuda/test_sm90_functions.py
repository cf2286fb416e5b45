"""The functions of kernels/sm90 on the emulated device, under several schedules.

tests/gpu/test_sm90_functions.py has a GPU do the same.
"""

import numpy as np
import pytest

from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases import barriers, columns, copies, products
from tests.sm90_cases.case import Case, emulated, random_cases

CASES = [
    *random_cases(copies.load_case, range(5)),
    *random_cases(copies.store_case, range(5)),
    *random_cases(copies.multicast_case, range(2)),
    *random_cases(columns.columns_case, range(3)),
    *random_cases(copies.sending_case, range(2)),
    *random_cases(barriers.ring_case, range(3)),
    *random_cases(barriers.cluster_case, range(2)),
    *random_cases(barriers.matrices_case, range(6)),
    *random_cases(products.product_case, range(12)),
    *random_cases(products.bytes_case, range(10)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_function(case: Case) -> None:
    found = [emulated(case, seed) for seed in (LATE, EARLY, 5, 6)]
    for one in found:
        case.check(one)
        np.testing.assert_array_equal(one, found[0])
    if case.slack is not None:  # cut off as the matrix units do it, to the last bit
        np.testing.assert_array_equal(found[0], case.expected)
