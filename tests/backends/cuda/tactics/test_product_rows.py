"""Products of few tokens whose rows are normalized, and that leave statistics: the kernel on the emulated device."""

from dataclasses import replace

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Rows, bias_finish, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.normalized_rows import (
    KEPT,
    NORMALIZED,
    STATISTICS,
    SUMMARIES,
    SUMMARY,
    RowsCase,
    normalized_case,
    summary_case,
)
from tests.sm90_cases.running import emulated_arrays
from tests.sm90_cases.tokens import TOLERANCES, B, D, W, X, product


def errors(case: RowsCase, seed: int = LATE) -> dict[Operand, float]:
    found = emulated_arrays(case.launch, case.arrays, seed)
    return case.errors({operand: found[operand][:, : exact.shape[1]] for operand, exact in case.exact.items()})


WAYS = ((True, True, True), (False, True, False), (True, False, True))
"""Centred, with rows that are kept, with a shift: in turns; the first form has all."""


@pytest.mark.parametrize("number", range(len(NORMALIZED)))
def test_rows_are_normalized(number: int) -> None:
    p, form = NORMALIZED[number]
    for centred, kept, shift in WAYS if number == 0 else (WAYS[number % 3],):
        for seed in (LATE, EARLY, 7):
            found = errors(normalized_case(p, form, centred=centred, kept=kept, shift=shift), seed)
            assert len(found) == 1 + kept
            assert all(error < TOLERANCES[p.dtype] for error in found.values()), found


@pytest.mark.parametrize(("p", "form"), SUMMARIES, ids=str)
def test_statistics_of_results_are_left(p: TokenProduct, form: Form) -> None:
    for seed in (LATE, EARLY):
        found = errors(summary_case(p, form), seed)
        assert found[D] < TOLERANCES[p.dtype] and found[SUMMARY] < 2 * TOLERANCES[p.dtype], found


def test_what_has_no_statistics() -> None:
    finish, form = bias_finish(DType.F16), Form(64, 1, 1, 4)
    for p in (product(60, 64, 200), replace(product(60, 64, 192), dtype=DType.F32)):
        with pytest.raises(ValueError, match="no pieces of 64"):
            product_launch(p, form, finish, X, W, D, [B], rows=Rows(STATISTICS, 0.0))
    with pytest.raises(ValueError, match="too long"):
        normalized_case(product(20, 64, 1088), Form(24, 1, 1, 4))
    for p in (product(60, 72, 192), replace(product(60, 64, 192), result_pitch=67)):
        with pytest.raises(ValueError, match="no pieces of 64"):
            product_launch(p, form, finish, X, W, D, [B], summary=SUMMARY)


def test_the_case_itself_sees_a_wrong_mean() -> None:
    p, form = NORMALIZED[0]
    case = normalized_case(p, form)
    case.arrays[STATISTICS][:, 0, 0] += np.float32(0.5)
    found = errors(case)
    assert found[D] > 0.01 and found[KEPT] > 0.01
