"""The benchmark of 8 bits on the emulated device: what is right is timed, what is wrong is told, exact results are right."""

import argparse
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE
from miniinfer_cli.backends.cuda.tuning.rig import Rig
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ops.interpreter import interpret
from tests.benchmarks import convolutions, low_bits
from tests.benchmarks.convolutions import Shape
from tests.benchmarks.low_bits import TYPES, line_of, measure, quantized_region
from tests.emulation.device import EmulatedFunctions
from tests.emulation.engine import load_emulated
from tests.passes.quantized_graphs import random_feeds

_SHAPE = Shape(64, 32, 1, 1, 32, "add relu", 2)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("follows", ["none", "relu", "add relu", "gelu"])
def test_exact_results_are_those_of_the_region(kind: str, follows: str) -> None:
    shape = Shape(16, 16, 3, 1, 5, follows, 1)
    made = quantized_region(shape, 2, kind)
    given = random_feeds(made.graph)
    (want,) = interpret(made.graph, given)
    looks: Any = SimpleNamespace(given=given, pixels=np.arange(50))
    right = low_bits._exact(shape, kind, made, looks)
    assert low_bits._error(kind, want.reshape(50, 16).astype(np.float64), right) < 1
    assert low_bits._error(kind, right * 1.1 + 3, right) > 1
    assert low_bits._error(kind, None, right) == float("inf")


def test_ways_are_checked_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(plan: Any, device: str, options: DeviceOptions) -> Any:
        graph = quantized_region(_SHAPE, 1, "int8").graph
        return nullcontext(SimpleNamespace(model=load_emulated(functions=EmulatedFunctions())(graph, device, options, {})))

    monkeypatch.setattr(convolutions, "load", load)
    monkeypatch.setattr(Rig, "copies_for", lambda self, once_us: 1)
    monkeypatch.setattr(low_bits, "_wanted", lambda found, forms: [c for c in found if c.key.startswith(LARGE)][:forms])
    options = argparse.Namespace(forms=1, rounds=1)
    row = {**measure(_SHAPE, 1, "int8", options), "f16": None}
    assert [key for key in row["times"] if key.startswith(LARGE)] and not row["wrong"]
    assert "floor" in line_of(row) and f"takes {row['favourite']}" in line_of(row)
    exact = low_bits._exact
    monkeypatch.setattr(low_bits, "_exact", lambda *given: exact(*given) + 9)
    row = {**measure(_SHAPE, 1, "int8", options), "f16": 3.0}
    assert not row["times"] and "WRONG" in line_of(row) and "f16 3.0" in line_of(row)
