"""The benchmark of convolutions on the emulated device: every way is checked against f64, and a wrong one is told."""

import argparse
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.tactics.convolution import pixel_products, stems
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE
from miniinfer_cli.backends.cuda.tuning.rig import Rig
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ops.interpreter import interpret
from tests.benchmarks import convolutions
from tests.benchmarks.convolutions import FOLLOWS, Shape, exact, line_of, measure, offering, region, sums_of
from tests.emulation.device import EmulatedFunctions
from tests.emulation.engine import load_emulated

_SHAPE = Shape(8, 8, 1, 1, 32, "add relu", 2)
_OPTIONS = argparse.Namespace(dtype="f16", variants=1, rounds=1)


@pytest.mark.parametrize(("follows", "group"), [*((follows, 1) for follows in FOLLOWS), ("relu", 2)])
def test_exact_results_are_those_of_the_graph(follows: str, group: int) -> None:
    shape = Shape(8, 6, 3, 2, 7, follows, 1, group)
    graph, w, b = region(shape, 2, "f32")
    random = np.random.default_rng(1)
    x, z = (random.standard_normal(s).astype(np.float32) for s in ((2, 7, 7, 6), (2, 4, 4, 8)))
    (want,) = interpret(graph, [x, z][: len(graph.inputs)])
    found = exact(shape, np.arange(32), x, w, b, z if "add" in follows else None)
    np.testing.assert_allclose(found, want.reshape(32, 8), rtol=1e-5, atol=1e-5)


def test_as_many_forms_are_offered_as_are_asked_for() -> None:
    before = thresholds()
    with offering(2):
        assert thresholds() == [replace(before[0], large_forms=2)] * 2
    assert all(now is one for now, one in zip(thresholds(), before, strict=True)) and before[0] is before[1]


def thresholds() -> list[Any]:
    """As each module that offers forms has them."""
    return [vars(module)["MANY_PIXELS"] for module in (pixel_products, stems)]


def test_ways_are_checked_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(plan: Any, device: str, options: DeviceOptions) -> Any:
        graph, *_ = region(_SHAPE, 1, "f16")
        return nullcontext(SimpleNamespace(model=load_emulated(functions=EmulatedFunctions())(graph, device, options, {})))

    monkeypatch.setattr(convolutions, "load", load)
    monkeypatch.setattr(Rig, "copies_for", lambda self, once_us: 1)
    monkeypatch.setattr(convolutions, "_wanted", lambda found: [c for c in found if c.key.startswith(LARGE)][:1])
    row = measure(_SHAPE, 1, _OPTIONS)
    assert [name for name in row["times"] if name.startswith("large")] and not row["wrong"]
    assert "large" in line_of(row) and "floor" in sums_of([row])
    monkeypatch.setattr(convolutions, "exact", lambda *given: exact(*given) + 0.1)
    assert not (row := measure(_SHAPE, 1, _OPTIONS))["times"] and "WRONG" in line_of({**row, "times": {"x": 1.0}})
