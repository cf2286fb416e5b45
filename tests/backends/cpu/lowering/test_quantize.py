"""DynamicQuantizeLinear, QuantizeLinear and DequantizeLinear on the CPU beside their references: integers bit for bit."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cpu.lowering import quantize
from tests.backends.cpu.lowering.one_node import check_op
from tests.backends.cpu.lowering.test_matmul import normal


@pytest.mark.parametrize("block", [7, 1 << 15])
def test_ranges(block: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(quantize, "_BLOCK", block)
    x = normal(3, 50)
    halves = np.asarray([[-127.5, 127.5, 0.5, 1.5, -0.5]], np.float32)  # both ends round up: one beyond the largest
    for values in (x, np.abs(x), -np.abs(x), np.zeros_like(x), halves, x * np.float32(1e-30), np.full((1, 1), 3, np.float32)):
        check_op("DynamicQuantizeLinear", values, tactic="blocks", n_outputs=3)


def test_what_is_no_number() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        check_op("DynamicQuantizeLinear", np.asarray([1, bad, -2], np.float32), tactic="blocks", n_outputs=3)


def test_nothing_has_no_range() -> None:
    check_op("DynamicQuantizeLinear", np.zeros((0, 3), np.float32), tactic="reference", n_outputs=3)


@pytest.mark.parametrize("constants", [(1, 2), ()])
@pytest.mark.parametrize(("scale", "zero"), [(0.1, 3), (1.0, 0)])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_integers_by_one_scale(dtype: Any, scale: float, zero: int, constants: tuple[int, ...]) -> None:
    by = np.float32(scale), dtype(zero)
    floats = normal(5, 40) * np.float32(30 * scale)
    check_op("QuantizeLinear", floats, *by, tactic="blocks of 1", constants=constants)
    numbers = np.random.default_rng(0).integers(0, 120, (5, 40)).astype(dtype)
    check_op("DequantizeLinear", numbers, *by, tactic="blocks of 1", constants=constants)
