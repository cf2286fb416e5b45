"""Products of many tokens by the kernel for sm_90a: forms, types, odd sizes, schedules; and that a faulty kernel is seen to."""

from dataclasses import replace

import pytest

from miniinfer_cli.backends.cuda.codegen.sources import FOLDER
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import (
    LargeForm,
    LargeProduct,
    large_forms,
    large_launch,
    plain_finish,
    tiles_along,
)
from miniinfer_cli.ir import DType
from tests.backends.cuda.performing import Buffer, launch
from tests.backends.cuda.tactics import faults
from tests.emulation.compiler import EARLY, LATE, scheduled
from tests.sm90_cases.large import LARGE, large, large_case
from tests.sm90_cases.tokens import TOLERANCES, D, Tokens, W, X

_FORM = LargeForm(1, 128, 2, 2)


def error(case: Tokens, seed: int = LATE, kernel: Kernel | None = None) -> float:
    """Of the result on the emulated device, by the ``kernel`` where one is given."""
    action = case.launch
    if kernel is not None:
        action = replace(action, kernel=replace(kernel, defines=action.kernel.defines, arch=action.kernel.arch))
    buffers = {operand: Buffer(array.nbytes) for operand, array in case.arrays.items()}
    for operand, array in case.arrays.items():
        buffers[operand].view(array.dtype, array.shape)[...] = array
    with scheduled(seed):
        launch(action, lambda operand: buffers[operand].address)
    for buffer in buffers.values():
        buffer.check()
    result = case.arrays[D]
    return case.error(buffers[D].view(result.dtype, result.shape))


@pytest.mark.parametrize(("p", "form"), LARGE, ids=str)
def test_a_form(p: LargeProduct, form: LargeForm) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(large_case(p, form), seed) < TOLERANCES[p.dtype]
        assert error(large_case(p, form, residual=True), seed) < TOLERANCES[p.dtype]


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


TEXT = (FOLDER / "sm90" / "large_product.cu").read_text()
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
    "where k begins": ("loaded + 8 * stage, chunk * ELEMENTS, token)", "loaded + 8 * stage, 0, token)"),
    "the neighbour's tokens": ("(row * MI_SHARING + me) * TOKENS", "row * MI_SHARING * TOKENS"),
    "weights of a neighbour in the wrong place": ("TOKENS_NBYTES + me * PART_NBYTES", "TOKENS_NBYTES"),
    "no wait for a free stage": ("            await(free + 8 * stage, phase);\n", ""),
    "a stage given back too early": ("          await_products<1>();\n          give_back", "          give_back"),
    "no wait for what is loaded": ("        await(loaded + 8 * stage, phase);\n", ""),
    "sums over those that are not finished": ("      await(taken + 8 * group, turn & 1);\n", ""),
    "finished before they are there": ("    if (waits) await(waiting + 8 * part, parity);\n", ""),
    "the phase of what waits": ("(waiting + 8 * part, parity)", "(waiting + 8 * part, parity ^ 1)"),
    "the bias of another tile": ("add_bias(tile + step, turn + 1)", "add_bias(tile, turn + 1)"),
    "one bias for two tiles": ("(to & 1) * BIAS_NBYTES", "0 * BIAS_NBYTES"),
    "where a matrix is stored": ("store_matrices(mine + j / 8 * PANEL_NBYTES", "store_matrices(mine + j / 16 * PANEL_NBYTES"),
    "the swizzle of what waits": ("((lane ^ (4 * b + row0)) % 8) * 16;", "(lane % 8) * 16;"),
    "no wait for the table": ("    if (MI_TABLE >= 0) await(tabled + 8 * part, parity);\n", ""),
    "a table over one that is read": ("if (MI_TABLE >= 0) await(taken + 8 * part, (turn + 1) & 1);", ""),
    "the table of another tile": ("load_table(tile + step, part)", "load_table(tile, part)"),
    "a table of the other part": ("feature + panel * 8 * PIECE, token + part * MI_ROWS)", "feature + panel * 8 * PIECE, token)"),
    ALONE: ("    meet(1 + group, 128);\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    form = replace(_FORM, groups=2) if "part" in name else _FORM
    case = large_case(large(300, 200, 64 if "table" in name else 200), form, residual="table" in name)
    kernel = Kernel("large_product", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 20)):
        try:
            if error(case, seed, kernel) > TOLERANCES[DType.F16]:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")
