"""Products of many tokens by the kernel for sm_90a: forms, types, odd sizes, schedules; and that a faulty kernel is seen to."""

from dataclasses import replace

import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import (
    LargeForm,
    LargeProduct,
    large_forms,
    large_launch,
    plain_finish,
    tiles_along,
)
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Windows
from miniinfer_cli.ir import DType
from tests.backends.cuda.tactics import faults
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.large import LARGE, large, large_case
from tests.sm90_cases.large_rows import NORMALIZED, SUMMARIES, normalized_case, summary_case
from tests.sm90_cases.normalized_rows import RowsCase
from tests.sm90_cases.running import emulated_arrays
from tests.sm90_cases.tokens import TOLERANCES, D, Tokens, W, X
from tests.sm90_cases.windows import LARGE_WINDOWS, large_windows_case

_FORM = LargeForm(1, 128, 2, 2)


def error(case: Tokens, seed: int = LATE, kernel: Kernel | None = None) -> float:
    """Of the result on the emulated device, by the ``kernel`` where one is given."""
    return case.error(emulated_arrays(case.launch, case.arrays, seed, kernel)[D])


@pytest.mark.parametrize(("p", "form"), LARGE, ids=str)
def test_a_form(p: LargeProduct, form: LargeForm) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(large_case(p, form), seed) < TOLERANCES[p.dtype]
        assert error(large_case(p, form, residual=True), seed) < TOLERANCES[p.dtype]
        assert error(large_case(p, form, relu=True, quick=True), seed) < TOLERANCES[p.dtype]
    if (p, form) in LARGE[1::3]:
        assert error(large_case(p, form, relu=True)) < TOLERANCES[p.dtype]


def errors(case: RowsCase, seed: int = LATE, kernel: Kernel | None = None) -> list[float]:
    """Of each result on the emulated device, by the ``kernel`` where one is given."""
    return [*case.errors(emulated_arrays(case.launch, case.arrays, seed, kernel)).values()]


@pytest.mark.parametrize(("p", "form"), NORMALIZED, ids=str)
def test_normalized_rows(p: LargeProduct, form: LargeForm) -> None:
    for seed in (LATE, EARLY):
        assert max(errors(normalized_case(p, form, kept=seed == EARLY), seed)) < TOLERANCES[p.dtype]
    assert max(errors(normalized_case(p, form, centred=False, shifted=False, kept=True))) < TOLERANCES[p.dtype]


@pytest.mark.parametrize(("p", "form"), SUMMARIES, ids=str)
def test_statistics_of_results(p: LargeProduct, form: LargeForm) -> None:
    for seed in (LATE, EARLY):
        assert max(errors(summary_case(p, form), seed)) < TOLERANCES[p.dtype]
    assert max(errors(summary_case(p, form, residual=False))) < TOLERANCES[p.dtype]


@pytest.mark.parametrize(("windows", "features", "form"), LARGE_WINDOWS, ids=str)
def test_windows_of_a_convolution(windows: Windows, features: int, form: LargeForm) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(large_windows_case(windows, features, form, residual=seed == EARLY), seed) < TOLERANCES[DType.F16]


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F32])
def test_windows_of_other_types(dtype: DType) -> None:
    assert error(large_windows_case(*LARGE_WINDOWS[1], dtype=dtype, residual=True)) < TOLERANCES[dtype]


def test_one_block_does_all_tiles_and_many_do_one_each() -> None:
    p = large(300, 200, 136)
    for multiprocessors in (1, 2, 100):
        assert error(large_case(p, LargeForm(1, 64, 3), multiprocessors=multiprocessors, residual=True), 5) < TOLERANCES[p.dtype]


def test_rows_that_are_no_whole_vectors() -> None:
    for p in (replace(large(150, 75, 136), result_pitch=75), replace(large(150, 72, 72, DType.F32), result_pitch=73)):
        for residual in (False, True):
            assert error(large_case(p, LargeForm(1, 64, 2), residual=residual)) < TOLERANCES[p.dtype]


def test_forms_that_the_kernel_has_not() -> None:
    f16, f32 = DType.F16, DType.F32
    assert LargeForm(3, 64, 2).fault(f16) and LargeForm(2, 64, 1).fault(f16) and LargeForm(2, 320, 2).fault(f16)
    assert LargeForm(2, 96, 2).fault(f16) and LargeForm(2, 64, 2, 16).fault(f16) and LargeForm(2, 64, 2, 3).fault(f16)
    assert LargeForm(2, 256, 4).fault(f16) and LargeForm(2, 256, 2).fault(f32)
    with pytest.raises(ValueError, match="320 features"):
        large_launch(large(60, 64, 64), LargeForm(2, 320, 2), plain_finish(f16), X, W, D, None, [], 1)


@pytest.mark.parametrize("dtype", [DType.F16, DType.F32])
def test_forms_fit_the_device_and_the_first_has_the_fewest_turns(dtype: DType) -> None:
    p = large(8192, 768, 768, dtype)
    for room in (140 << 10, 226 << 10):
        forms = large_forms(p, 132, room)
        assert forms and all(not f.fault(p.waiting) and f.shared_nbytes(p.waiting) <= room for f in forms)
    area = [-(-down * across // (132 // f.sharing)) * f.features for f in forms for down, across in [tiles_along(p, f)]]
    assert area[0] == min(area)


TEXT = faults.kernel_text("large_product", "windows")
SWIZZLE = "the swizzle of what waits"
NOBODY = "finished by nobody"
ALONE = "no barrier before sums are finished by those who multiplied"
# What is wrong, and what stands there instead of what.
FAULTS = {
    "the tokens' swizzle": ("left = tile<128>", "left = tile<64>"),
    "the weights' swizzle": ("right = tile<128>", "right = tile<0>"),
    "the tokens' stride": ("16, 8 * MI_ROW_NBYTES);\n        u64 right", "16, 4 * MI_ROW_NBYTES);\n        u64 right"),
    "the weights' stride": ("TOKENS_NBYTES, 16, 8 * MI_ROW_NBYTES", "TOKENS_NBYTES, 16, 16 * MI_ROW_NBYTES"),
    "a step of k": ("left + 2 * i, right + 2 * i", "left + 2 * i, right + i"),
    "sums of the tile before": ("chunk > 0 || i > 0", "true"),
    "the phase of what is loaded": ("u32 phase = 0, turn = 0;", "u32 phase = 1, turn = 0;"),
    "the phase of free stages": ("u32 phase = 1;", "u32 phase = 0;"),
    "where k begins": ("loaded + 8 * stage, channel, token)", "loaded + 8 * stage, 0, token)"),
    "the neighbour's tokens": ("(row * MI_SHARING + me) * TOKENS", "row * MI_SHARING * TOKENS"),
    "weights of a neighbour in the wrong place": ("TOKENS_NBYTES + me * PART_NBYTES", "TOKENS_NBYTES"),
    "no wait for a free stage": ("          await(free + 8 * stage, phase);\n", ""),
    "a stage given back too early": ("          await_products<1>();\n          give_back", "          give_back"),
    "no wait for what is loaded": ("        await(loaded + 8 * stage, phase);\n", ""),
    "sums over those that are not finished": ("      await((TABLED ? tabled : taken) + 8 * group, turn & 1);\n", ""),
    "finished before they are there": ("        await(waiting + 8 * part, turn & 1);\n", ""),
    "the phase of what waits": ("(waiting + 8 * part, turn & 1)", "(waiting + 8 * part, (turn & 1) ^ 1)"),
    "the bias of another tile": ("prepare(tile + step, turn + 1)", "prepare(tile, turn + 1)"),
    "the bias of features before": ("bool known = held == feature", "bool known = held >= 0"),
    "one bias for two tiles": ("(to & 1) * BIAS_NBYTES", "0 * BIAS_NBYTES"),
    "results over those that are copied": ("      if (warp == one && lane == 0) await_stores_read<0>();\n", ""),
    "where a matrix is stored": ("mine + piece / 8 * PANEL_NBYTES", "mine + piece / 16 * PANEL_NBYTES"),
    SWIZZLE: ("((lane ^ (4 * b + row0)) % 8) * 16;", "(lane % 8) * 16;"),
    NOBODY: ("if constexpr (EARLY && !MI_ADDS)", "if constexpr (TABLED && !MI_ADDS)"),
    "no wait for the table": ("await((TABLED ? tabled : taken) + 8 * group", "await(taken + 8 * group"),
    "a table over results that are read": ("      await(taken + 8 * part, parity);\n", ""),
    "the table of another tile": ("give(part, tile + step, (turn + 1) & 1)", "give(part, tile, (turn + 1) & 1)"),
    "a table of the other part": ("8 * VECTOR, token + part * MI_ROWS)", "8 * VECTOR, token)"),
    ALONE: ("    meet(1 + group, 128);\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    form = replace(_FORM, groups=2) if "part" in name else _FORM
    case = large_case(
        large(300, 200, 64 if "table" in name else 200),
        form,
        residual="table" in name,
        relu=name in (SWIZZLE, NOBODY),
        quick=name == NOBODY,
    )
    kernel = Kernel("large_product", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 20)):
        try:
            if error(case, seed, kernel) > TOLERANCES[DType.F16]:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")


# The same of rows that are normalized, and of statistics.
ROWS_FAULTS = {
    "the scales of one tile for two": ("(to & 1) * SCALES_NBYTES", "0 * SCALES_NBYTES"),
    "the scale of another token": ("reinterpret_cast<const float*>(of + i * 32)", "reinterpret_cast<const float*>(of)"),
    "tokens of other blocks kept": ("begin = (int)blockIdx.x * MI_FINISHERS + warp", "begin = warp"),
    "a kept token by the scale of another": ("__shfl_sync(0xffffffffu, mine.y, n)", "__shfl_sync(0xffffffffu, mine.y, 0)"),
    "a kept token twice": ("load(values, x + (row + stride) * ldx)", "load(values, x + row * ldx)"),
    "statistics of another token": ("task % 2 * 32 + lane", "lane"),
    "statistics in the place of others": ("feature = feature0 + panel * PIECE", "feature = panel * PIECE"),
    "results over statistics that are copied": ("      if (warp == one && lane == 0) await_stores_read<0>();\n", ""),
}


@pytest.mark.parametrize("name", faults.some_of(ROWS_FAULTS))
def test_a_fault_of_rows_is_seen(name: str) -> None:
    right, wrong = ROWS_FAULTS[name]
    assert TEXT.count(right) == 1
    case = summary_case(*SUMMARIES[0]) if "statistics" in name else normalized_case(*NORMALIZED[0], kept=True)
    kernel = Kernel("large_product", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 8)):
        try:
            if not max(errors(case, seed, kernel)) < TOLERANCES[DType.F16]:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")


# The same of windows.
WINDOWS_FAULTS = {
    "the first channels again": ("loaded + 8 * stage, channel, corner", "loaded + 8 * stage, 0, corner"),
    "a tap's channels go on in the next": ("          channel = 0;\n", ""),
    "weights of one tap for all": ("          tap++;\n", ""),
    "taps whose weights are loaded early": ("early % parts * ELEMENTS, early / parts", "early * ELEMENTS, 0"),
    "taps across are not begun anew": ("across = 0, down++", "down++"),
    "a step of the corner": ("* w.steps[0]", "* 1"),
    "a line of corners": ("line = pixel / w.corners[0]", "line = pixel / w.corners[1]"),
    "how far taps lie apart": ("across * w.spread[0]", "across"),
    "where corners begin": ("w.lower[1] + ", ""),
    "one corner for all tiles": ("corner(w, token < count ? token : 0)", "corner(w, 0)"),
}


@pytest.mark.parametrize("name", faults.some_of(WINDOWS_FAULTS))
def test_a_fault_of_windows_is_seen(name: str) -> None:
    right, wrong = WINDOWS_FAULTS[name]
    assert TEXT.count(right) == 1
    kernel = Kernel("large_product", code=TEXT.replace(right, wrong))
    for case in (large_windows_case(*listed) for listed in LARGE_WINDOWS):
        try:
            if not error(case, LATE, kernel) < TOLERANCES[DType.F16]:
                return
        except AssertionError:
            return
    pytest.fail("no case shows it")
