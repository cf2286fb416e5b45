"""Whole models on the GPU beside the CPU backend: the generated networks, at two batch sizes, in every precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.runtime.random_inputs import random_inputs
from sample_models.catalogue import FAMILIES, generate
from sample_models.request import Request

# Relative error that an output may have: f32 as products of f32, or of operands rounded to TF32 (MEASURING, section 6).
TOLERANCES = {"f32": 1e-5, "tf32": 5e-3, "f16": 1e-2, "bf16": 5e-2}
NAMES = [name for name, family in FAMILIES.items() if family.in_all]


def relative_error(got: Any, want: Any) -> float:
    got, want = got.astype(np.float64), want.astype(np.float64)
    assert np.isfinite(got).all()
    return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30))


@pytest.fixture(scope="module", params=NAMES)
def reference(request: pytest.FixtureRequest) -> Any:
    """The model in f32 and its outputs on the CPU, for each batch size."""
    name = request.param
    plan = miniinfer_cli.build(generate(name, Request("batch", 64, False), dtype="f32", seed=1))
    results = {}
    with miniinfer_cli.load(plan, "cpu") as engine:
        for batch in (1, 8):
            shapes = {b.name: tuple(d if isinstance(d, int) else batch for d in b.shape) for b in engine.inputs}
            feeds = random_inputs(engine.inputs, engine.ranges, shapes, {}, batch)
            results[batch] = (feeds, engine.run(feeds))
    return name, results


@pytest.mark.parametrize("precision", TOLERANCES)
def test_generated_models(reference: Any, precision: str, tmp_path: Path) -> None:
    name, results = reference
    dtype = "f32" if precision.endswith("32") else precision
    plan = tmp_path / "model.plan"
    miniinfer_cli.build(generate(name, Request("batch", 64, False), dtype=dtype, seed=1), plan, tf32=precision == "tf32")
    with miniinfer_cli.load(plan, "cuda:0") as engine:
        for feeds, expected in results.values():
            given = {b.name: feeds[b.name].astype(b.dtype) for b in engine.inputs}
            for _ in range(3):
                outputs = engine.run(given)
                for output, want in expected.items():
                    if want.dtype.kind == "f":
                        assert relative_error(outputs[output], want) <= TOLERANCES[precision], output
            if name != "detector":  # whose sizes depend on data behind NonMaxSuppression
                assert engine.program(engine.check(given)).host_steps == ()
