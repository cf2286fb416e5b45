"""The benchmark of products of a few tokens: its operands and results are what the kernel takes and gives."""

import pytest

from miniinfer_cli.backends.cuda.tactics.products.row_product_sm90 import RowForm
from tests.benchmarks.row_products import LIMITS, Case, Y, data_of, launch_of
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.running import emulated_arrays

CASES = (
    Case(128, 512, 1, norm=True),
    Case(136, 1048, k_last=True),
    Case(128, 256, 2),
    Case(128, 512, 1, nibbles=True),
    Case(64, 256, 2, norm=True, nibbles=True),
)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("form", [(4, 2, 1), (4, 1, 2)], ids=str)
def test_a_case(case: Case, form: tuple[int, int, int]) -> None:
    p = case.product(1)
    data = data_of(case, p)
    for strip in p.strips:
        for seed in (LATE, EARLY, 7):
            found = emulated_arrays(launch_of(p, RowForm(strip, *form)), data.arrays, seed)[Y]
            assert data.error(found) < LIMITS[p.dtype]
