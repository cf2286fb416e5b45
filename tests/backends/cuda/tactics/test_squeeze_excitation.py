"""SqueezeExcitation on the emulated device: types, sizes, cuts, what follows each product, schedules; faults that are seen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import NULL, Kernel, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_heuristic import EXCITATIONS
from miniinfer_cli.backends.cuda.tactics.convolution.squeeze_excitation_launch import (
    Cut,
    SqueezeExcitation,
    squeeze_and_excite,
)
from miniinfer_cli.ir import Array, DType
from miniinfer_cli.ops import OURS
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics import faults
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.nodes import reference
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.running import emulated_arrays

WEIGHTS = (1, 2, 3, 4)
APART = ["miniinfer.GlobalAveragePoolNHWC", "miniinfer.Excitation", "Mul"]


def operands(shape: Sequence[int], squeezed: int, dtype: Any = np.float16) -> list[Array]:
    rng = np.random.default_rng((*shape, squeezed))
    channels = shape[-1]
    shapes = (tuple(shape), (squeezed, 1, 1, channels), (channels, 1, 1, squeezed), (squeezed,), (channels,))
    scales = (1, 3 * channels**-0.5, 3 * max(squeezed, 1) ** -0.5, 1, 1)
    x, *others = [(scale * rng.standard_normal(s)).astype(dtype) for s, scale in zip(shapes, scales, strict=True)]
    return [(x + 1).astype(dtype), *others]


def check(*given: Array | None, **options: Any) -> None:
    check_op("SqueezeExcitation", *given, domain=OURS, **{"constants": WEIGHTS[: len(given) - 1], **options})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize(
    ("shape", "squeezed"),
    [((1, 5, 6, 32), 4), ((2, 7, 7, 240), 10), ((3, 1, 3, 8), 1), ((2, 4, 5, 672), 28), ((1, 7, 7, 1152), 48), ((2, 9, 40), 33)],
)
def test_types_and_sizes(shape: Sequence[int], squeezed: int, dtype: Any) -> None:
    given = operands(shape, squeezed, dtype)
    if len(shape) == 3:
        given = [a.reshape(a.shape[0], 1, a.shape[-1]) if i in (1, 2) else a for i, a in enumerate(given)]
    check(*given, activation="Swish", by="cluster")


def test_every_cut() -> None:
    given = {"target": Target(), "domain": OURS, "constants": WEIGHTS}
    keys = check_every_tactic("SqueezeExcitation", *operands((2, 5, 7, 96), 8), **given)
    assert keys == [f"cluster of {cut}" for cut in ("8x1", "4x1", "1x4", "2x4")]
    many = check_every_tactic("SqueezeExcitation", *operands((1, 3, 3, 512), 48), **given)
    assert many[0] == "cluster of 1x8" and len(many) == 5


@pytest.mark.parametrize("activation", ["Relu", "Swish", "HardSwish"])
def test_what_follows_each_product(activation: str) -> None:
    given = operands((2, 3, 5, 40), 6)
    check(*given, activation=activation, gate="Sigmoid", by="cluster")
    check(*given, activation=activation, gate="HardSigmoid", alpha=1 / 6, beta=0.25, by="cluster")


@pytest.mark.parametrize("left_out", [(3,), (4,), (3, 4)])
def test_biases_that_are_left_out(left_out: tuple[int, ...]) -> None:
    given = [None if i in left_out else a for i, a in enumerate(operands((1, 4, 4, 24), 5))]
    check(*given, constants=tuple(i for i in WEIGHTS if i not in left_out), by="cluster")


def test_what_is_done_apart() -> None:
    check(*operands((1, 4, 4, 24), 5), constants=(1, 2, 3), instead=APART)  # a bias that is computed
    check(*operands((1, 4, 4, 20), 5), instead=APART)  # channels that are no whole vectors
    check(*operands((1, 4, 4, 24), 5), target=Target(arch=80), instead=APART)
    check(*operands((1, 4, 4, 24), 5), target=Target(shared_nbytes=16 << 10), instead=APART)
    check(*operands((1, 4, 4, 24), 5, np.float64), instead=APART)
    check(*operands((1, 2, 2, 8), 520), instead=APART)


def test_an_image_that_is_too_large_is_cut_otherwise_or_not_at_all() -> None:
    target = Target()
    assert SqueezeExcitation(DType.F16, 1, 112 * 112, 64, 8).cuts(target) == (Cut(8, 1), Cut(1, 8), Cut(2, 4))
    assert SqueezeExcitation(DType.F16, 1, 224 * 224, 64, 8).cuts(target) == ()
    assert SqueezeExcitation(DType.F16, 1 << 16, 4, 64, 8).cuts(target) == ()
    many, one = (SqueezeExcitation(DType.F16, images, 49, 1152, 48) for images in (64, 1))
    table = replace(EXCITATIONS, whole_images=64)
    assert many.gain_us(table) > one.gain_us(table) == one.gain_us() > 0 > many.gain_us()


def test_cuts_that_the_kernel_has_not() -> None:
    sizes = SqueezeExcitation(DType.F16, 1, 9, 136, 8)
    for cut, wrong in ((Cut(1, 8), sizes), (Cut(8, 1), replace(sizes, channels=1024)), (Cut(8, 1), replace(sizes, squeezed=513))):
        assert wrong.fault(cut) and cut not in wrong.cuts(Target())
        with pytest.raises(ValueError, match="channels"):
            squeeze_and_excite(wrong, cut, (X, SQUEEZE, EXCITE, NULL, BIAS, Y), ("relu", "sigmoid"), (0.2, 0.5))


X, SQUEEZE, EXCITE, BIAS, Y = (*map(Operand.input, range(4)), Operand.output(0))


def found(cut: Cut, seed: int, kernel: Kernel | None = None) -> float:
    """How far results are from those in f64, of images cut so."""
    shape, squeezed = (3, 5, 9, 176), 21
    x, squeeze, excite, _, bias = operands(shape, squeezed)
    sizes = SqueezeExcitation(DType.F16, shape[0], 45, shape[-1], squeezed)
    places = (X, SQUEEZE, EXCITE, NULL, BIAS, Y)
    launch = squeeze_and_excite(sizes, cut, places, ("swish", "sigmoid"), (0.2, 0.5))
    turned = np.ascontiguousarray(excite.reshape(shape[-1], squeezed).T)
    arrays = {X: x, SQUEEZE: squeeze, EXCITE: turned, BIAS: bias, Y: np.full_like(x, np.nan)}
    got = emulated_arrays(launch, arrays, seed, kernel)[Y].astype(np.float64)
    wide = [None if a is None else a.astype(np.float64) for a in (x, squeeze, excite, None, bias)]
    (want,) = reference("SqueezeExcitation", *wide, domain=OURS, activation="Swish")
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("cut", [Cut(8, 1), Cut(1, 8), Cut(2, 4), Cut(4, 2), Cut(1, 1)], ids=lambda cut: cut.key)
@pytest.mark.parametrize("seed", [LATE, EARLY, 7])
def test_schedules(cut: Cut, seed: int) -> None:
    assert found(cut, seed) < 1e-3


TEXT = faults.kernel_text("squeeze_excitation")
# What is wrong, and what stands there instead of what.
FAULTS = {
    "channels of the first block for all": ("pack0 = rank % MI_ACROSS * own_packs", "pack0 = 0 * own_packs"),
    "pixels of the first block for all": ("pixel0 = rank / MI_ACROSS * own_pixels", "pixel0 = 0 * own_pixels"),
    "an image's pixels for all": ("(long long)blockIdx.y * pixels", "0ll * pixels"),
    "pixels beyond the image": ("left < own_pixels ? left : own_pixels", "own_pixels"),
    "channels beyond the image": ("packs - pack0 < own_packs ? packs - pack0 : own_packs, width", "own_packs, width"),
    "lanes that are left out": ("i < lanes; i += helpers) total += totals", "i < lanes / 8; i += helpers) total += totals"),
    "helpers that are left out": ("    means[channel] = total;\n", "    means[channel] = totals[channel];\n"),
    "rows that are left out": ("row < rows; row += MI_THREADS / 32", "row < rows - 4; row += MI_THREADS / 32"),
    "sums to one block alone": ("address_in_block(shared_address(parts + rank * rows + four), to)",
                                "address_in_block(shared_address(parts + rank * rows + four), 0)"),
    "sums in one another's places": ("parts + rank * rows + four", "parts + four"),
    "a block's own sums alone": ("sum += parts[part * rows + thread]", "sum += part ? 0.0f : parts[part * rows + thread]"),
    "no wait for sums": ("  await_in_cluster(arrived, 0);\n", ""),
    "no wait for the barriers of others": ("  await_cluster();\n", ""),
    "sums in the place of means": ("sum / (float)pixels + bias", "sum + bias"),
    "gates of other channels": ("means + pack * MI_PACK", "means + 0 * MI_PACK"),
    "squeezed values that are left out": ("i < squeezed; i += helpers", "i + 1 < squeezed; i += helpers"),
    "no bias": ("total + bias, alpha", "total, alpha"),
}  # fmt: skip


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    kernel = Kernel("squeeze_excitation", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 12)):
        try:
            if not found(Cut(2, 4), seed, kernel) < 1e-3:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")
