"""Operators of com.microsoft on a GPU, beside ONNX Runtime's CPU, or the references of the tests on the CPU."""

from typing import Any

import pytest

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.runtime.engine import Engine
from tests.onnx_import.contributed import test_attention, test_blocks, test_decoder, test_floats, test_quantized
from tests.onnx_import.contributed.cases import Chance, check

FAMILIES = [*test_attention.FAMILIES, *test_blocks.FAMILIES, *test_floats.FAMILIES, *test_quantized.FAMILIES]
SEEDS = 8
_ORDERS = 3.0  # sums in another order, of values that cancel


def on_gpu(plan: Plan) -> Engine:
    """The plan on the GPU."""
    return miniinfer_cli.load(plan, "cuda:0")


@pytest.mark.parametrize("family", FAMILIES)
def test_random_nodes(family: Any) -> None:
    for seed in range(SEEDS):
        check(family(Chance(seed)), on_gpu, _ORDERS)


def test_prompt_and_steps() -> None:
    test_decoder.check_steps(on_gpu, 3e-4)
