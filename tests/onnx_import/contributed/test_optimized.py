"""Models that ONNX Runtime has optimized and saved, which is how most operators of com.microsoft come into files."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import miniinfer_cli
from miniinfer_cli.onnx_import.registry import CONTRIBUTED
from sample_models.catalogue import generate
from sample_models.request import Request

FUSED = {
    "simple_cnn": {"FusedConv", "FusedGemm"},
    "efficientnet_b0": {"FusedConv", "QuickGelu"},
    "bert_base": {"FusedGemm", "FusedMatMul", "Gelu", "SkipLayerNormalization"},
    "gpt2": {"FastGelu", "FusedMatMul", "SkipLayerNormalization"},
}


def fed(node: Any, rng: Any) -> Any:
    shape = [d if isinstance(d, int) else 2 for d in node.shape]
    if node.type == "tensor(float)":
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(0, 2, shape).astype(np.int64 if node.type == "tensor(int64)" else np.int32)


@pytest.mark.parametrize("name", FUSED)
def test_saved_by_onnxruntime(name: str, tmp_path: Path) -> None:
    """The same numbers, in no more nodes than the model before takes, and none of the domain."""
    model, path = generate(name, Request(2, 8, small=True)), tmp_path / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    operators = Counter(n.op_type for n in onnx.load(path).graph.node if n.domain == CONTRIBUTED)
    assert FUSED[name] <= operators.keys()
    feeds = {i.name: fed(i, np.random.default_rng(0)) for i in session.get_inputs()}
    wanted = session.run(None, feeds)
    before, plan = miniinfer_cli.build(model), miniinfer_cli.build(path)
    assert len(plan.graph.nodes) <= len(before.graph.nodes)
    with miniinfer_cli.load(plan, device="cpu") as engine:
        for one, other in zip(engine.run(feeds).values(), wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())
