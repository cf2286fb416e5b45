"""LayerNormalization and RMSNormalization on the CPU beside their references."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.lowering import layer_normalization
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal


@pytest.mark.parametrize("shape", [(7, 12), (2, 3, 5, 8), (6,), (1, 1)])
@pytest.mark.parametrize("group", [1, 25, 1 << 15])
@pytest.mark.parametrize("constants", [(), (1, 2)])
def test_every_shape(shape: tuple[int, ...], group: int, constants: tuple[int, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr(layer_normalization, "_GROUP", group)
    x, scale, bias = 5 + 3 * normal(*shape), normal(shape[-1]), normal(shape[-1])
    check_op("LayerNormalization", x, scale, bias, constants=constants, tactic="row groups", tolerance=1e-5)
    check_op("LayerNormalization", x, scale, constants=constants[:1], tactic="row groups", tolerance=1e-5, epsilon=0.5)
    check_op("RMSNormalization", x, scale, constants=constants[:1], tactic="row groups", tolerance=1e-5, epsilon=0.5)


def test_operands_of_more_axes_and_an_axis_from_the_front() -> None:
    x, scale, bias = normal(2, 3, 8), normal(1, 1, 8), normal(1, 8)
    check_op("LayerNormalization", x, scale, bias, tactic="row groups", axis=2, tolerance=1e-5)


def test_a_mean_far_from_zero_leaves_no_more_error_than_the_reference_s() -> None:
    x = (1000 + normal(4, 64)).astype(np.float32)
    check_op("LayerNormalization", x, normal(64), normal(64), tactic="row groups", tolerance=1e-6)


@pytest.mark.parametrize(
    ("operands", "attrs"),
    [
        ((normal(4, 8, dtype=np.float64), normal(8, dtype=np.float64)), {}),
        ((normal(4, 8, dtype=np.float16), normal(8, dtype=np.float16)), {}),
        ((normal(4, 8), normal(8)), {"stash_type": 11}),
        ((normal(4, 3, 8), normal(3, 8)), {}),
        ((normal(4, 3, 8), normal(3, 8)), {"axis": 1}),
        ((normal(4, 8), np.ones(1, np.float32)), {}),
        ((normal(0, 8), normal(8)), {}),
        ((normal(4, 8), normal(8)), {"n_outputs": 3}),
    ],
)
def test_what_is_left_to_the_reference(operands: Any, attrs: dict[str, Any]) -> None:
    check_op("LayerNormalization", *operands, tactic="reference", tolerance=1e-2, **attrs)
