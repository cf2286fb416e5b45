"""Products of bytes by the kernels for sm_90a: types, forms, schedules; and that a faulty kernel is seen to."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.codegen.sources import FOLDER
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct, forms_of
from miniinfer_cli.ir import DType
from tests.backends.cuda.tactics import faults
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.byte_products import BYTE_FORMS, BYTES, F8, byte_case
from tests.sm90_cases.running import emulated_arrays
from tests.sm90_cases.tokens import D, Tokens

TEXT = (FOLDER / "sm90" / "product.cu").read_text()
TOLERANCE = 1e-3
"""Whole numbers that lie half way go to one side or the other, halves are rounded."""


def error(case: Tokens, seed: int = LATE, kernel: Kernel | None = None) -> float:
    return case.error(emulated_arrays(case.launch, case.arrays, seed, kernel)[D])


@pytest.mark.parametrize(("p", "form", "residual"), BYTE_FORMS, ids=str)
def test_few_tokens(p: TokenProduct, form: Form, residual: DType | None) -> None:
    case = byte_case(p, form, residual)
    for seed in (LATE, EARLY, 7):
        assert error(case, seed) < TOLERANCE


FAULTS = {
    "sums of the chunks before are lost": ("sums[n] += part_sums[n];", "sums[n] = part_sums[n];"),
    "sums of few digits are not begun anew": ("right + 2 * step, step > 0);", "right + 2 * step, true);"),
    "sums of few digits are read too soon": ("    await_products<0>();\n    hold(part_sums);", "    hold(part_sums);"),
    "weights as if they had no sign": ("multiply<MI_W, MI_T>", "multiply<u8, MI_T>"),
    "tokens as if they had a sign": ("multiply<MI_W, MI_T>", "multiply<MI_W, i8>"),
    "words of parts are numbers": ("return __int_as_float(x); }", "return (float)x; }"),
    "half a vector": ("*reinterpret_cast<u64*>(to) = *reinterpret_cast<const u64*>(&y);", "to[0] = y.d[0];"),
}  # fmt: skip


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    kernel = Kernel("product_sm90", code=TEXT.replace(right, wrong))
    for form in BYTE_FORMS:
        case = byte_case(*form)
        for seed in (LATE, EARLY):
            try:
                if not error(case, seed, kernel) < TOLERANCE:
                    return
            except AssertionError:
                return
    pytest.fail("no case shows it")


@pytest.mark.parametrize("dtype", BYTES)
def test_forms_have_columns_that_there_are(dtype: DType) -> None:
    for count in (*range(1, 40), 49, 100, 196, 197, 784, 3136):
        p = TokenProduct(count, 512, 1024, dtype, DType.U8, 1024, 512, weights=DType.I8)
        columns = {form.tokens // form.groups for form in forms_of(p, 132)}
        assert columns
        if dtype is not F8:
            assert columns <= {8, 16, 24, *range(32, 257, 16)}


def test_columns_that_there_are_not() -> None:
    p, _, residual = BYTE_FORMS[1]
    with pytest.raises(ValueError, match="no 40 columns of whole numbers"):
        byte_case(p, Form(40, 2, 1, 2), residual)
    assert np.isfinite(error(byte_case(*BYTE_FORMS[0])))
