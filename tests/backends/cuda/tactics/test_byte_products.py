"""Products of bytes by the kernels for sm_90a: types, forms, schedules; and that a faulty kernel is seen to."""

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.tactics.products.byte_product_sm90 import ByteForm, ByteProduct
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct, forms_of
from miniinfer_cli.ir import DType
from tests.backends.cuda.tactics import faults
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.byte_products import BYTE_FORMS, BYTES, F8, MANY, byte_case, many_case
from tests.sm90_cases.running import emulated_arrays
from tests.sm90_cases.tokens import D, Tokens

TEXT = faults.kernel_text("product")
TOLERANCE, TOLERANCE_OF_F8 = 1e-3, 1e-2
"""Whole numbers that lie half way go to one side or the other, halves are rounded; sums of floats of 8 bits are cut off, and what
lies half way between two of these is a sixteenth off then."""


def error(case: Tokens, seed: int = LATE, kernel: Kernel | None = None) -> float:
    return case.error(emulated_arrays(case.launch, case.arrays, seed, kernel)[D])


def is_right(case: Tokens, seed: int = LATE, kernel: Kernel | None = None) -> bool:
    return error(case, seed, kernel) < (TOLERANCE_OF_F8 if case.product.result is F8 else TOLERANCE)


def is_seen(case: Tokens, seed: int, kernel: Kernel) -> bool:
    """Whether a kernel with a fault is wrong, or does what no kernel may."""
    try:
        return not is_right(case, seed, kernel)
    except AssertionError:
        return True


@pytest.mark.parametrize(("p", "form", "residual"), BYTE_FORMS, ids=str)
def test_few_tokens(p: TokenProduct, form: Form, residual: DType | None) -> None:
    case = byte_case(p, form, residual)
    for seed in (LATE, EARLY, 7):
        assert is_right(case, seed)


@pytest.mark.parametrize(("p", "form"), MANY, ids=str)
def test_many_tokens(p: ByteProduct, form: ByteForm) -> None:
    case = many_case(p, form)
    for seed in (LATE, EARLY, 7):
        assert is_right(case, seed)


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
    assert any(is_seen(byte_case(*form), seed, kernel) for form in BYTE_FORMS for seed in (LATE, EARLY)), "no case shows it"


MANY_TEXT = faults.kernel_text("byte_product")
_WHOLE, _FLOATS = (f"multiply<{types}>(d, left + 2 * i, right + 2 * i, " for types in ("MI_T, MI_W", "MI_T"))
MANY_FAULTS = {
    "the phase of loaded stages": ("await(loaded + 8 * stage, phase)", "await(loaded + 8 * stage, phase ^ 1)"),
    "no wait for a free stage": ("          await(free + 8 * stage, phase);\n", ""),
    "a stage given back too early": ("          await_products<1>();\n", ""),
    "a lane that gives back what others wait for": ("      __syncwarp();  // all", "      // all"),
    "sums that are read before they are there": ("      await_products<0>();\n      hold(d)", "      hold(d)"),
    "sums of the tile before": (f"{_WHOLE}chunk > begin || i > 0)", f"{_WHOLE}true)"),
    "sums of few digits of the chunks before": (f"{_FLOATS}chunk > begin || i > 0)", f"{_FLOATS}true)"),
    "sums of the chunks before are lost": ("begun > 0 ? sums[i] + part[i] : part[i]", "part[i]"),
    "the tokens of the other warpgroup": ("here + group * MI_ROWS * MI_ROW_NBYTES", "here"),
    "the order of features": ("sums[4 * (8 * q + i / 2) + 2 * h + i % 2]", "sums[4 * (8 * q + i % 8) + 2 * h + i / 8]"),
    "rows of the other half": ("+ 2 * h + i % 2", "+ 2 * (1 - h) + i % 2"),
    "a residual of the row before": ("&to, residual + row * ldr + column)", "&to, residual + row0 * ldr + column)"),
    "scales of other features": ("scales + column)", "scales + column0)"),
    "weights of a neighbour in its place": ("+ TOKENS_NBYTES + me * PART_NBYTES", "+ TOKENS_NBYTES"),
    "steps that are not made": ("across * w.spread[0]", "0"),
    "a tap of weights": ("          tap++;\n", ""),
    "nobody is ahead": ("come_to(1, 128 * MI_GROUPS)", "(void)0"),
}  # fmt: skip


@pytest.mark.parametrize("name", faults.some_of(MANY_FAULTS))
def test_a_fault_of_many_tokens_is_seen(name: str) -> None:
    right, wrong = MANY_FAULTS[name]
    assert MANY_TEXT.count(right) == 1
    kernel = Kernel("byte_product", code=MANY_TEXT.replace(right, wrong))
    seeds = LATE, EARLY, *range(2, 8)
    assert any(is_seen(many_case(*form), seed, kernel) for seed in seeds for form in MANY), "no case shows it"


def test_forms_of_many_tokens_that_the_kernel_has_not() -> None:
    p, _ = MANY[0]
    for form in (ByteForm(96, 2), ByteForm(64, 1), ByteForm(256, 5), ByteForm(192, 2, 5)):
        with pytest.raises(ValueError, match=r"features|ring"):
            many_case(p, form)
    assert ByteForm(192, 2).fault(F8) and not ByteForm(192, 2).fault(DType.U8)


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
