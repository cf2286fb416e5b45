"""Excitation on the emulated device: types, sizes, activations and gates, slices, weights that are computed."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.convolution import excitation_launch as excitation
from miniinfer_cli.ir import Array
from miniinfer_cli.ops import OURS
from tests.backends.cuda.harness import check_op, run_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.nodes import reference

WEIGHTS = (1, 2, 3, 4)


def operands(images: int, channels: int, squeezed: int, features: int, dtype: Any = np.float32) -> list[Array]:
    rng = np.random.default_rng((images, channels, squeezed, features))
    shapes = ((images, 1, 1, channels), (squeezed, 1, 1, channels), (features, 1, 1, squeezed), (squeezed,), (features,))
    scales = (1, channels**-0.5, max(squeezed, 1) ** -0.5, 1, 1)
    return [(scale * rng.standard_normal(shape)).astype(dtype) for shape, scale in zip(shapes, scales, strict=True)]


def check(*given: Array | None, **options: Any) -> None:
    check_op("Excitation", *given, domain=OURS, **{"constants": WEIGHTS[: len(given) - 1], **options})


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    ("images", "channels", "squeezed", "features"),
    [(1, 32, 8, 32), (2, 96, 4, 96), (1, 50, 3, 41), (1, 7, 1, 1), (3, 300, 33, 130), (1, 1152, 48, 1152)],
)
def test_types_and_sizes(images: int, channels: int, squeezed: int, features: int, dtype: Any) -> None:
    check(*operands(images, channels, squeezed, features, dtype), activation="Swish")


@pytest.mark.parametrize("activation", ["Relu", "Swish", "HardSwish"])
def test_what_follows_each_product(activation: str) -> None:
    given = operands(2, 40, 10, 24)
    check(*given, activation=activation, gate="Sigmoid")
    check(*given, activation=activation, gate="HardSigmoid")
    check(*given, activation=activation, gate="HardSigmoid", alpha=1 / 6, beta=0.25)


@pytest.mark.parametrize("left_out", [(3,), (4,), (3, 4)])
def test_biases_that_are_left_out(left_out: tuple[int, ...]) -> None:
    check(*(None if i in left_out else a for i, a in enumerate(operands(1, 24, 5, 24))))


def test_every_number_of_outputs_of_a_block() -> None:
    keys = check_every_tactic("Excitation", *operands(2, 72, 24, 300), target=Target(), domain=OURS, constants=WEIGHTS)
    assert keys == ["slices of 128", "slices of 32", "slices of 64", "slices of 256", "slices of 512"]
    few = check_every_tactic("Excitation", *operands(1, 72, 24, 9), target=Target(), domain=OURS, constants=WEIGHTS)
    assert few == ["slices of 16"]
    check(*operands(60, 8, 4, 300), by="slices of 256")  # 180 slices of 128 are more than there are multiprocessors


def test_weights_that_are_computed_are_read_in_turn() -> None:
    check(*operands(1, 64, 16, 64), constants=())
    check(*operands(1, 64, 16, 64), constants=(1, 2, 3))


def test_more_images_than_a_grid_has_blocks_along_its_second_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excitation, "_MOST_IMAGES", 2)
    check(*operands(5, 24, 5, 24))


def test_what_the_two_products_do_instead() -> None:
    by_products = ["miniinfer.ConvNHWC", "Relu", "Sigmoid"]
    check(*operands(1, 8, 1000, 32), instead=by_products)  # a block has no room for its part of the weights
    check(*operands(1, 8, 100, 32), instead=by_products, target=Target(shared_nbytes=8 << 10))
    check(*operands(1, 8, 0, 32), instead=by_products[2:])
    check(*operands(0, 8, 4, 8), instead=by_products[:1])


def test_half_widths_are_rounded_once() -> None:
    given = operands(1, 256, 16, 64, np.float16)
    (got,) = run_op("Excitation", *given, domain=OURS, constants=WEIGHTS)
    (want,) = reference("Excitation", *(a.astype(np.float64) for a in given), domain=OURS)
    assert np.abs(got - want).max() < 2.0**-11
