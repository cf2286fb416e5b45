"""Products of many tokens and few features by the kernel for sm_90a: forms, schedules, windows; and that a fault is seen."""

from dataclasses import replace

import pytest

from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import LargeProduct, large_forms, large_us, plain_finish
from miniinfer_cli.backends.cuda.tactics.products.narrow_product_sm90 import (
    NarrowForm,
    grid_of,
    grouped_forms,
    narrow_forms,
    narrow_launch,
    narrow_us,
)
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Windows
from miniinfer_cli.ir import DType
from tests.backends.cuda.tactics import faults
from tests.backends.cuda.tactics.test_large_product import error
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.large import NARROW, large, large_case
from tests.sm90_cases.tokens import TOLERANCES, D, W, X
from tests.sm90_cases.windows import GROUPED_WINDOWS, NARROW_WINDOWS, large_windows_case


@pytest.mark.parametrize(("p", "form"), NARROW, ids=str)
def test_a_form(p: LargeProduct, form: NarrowForm) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(large_case(p, form), seed) < TOLERANCES[p.dtype]
        assert error(large_case(p, form, residual=True), seed) < TOLERANCES[p.dtype]
    for quick in (False, True):
        assert error(large_case(p, form, relu=True, quick=quick)) < TOLERANCES[p.dtype]


@pytest.mark.parametrize(("windows", "features", "form"), [*NARROW_WINDOWS, *GROUPED_WINDOWS], ids=str)
def test_windows_of_a_convolution(windows: Windows, features: int, form: NarrowForm) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(large_windows_case(windows, features, form, residual=seed == EARLY), seed) < TOLERANCES[DType.F16]


def test_weights_that_a_kernel_makes_and_any_number_of_blocks() -> None:
    p, form = NARROW[1]
    assert error(large_case(replace(p, constant=False), form)) < TOLERANCES[p.dtype]
    for multiprocessors in (1, 3, 100):
        assert error(large_case(p, form, residual=True, multiprocessors=multiprocessors), 5) < TOLERANCES[p.dtype]


def test_what_the_kernel_does_not_do() -> None:
    p = large(500, 64, 128)
    assert (
        NarrowForm(128, 1).fault(1)
        and NarrowForm(24, 3).fault(1)
        and NarrowForm(272, 2).fault(1)
        and NarrowForm(128, 8).fault(20)
    )
    assert narrow_forms(p) and not narrow_forms(p, 1 << 10) and not narrow_forms(replace(p, features=65))
    assert not narrow_forms(large(500, 64, 128, DType.F32)) and not narrow_forms(large(500, 64, 128, result=DType.F32))
    assert narrow_forms(large(1 << 15, 136, 48)) and not narrow_forms(large(1 << 15, 136, 56))
    assert not narrow_forms(large((1 << 15) - 1, 136, 48))
    for wrong in (replace(p, features=68), replace(p, result_pitch=65), large(500, 64, 128, DType.F32)):
        with pytest.raises(ValueError, match=r"features|rows"):
            narrow_launch(wrong, NarrowForm(32, 3), plain_finish(wrong.result), X, W, D, None, [], 1)


# Images, size, channels, groups; microseconds by tiles of 128, 64 and 32 tokens, on an H200.
MEASURED = {
    (16, 56, 128, 2): (22.1, 24.6, 39.1),
    (16, 28, 256, 4): (14.3, 15.3, 22.7),
    (16, 14, 512, 8): (12.7, 13.6, 17.3),
    (16, 7, 1024, 16): (8.3, 8.6, 11.3),
    (1, 14, 512, 8): (7.8, 7.2, 6.9),
    (1, 14, 408, 17): (8.1, 7.9, 9.1),
}


@pytest.mark.parametrize("sizes", MEASURED)
def test_times_of_groups_are_those_that_were_measured(sizes: tuple[int, ...]) -> None:
    images, size, channels, groups = sizes
    windows = Windows((images, size, size, channels), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), groups=groups)
    p = replace(large(images * size * size, channels, 576), windows=windows)
    forms = {form.tokens: form for form in grouped_forms(p, 132)}
    measured = dict(zip((128, 64, 32), MEASURED[sizes], strict=True))
    for tokens, us in measured.items():
        assert narrow_us(p, forms[tokens], 132) == pytest.approx(us, rel=0.2)
    assert measured[grouped_forms(p, 132)[0].tokens] < 1.05 * min(measured.values())


def test_forms_of_groups() -> None:
    """Few tiles are short ones, so that more blocks have one; blocks are no more than it takes for as few turns."""
    windows = Windows((16, 14, 14, 432), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), groups=9)
    p = replace(large(3136, 432, 576), windows=windows)
    few = replace(p, count=196)
    for listed in (p, few):
        found = grouped_forms(listed, 132)
        assert sorted(form.tokens for form in found) == [32, 64, 128]
        us = [narrow_us(listed, form, 132) for form in found]
        assert us == pytest.approx(sorted(us))
    assert grouped_forms(few, 132)[0].tokens == 64
    assert grid_of(p, NarrowForm(128, 7), 132) == (13, 9) and grid_of(few, NarrowForm(128, 7), 132) == (2, 9)
    assert grid_of(p, NarrowForm(128, 7), 5) == (1, 9)
    assert not grouped_forms(p, 132, 1 << 10) and not grouped_forms(replace(p, windows=replace(windows, groups=1)), 132)
    assert not grouped_forms(replace(p, features=36), 132) and not grouped_forms(replace(p, result=DType.F32), 132)
    wrong = replace(p, features=18 * 4, windows=replace(windows, groups=18), k=576)  # features that are no whole vectors
    with pytest.raises(ValueError, match="features"):
        narrow_launch(wrong, NarrowForm(32, 3), plain_finish(wrong.result), X, W, D, None, [], 1)


def test_parts_of_more_features() -> None:
    """Short tokens are read again by each 64 features, which takes less time than one tile of all: MobileNetV2's."""
    p = large(802816, 96, 16)
    (form,) = narrow_forms(p)
    assert grid_of(p, form, 132) == (66, 2)
    assert narrow_us(p, form, 132, 180_000_000) < 60 < min(large_us(p, f, 132, moved=180_000_000) for f in large_forms(p, 132))


TEXT = faults.kernel_text("narrow_product")
WHOLE, SHORT = "results that are finished before they are there", "results over those that are copied"
# What is wrong, and what stands there instead of what.
FAULTS = {
    "the weights' swizzle": ("left = tile<128>", "left = tile<64>"),
    "the tokens' stride": ("stage * TOKENS_NBYTES, 16, 1024)", "stage * TOKENS_NBYTES, 16, 512)"),
    "weights of the first chunk for all": ("left = tile<128>(base + chunk * WEIGHTS_NBYTES", "left = tile<128>(base"),
    "a step of k": ("left + 2 * i, right + 2 * i", "left + 2 * i, right + i"),
    "sums of the tile before": ("chunk > 0 || i > 0", "true"),
    "where k begins": ("loaded + 8 * stage, channel, token)", "loaded + 8 * stage, 0, token)"),
    "no wait for weights": ("  await(weighed, 0);\n", ""),
    "no wait for what is loaded": ("      await(loaded + 8 * stage, phase);\n", ""),
    "no wait for a free stage": ("        await(free + 8 * stage, phase);\n", ""),
    "a stage given back too early": ("        await_products<1>();\n        give_back", "        give_back"),
    "both warpgroups take all tiles": ("if ((turn & 1) != (u32)group) continue;", ""),
    "the stages of another tile": ("place = turn * (u32)chunks", "place = turn / 2 * (u32)chunks"),
    "the other warpgroup's results": ("room + at_results + group * TOKENS_NBYTES", "room + at_results"),
    "features that are exchanged": ("piece = warp * 2 + lane / 8 % 2", "piece = warp * 2"),
    "one number is added to all": ("two[e] = sum + added[i % 2]", "two[e] = sum + added[0]"),
    SHORT: ("    if (member == 0) await_stores_read<0>();\n    meet(1 + group, 128);\n", ""),
    WHOLE: ("      meet(1 + group, 128);\n#pragma unroll\n      for (int unit", "#pragma unroll\n      for (int unit"),
    "copied before they are there": ("    fence_for_copies();\n    meet(1 + group, 128);\n", "    fence_for_copies();\n"),
    "what is added to another token": ("token0 + member / 8 + 16 * unit", "member / 8 + 16 * unit"),
    "a phase that is not told from the one before": ("    if (turn > 0) await(begun", "    if (turn > 9) await(begun"),
    "the other one's turn before": ("(turn - 1) / 2 & 1", "turn / 2 & 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    residual = name == WHOLE or "added to another" in name
    case = large_case(large(700, 56, 200), NarrowForm(32, 3), residual=residual, multiprocessors=3)
    kernel = Kernel("narrow_product", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 12)):
        try:
            if not error(case, seed, kernel) < TOLERANCES[DType.F16]:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")


GROUPED_FAULTS = {
    "the first group's pixels for all": ("corner.image, block, beside", "corner.image, 0, beside"),
    "the first group's weights for all": ("weighed, channel, tap, feature0)", "weighed, channel, tap, column0)"),
    "weights of all parts alike": ("feature0 = block * width + column0", "feature0 = block * width"),
    "the first part's bias for all": ("bias[feature0 + feature]", "bias[feature]"),
    "the first group's operands for all": ("  column += feature0;\n", "  column += column0;\n"),
    "results in another group's place": ("results, column0, block, (int)token0", "results, column0, 0, (int)token0"),
    "results in another part's place": ("results, column0, block, (int)token0", "results, 0, block, (int)token0"),
    "a group behind the other's parts": ("block = (int)blockIdx.y / parts", "block = (int)blockIdx.y % parts"),
    "no step of k": ("i < MI_STEPS; i++", "i + 1 < MI_STEPS; i++"),
}


@pytest.mark.parametrize("name", faults.some_of(GROUPED_FAULTS))
def test_a_fault_of_groups_is_seen(name: str) -> None:
    right, wrong = GROUPED_FAULTS[name]
    assert TEXT.count(right) == 1
    case = large_windows_case(*GROUPED_WINDOWS[2], residual=True)
    kernel = Kernel("narrow_product", code=TEXT.replace(right, wrong))
    try:
        found = error(case, EARLY, kernel)
    except AssertionError:
        return
    assert not found < TOLERANCES[DType.F16]


def test_parts_that_are_put_where_the_first_is_are_seen() -> None:
    right, wrong = "results, feature0, (int)token0", "results, 0, (int)token0"
    assert TEXT.count(right) == 1
    case = large_case(large(300, 136, 40), NarrowForm(32, 3), residual=True)
    assert error(case, EARLY) < TOLERANCES[DType.F16]
    assert not error(case, EARLY, Kernel("narrow_product", code=TEXT.replace(right, wrong))) < TOLERANCES[DType.F16]
