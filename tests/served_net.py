"""The network that other servers are tested with, its plan as a fixture, and requests to it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import miniinfer_cli
from tests.everywhere import parsed

NET = """g (float[{rows},16] x, int64[{rows}] k) => (float[{rows},4] y, int64[{rows}] best) {{
    h = MatMul(x, w)
    chosen = Gather<axis = 0>(scale, k)
    last = Constant<value = int64[1] {{-1}}>()
    column = Unsqueeze(chosen, last)
    scaled = Mul(h, column)
    y = Softmax<axis = 1>(scaled)
    best = ArgMax<axis = 1, keepdims = 0>(y)
}}"""
"""Fails in the middle of a batch for a ``k`` beyond 3."""


def net(rows: str = "n") -> onnx.ModelProto:
    model = parsed(NET.format(rows=rows))
    random = np.random.default_rng(0)
    for name, shape in (("w", (16, 4)), ("scale", (3,))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(random.standard_normal(shape, np.float32), name))
    return model


@pytest.fixture(scope="session")
def plan(tmp_path_factory) -> Path:
    """The file of its plan, for those whose conftest names it."""
    path = tmp_path_factory.mktemp("plan") / "net.plan"
    miniinfer_cli.build(net(), path)
    return path


def requests(count: int, seed: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"x": random.standard_normal((count, 16), np.float32), "k": random.integers(0, 3, count)}


def document(inputs):
    types = {"x": "FP32", "k": "INT64"}
    tensors = [{"name": n, "shape": list(a.shape), "datatype": types[n], "data": a.ravel().tolist()} for n, a in inputs.items()]
    return {"inputs": tensors}
