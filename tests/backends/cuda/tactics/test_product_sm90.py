"""Products of few tokens by the kernel for sm_90a: forms, types, odd sizes, schedules; and that a faulty kernel is seen to."""

from dataclasses import replace

import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Windows, bias_finish, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.backends.cuda.tactics import faults
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.running import emulated_arrays
from tests.sm90_cases.tokens import FORMS, TOLERANCES, B, D, Tokens, W, X, product, tokens_case
from tests.sm90_cases.windows import WINDOWS, windows_case

TEXT = faults.kernel_text("product", "windows")


def error(p: TokenProduct, form: Form, seed: int = LATE, kernel: Kernel | None = None, *, residual: bool = False) -> float:
    """Of the result on the emulated device, by the ``kernel`` where one is given."""
    return error_of(tokens_case(p, form, residual=residual), seed, kernel)


def error_of(case: Tokens, seed: int = LATE, kernel: Kernel | None = None) -> float:
    """The same of a case."""
    return case.error(emulated_arrays(case.launch, case.arrays, seed, kernel)[D])


@pytest.mark.parametrize(("p", "form"), FORMS, ids=str)
def test_a_form(p: TokenProduct, form: Form) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(p, form, seed) < TOLERANCES[p.dtype]


@pytest.mark.parametrize(("windows", "features", "form"), WINDOWS, ids=str)
def test_windows_of_a_convolution(windows: Windows, features: int, form: Form) -> None:
    case = windows_case(windows, features, form)
    for seed in (LATE, EARLY, 7):
        assert error_of(case, seed) < TOLERANCES[DType.F16]


WRONG_WINDOWS = {
    "the first part's channels again": ("channel = part * ELEMENTS", "channel = 0"),
    "parts of a tap are not counted": ("first - tap * w.chunks", "0"),
    "taps across are not begun anew": ("across = 0, down++", "down++"),
    "a step of the corner": ("* w.steps[0]", "* 1"),
    "a line of corners": ("line = pixel / w.corners[0]", "line = pixel / w.corners[1]"),
    "how far taps lie apart": ("across * w.spread[0]", "across"),
    "where corners begin": ("w.lower[1] + ", ""),
    "a neighbour's tokens": ("neighbour * (MI_TOKENS / MI_SHARING)", "0"),
}


@pytest.mark.parametrize("name", faults.some_of(WRONG_WINDOWS))
def test_wrong_windows_are_seen(name: str) -> None:
    right, wrong = WRONG_WINDOWS[name]
    assert TEXT.count(right) == 1
    kernel = Kernel("product_sm90", code=TEXT.replace(right, wrong))
    cases = (windows_case(*w) for w in WINDOWS)
    assert any(_is_seen(case, kernel) for case in cases)


def _is_seen(case: Tokens, kernel: Kernel) -> bool:
    try:
        return not error_of(case, LATE, kernel) < TOLERANCES[DType.F16]
    except AssertionError as error:
        return "beyond the map's bounds" in str(error)


def test_weights_that_a_kernel_makes() -> None:
    assert error(replace(product(33, 72, 200), constant=False), Form(40, 2, 1, 2)) < TOLERANCES[DType.F16]


def test_rows_that_are_no_whole_vectors() -> None:
    p = replace(product(33, 72, 200), result_pitch=75)
    assert error(p, Form(40, 2, 1, 2)) < TOLERANCES[DType.F16]
    assert error(p, Form(40, 2, 1, 2), residual=True) < TOLERANCES[DType.F16]


def test_a_finish_of_several_operands() -> None:
    for seed in (LATE, 8):
        assert error(product(40, 104, 456), Form(48, 3, 2, 2), seed, residual=True) < TOLERANCES[DType.F16]


def test_forms_that_the_kernel_has_not() -> None:
    assert Form(64, 9, 1, 1).fault(12) and Form(64, 5, 1, 1).fault(4) and Form(60, 1, 1, 1).fault(4)
    assert Form(24, 1, 2, 1).fault(4) and Form(264, 1, 1, 1).fault(4) and Form(64, 1, 3, 1).fault(4)
    assert Form(64, 3, 1, 4, 1, 3).fault(4) and Form(24, 1, 1, 4, 1, 2).fault(4) and Form(64, 1, 1, 1).fault(2)
    with pytest.raises(ValueError, match="60 tokens for 1 warpgroups"):
        product_launch(product(60, 64, 64), Form(60, 1, 1, 1), bias_finish(DType.F16), X, W, D, [B])


ALONE = "no barrier before the results are turned"
UNMADE = "parts that are sent before all blocks have their barriers"
SOON = "a cluster that is told before what parts lie over is read"
TOGETHER = "no wait for the weights"
"""Which come long before the tokens unless they are loaded with these."""
# What is wrong, and what stands there instead of what.
FAULTS = {
    "the weights' swizzle": ("left = tile<128>", "left = tile<64>"),
    "the tokens' swizzle": ("right = tile<128>", "right = tile<0>"),
    "the weights' stride": ("TILE_NBYTES, 16, 8 * MI_ROW_NBYTES", "TILE_NBYTES, 16, 4 * MI_ROW_NBYTES"),
    "the tokens' stride": ("COLUMNS * MI_ROW_NBYTES, 16, 8 * MI_ROW_NBYTES", "COLUMNS * MI_ROW_NBYTES, 16, 16 * MI_ROW_NBYTES"),
    "the tokens' phase": ("i / MI_STAGES & 1)", "(i / MI_STAGES + 1) & 1)"),
    "the phase of free stages": ("(i / MI_STAGES - 1) & 1", "(i / MI_STAGES) & 1"),
    "a step of k of the weights": ("multiply<MI_T>(sums, left + 2 * step", "multiply<MI_T>(sums, left + step"),
    "a step of k of the tokens": (
        "multiply<MI_T>(sums, left + 2 * step, right + 2",
        "multiply<MI_T>(sums, left + 2 * step, right + 4",
    ),
    "where the weights' k begins": ("* chunks + first + i)", "* chunks + i)"),
    "where the tokens' k begins": (
        "k = (first + i) * ELEMENTS",
        "k = (first + i + 1) * ELEMENTS",
    ),
    TOGETHER: ("await(weights_here + 8 * i, 0);", ""),
    "no wait for a free stage": ("if (i >= MI_STAGES) await", "if (false) await"),
    "a stage given back too early": ("if (refilled || covers) await_products<1>();", ""),
    "parts over weights that are read": (
        "(BLOCKS > 1 && (MI_OVER || MI_SHARING == 1)) await_cluster();\n",
        "(false) await_cluster();\n",
    ),
    SOON: ("MI_OVER && i == COVERED", "MI_OVER && i == COVERED - 1"),
    UNMADE: ("  if (BLOCKS > 1 && (MI_OVER || MI_SHARING == 1)) await_cluster();\n#pragma", "#pragma"),
    "tokens of a neighbour in the wrong place": ("stage * TOKENS_NBYTES + neighbour * SHARED_NBYTES", "stage * TOKENS_NBYTES"),
    "a neighbour's part of k": ("- 1) << rank * MI_SHARING;", "- 1);"),
    "loads before all blocks have their barriers": ("    if (MI_SHARING > 1) await_cluster();  //", "    //"),
    "no wait for the parts": ("await_in_cluster(parts_here, 0);", ""),
    "too few bytes of parts": ("own * GROUPS * (MI_SPLIT - 1) * ATOM_NBYTES", "own * GROUPS * ATOM_NBYTES"),
    ALONE: ("if (GROUPS > 1) meet(1, THREADS);", "if (false) meet(1, THREADS);"),
    "no barrier before they are read": ("  meet(2 + group, 128);\n#pragma", "#pragma"),
    "the owner of an atom": ("owner * SHARE + a;", "(owner + 1) % MI_SPLIT * SHARE + a;"),
}


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    form = Form(48, 3, 1, 2, 1, 2, 16)
    if name in (ALONE, UNMADE, SOON):  # a ring that lets a warpgroup run ahead of all; blocks that do not share tokens
        form = (
            Form(48, 1, 2, 14) if name == ALONE else Form(48, 3, 1, 2 if name == UNMADE else 5, 1, 1, 1 if name == UNMADE else 16)
        )
    p = replace(product(40, 136, 840), constant=name != TOGETHER)
    kernel = Kernel("product_sm90", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 20)):
        try:
            if error(p, form, seed, kernel) > TOLERANCES[DType.F16]:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")
