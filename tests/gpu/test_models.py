"""Whole models on the GPU beside the CPU backend: the generated networks, at two batch sizes, in every precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.ir import DType
from miniinfer_cli.runtime.random_inputs import random_inputs
from sample_models.catalogue import FAMILIES, generate
from sample_models.request import Request
from tests.gpu.driver.operands import assert_close
from tests.gpu.plans import sizes_of

# Type of the model, and the way to compute.
PRECISIONS = ((DType.F32, Compute.F32), (DType.F32, Compute.TF32), (DType.F16, Compute.F32), (DType.BF16, Compute.F32))
NAMES = [name for name, family in FAMILIES.items() if family.in_all]


@pytest.mark.parametrize("name", NAMES)
def test_generated_models(name: str, tmp_path: Path) -> None:
    expected = on_the_cpu(name)
    for dtype, compute in PRECISIONS:
        if name == "detector" and (dtype, compute) != (DType.F32, Compute.F32):
            continue  # boxes whose scores are near each other are ranked otherwise in another precision
        plan = tmp_path / f"{dtype}_{compute}.plan"
        miniinfer_cli.build(
            generate(name, Request("batch", 64, False), dtype=dtype.value, seed=1), plan, tf32=compute is Compute.TF32
        )
        with miniinfer_cli.load(plan, "cuda:0") as engine:
            for feeds, wanted in expected:
                given = {b.name: feeds[b.name].astype(b.dtype) for b in engine.inputs}
                for _ in range(3):  # launched one by one, captured, replayed
                    outputs = engine.run(given)
                    for output, want in wanted.items():
                        if want.dtype.kind == "f":
                            assert_close(outputs[output], want.astype(np.float64), dtype, compute, f"{output} of {plan.stem}")
                if name != "detector":  # whose sizes depend on data behind NonMaxSuppression
                    assert list(engine.program(engine.check(given)).host_steps) == []


@pytest.mark.parametrize("name", [n for n in NAMES if n != "detector"])  # as above
def test_generated_models_of_f32_built_in_16_bits(name: str, tmp_path: Path) -> None:
    model, expected = generate(name, Request("batch", 64, False), dtype="f32", seed=1), on_the_cpu(name)
    for half in (DType.F16, DType.BF16):
        miniinfer_cli.build(model, tmp_path / f"{half}.plan", precision=half.value)
        with miniinfer_cli.load(tmp_path / f"{half}.plan", "cuda:0") as engine:
            for feeds, wanted in expected:
                for _ in range(3):
                    outputs = engine.run(feeds)
                for output, want in wanted.items():
                    if want.dtype.kind == "f":
                        assert outputs[output].dtype == want.dtype
                        assert_close(outputs[output], want.astype(np.float64), half, Compute.F32, f"{output} in {half}")


def on_the_cpu(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs, and the outputs of the model in f32 on the CPU, for two batch sizes."""
    plan = miniinfer_cli.build(generate(name, Request("batch", 64, False), dtype="f32", seed=1))
    with miniinfer_cli.load(plan, "cpu") as engine:
        results = []
        for batch in (1, 8):
            shapes = {b.name: sizes_of(b, batch) for b in engine.inputs}
            feeds = random_inputs(engine.inputs, engine.ranges, shapes, {}, batch)
            if name == "detector":  # otherwise it sees nothing, and there is nothing to compare
                feeds = {k: 20 * x for k, x in feeds.items()}
            results.append((feeds, engine.run(feeds)))
            assert all(value.size for value in results[-1][1].values())
    return results
