"""Products of few tokens by the kernel for sm_90a: forms, types, odd sizes, schedules; and that a faulty kernel is seen to."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.codegen.sources import FOLDER
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Operand
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import (
    Finish,
    Form,
    TokenProduct,
    bias_finish,
    product_launch,
)
from miniinfer_cli.ir import DType
from tests.backends.cuda.performing import Buffer, launch
from tests.emulation.compiler import EARLY, LATE, scheduled
from tests.sm90_cases.packing import packed

DTYPES: dict[DType, Any] = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
TOLERANCES = {DType.F16: 5e-4, DType.BF16: 4e-3, DType.F32: 1e-3}
X, W, B, R, D = (*map(Operand.input, range(4)), Operand.output(0))
PITCH = 16  # elements more than a row has


def error(p: TokenProduct, form: Form, seed: int = LATE, kernel: Kernel | None = None, *, residual: bool = False) -> float:
    """Of the kernel's result, relative to that in f64. Whatever lies between rows stays as it is."""
    rng = np.random.default_rng(p.count + p.features + p.k)
    dtype = DTYPES[p.dtype]
    x, w = (rng.standard_normal(s).astype(dtype) for s in ((p.count, p.pitch), (p.features, p.k)))
    b, r = (rng.standard_normal(s).astype(DTYPES[p.result]) for s in ((p.features,), (p.count, p.features)))
    finish, operands = bias_finish(p.result), [B]
    if residual:
        finish, operands = with_residual(p), [B, R]
    action = product_launch(p, form, finish, X, W, D, operands)
    if kernel is not None:
        action = replace(action, kernel=replace(kernel, defines=action.kernel.defines, arch=action.kernel.arch))
    arrays = ((X, x), (W, packed(w)), (B, b), (R, r))
    buffers = {operand: Buffer(array.nbytes) for operand, array in arrays}
    for operand, array in arrays:
        buffers[operand].view(array.dtype, array.shape)[...] = array
    y = buffers[D] = Buffer(p.count * p.result_pitch * b.itemsize)
    y.bytes[:] = 0xFF
    with scheduled(seed):
        launch(action, lambda operand: buffers[operand].address)
    for buffer in buffers.values():
        buffer.check()
    found = y.view(b.dtype, (p.count, p.result_pitch))
    assert (found[:, p.features :].view(np.uint8) == 0xFF).all()
    exact = x[:, : p.k].astype(np.float64) @ w.astype(np.float64).T + b.astype(np.float64)
    if residual:
        exact = np.maximum(exact + r.astype(np.float64), 0)
    difference = float(np.linalg.norm(found[:, : p.features].astype(np.float64) - exact) / np.linalg.norm(exact))
    return difference if difference == difference else np.inf


def with_residual(p: TokenProduct) -> Finish:
    body = (
        "MI_DEVICE void body(float s, MI_X0 x0, MI_X1 x1, MI_D& y) { y = narrow<MI_D>(fmaxf(s + widen(x0) + widen(x1), 0.0f)); }"
    )
    return Finish(body, "body(s, x0, x1, y)", (p.result, p.result), (1, 1), (0, p.features))


def product(count: int, features: int, k: int, dtype: DType = DType.F16, result: DType | None = None) -> TokenProduct:
    return TokenProduct(count, features, k, dtype, result or dtype, k + PITCH, features + PITCH)


FORMS = [
    (product(8, 64, 64), Form(8, 1, 1, 1)),
    (product(33, 72, 200), Form(40, 2, 1, 2)),
    (product(40, 100, 456), Form(48, 3, 2, 2)),
    (product(100, 64, 576), Form(56, 8, 1, 4)),
    (product(64, 130, 320), Form(64, 5, 2, 1)),
    (product(40, 200, 456), Form(48, 2, 1, 2, 1, 2)),
    (product(100, 136, 384), Form(64, 3, 1, 2, 1, 2)),
    (product(30, 260, 456), Form(32, 2, 2, 2, 2, 4)),
    (product(60, 300, 320), Form(64, 1, 2, 3, 1, 4)),
    (product(197, 64, 128), Form(208, 2, 2, 1)),
    (product(40, 200, 456), Form(48, 3, 2, 2, 2)),
    (product(100, 136, 576), Form(56, 4, 1, 2, 2)),
    (product(24, 264, 128), Form(24, 1, 1, 2, 4)),
    (product(20, 72, 96, DType.BF16), Form(24, 1, 1, 2)),
    (product(20, 65, 100, DType.F32), Form(24, 2, 1, 2)),
    (product(50, 64, 192, DType.F16, DType.F32), Form(64, 3, 2, 1)),
]


@pytest.mark.parametrize(("p", "form"), FORMS, ids=str)
def test_a_form(p: TokenProduct, form: Form) -> None:
    for seed in (LATE, EARLY, 7):
        assert error(p, form, seed) < TOLERANCES[p.dtype]


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


TEXT = (FOLDER / "sm90" / "product.cu").read_text()
ALONE = "no barrier before the results are turned"
# What is wrong, and what stands there instead of what.
FAULTS = {
    "the weights' swizzle": ("left = tile<128>", "left = tile<64>"),
    "the tokens' swizzle": ("right = tile<128>", "right = tile<0>"),
    "the weights' stride": ("TILE_NBYTES, 16, 8 * MI_ROW_NBYTES", "TILE_NBYTES, 16, 4 * MI_ROW_NBYTES"),
    "the tokens' stride": ("COLUMNS * MI_ROW_NBYTES, 16, 8 * MI_ROW_NBYTES", "COLUMNS * MI_ROW_NBYTES, 16, 16 * MI_ROW_NBYTES"),
    "the tokens' phase": ("i / MI_STAGES & 1)", "(i / MI_STAGES + 1) & 1)"),
    "the phase of free stages": ("(i / MI_STAGES - 1) & 1", "(i / MI_STAGES) & 1"),
    "a step of k of the weights": ("left + 2 * step", "left + step"),
    "a step of k of the tokens": ("right + 2 * step", "right + 4 * step"),
    "where the weights' k begins": ("* chunks + first + i)", "* chunks + i)"),
    "where the tokens' k begins": (
        "k = (first + i) * ELEMENTS",
        "k = (first + i + 1) * ELEMENTS",
    ),
    "no wait for the weights": ("await(weights_here + 8 * i, 0);", ""),
    "no wait for a free stage": ("if (i >= MI_STAGES) await", "if (false) await"),
    "a stage given back too early": ("if (refilled || covers) await_products<1>();", ""),
    "parts over weights that are read": ("  if (MI_OVER) await_cluster();\n#pragma", "#pragma"),
    "tokens of a neighbour in the wrong place": ("stage * TOKENS_NBYTES + neighbour * SHARED_NBYTES", "stage * TOKENS_NBYTES"),
    "a neighbour's part of k": ("1u << (i * MI_SPLIT + rank)", "1u << (i * MI_SPLIT)"),
    "loads before all blocks have their barriers": ("    if (BLOCKS > 1) await_cluster();\n    await_turn", "    await_turn"),
    "no wait for the parts": ("await_in_cluster(parts_here, 0);", ""),
    "too few bytes of parts": ("own * GROUPS * (MI_SPLIT - 1) * ATOM_NBYTES", "own * GROUPS * ATOM_NBYTES"),
    ALONE: ("if (GROUPS > 1) meet(1, THREADS);", "if (false) meet(1, THREADS);"),
    "no barrier before they are read": ("  meet(2 + group, 128);\n#pragma", "#pragma"),
    "the owner of an atom": ("owner * SHARE + a;", "(owner + 1) % MI_SPLIT * SHARE + a;"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    form = Form(48, 1, 2, 12) if name == ALONE else Form(48, 3, 1, 2, 1, 2)  # where a warpgroup runs ahead by more than the ring
    kernel = Kernel("product_sm90", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 20)):
        try:
            if error(product(40, 136, 840), form, seed, kernel) > TOLERANCES[DType.F16]:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")
