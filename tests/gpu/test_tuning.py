"""Tuning on the device: libraries take their algorithms back, results stay what they are, and the tuned plan is found again."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.backends.cuda.contract.problems import Compute, ConvolutionProblem, MatmulProblem, Variant
from miniinfer_cli.backends.cuda.driver.cublaslt import CublasLt
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.devices.tuning import TuningOptions, tune_plan
from miniinfer_cli.ir import DType
from tests.gpu.plans import sizes_of, small

PRODUCT = MatmulProblem(128, 768, 3072, DType.F16, DType.F16, DType.F16, Compute.F32, bias=True)
CONVOLUTION = ConvolutionProblem(
    DType.F16, (1, 56, 56, 64), (64, 3, 3, 64), (1, 56, 56, 64), (1, 1), (1, 1), (1, 1), (1, 1), bias=True
)


@pytest.fixture
def own_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MINIINFER_CACHE", str(tmp_path / "cache"))


def test_cublaslt_takes_its_algorithms_back(device: Device) -> None:
    with CublasLt(device) as one:
        variants = one.variants(PRODUCT, 16)
        assert len(variants) > 3 and len(set(variants)) == len(variants)
    with CublasLt(device) as other:
        for variant in variants:
            prepared = other.prepare(PRODUCT, variant)
            assert prepared is not None and prepared.variant == variant
        data = variants[0].opaque["algorithm"]
        assert isinstance(data, bytes)
        assert other.prepare(PRODUCT, Variant.of({"algorithm": b"\xff" * len(data)})) is None


def test_cudnn_takes_its_plans_back_serialized_or_by_engine_and_knobs(device: Device) -> None:
    with Cudnn(device) as one:
        variants = one.variants(CONVOLUTION, 6, 60)
        assert len(variants) > 2
        stored = [v for v in (one.to_record(CONVOLUTION, v) for v in variants) if v is not None]
        assert len(stored) == len(variants)
        workspaces = [p.workspace_nbytes for v in variants if (p := one.prepare(CONVOLUTION, v)) is not None]
    with Cudnn(device) as other:
        restored = [other.prepare(CONVOLUTION, v) for v in stored]
        assert [p.workspace_nbytes for p in restored if p is not None] == workspaces
        again = [other.prepare(CONVOLUTION, v) for v in variants]
        assert [p.variant for p in again if p is not None] == variants
        larger = dataclasses.replace(CONVOLUTION, x_shape=(2, 56, 56, 64), y_shape=(2, 56, 56, 64))
        near = other.prepare(larger, stored[0])  # not by the plan, which is for the smaller one
        assert near is None or near.variant == variants[0]
        broken = Variant((*variants[0].items, ("plan", b"nonsense"), stored[0].items[-1]))
        found = other.prepare(CONVOLUTION, broken)
        assert found is not None and found.variant == variants[0]


@pytest.mark.parametrize("name", ["resnet50", "bert_base"])
def test_a_tuned_plan_computes_the_same_and_its_records_are_taken(name: str, own_key: None) -> None:
    plan = small(name, "f16")
    tuned = tune_plan(plan, "cuda:0", TuningOptions(at={"batch": [4]}))
    assert [p.sizes["batch"] for p in tuned.points] == [1, 4] and all(p.signatures > 3 for p in tuned.points)
    outputs: list[Any] = []
    for one in (dataclasses.replace(plan, targets=()), tuned.plan):
        with miniinfer_cli.load(one, "cuda:0", cache=None) as engine:
            random = np.random.default_rng(0)
            feeds = {}
            for b in engine.inputs:
                shape = sizes_of(b, 4)
                assert b.dtype is not None
                feeds[b.name] = (random.integers(0, 2, shape) if b.dtype.kind in "iu" else random.random(shape)).astype(b.dtype)
            outputs.append(engine.run(feeds))
            steps = engine.program_for_shapes({n: v.shape for n, v in feeds.items()}).steps
            chosen = {str(s.choice.chosen_by) for s in steps if s.choice is not None}
            assert engine.notes == ()
    # Where the heuristic was best, what a library found by itself is kept, and chosen by the plan, too.
    kept = [r for r in tuned.points[1].records if r.chosen_by == "timed" or r.opaque]
    assert ("plan" in chosen) == (tuned.changed and bool(kept))
    for before, after in zip(outputs[0].values(), outputs[1].values(), strict=True):
        np.testing.assert_allclose(after.astype(np.float32), before.astype(np.float32), rtol=2e-2, atol=2e-2)
