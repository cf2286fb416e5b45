"""ONNX Runtime's own normalizations beside ONNX Runtime, and their plans for a GPU."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.builder.building import read_model
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import TensorType, dtype_of
from miniinfer_cli.passes.pipeline import optimize

BATCH, LENGTH, WIDTH = 2, 5, 16
SHAPE = (BATCH, LENGTH, WIDTH)


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def integers(*shape: int, high: int) -> Any:
    return np.random.default_rng(high).integers(0, high, shape).astype(np.int32)


def model_of(op: str, feeds: dict[str, Any], weights: dict[str, Any], names: str, outputs: str, **attrs: Any) -> bytes:
    """One node; ``names`` and ``outputs``: of its operands and results, ``-`` for one that is left out."""
    inputs, results = (["" if n == "-" else n for n in text.split()] for text in (names, outputs))
    node = helper.make_node(op, inputs, results, domain="com.microsoft", **attrs)
    kinds = {n: TensorProto.INT32 if n == "mask_index" else TensorProto.FLOAT for n in results if n}
    shapes = {"mask_index": [BATCH]}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()],
        [helper.make_tensor_value_info(n, k, shapes.get(n, list(SHAPE))) for n, k in kinds.items()],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    found: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return found


def check(model: bytes, feeds: dict[str, Any]) -> None:
    names = [o.name for o in onnx.load_from_string(model).graph.output]
    wanted = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(names, feeds)
    with miniinfer_cli.load(miniinfer_cli.build(model), device="cpu") as engine:
        ours = engine.run(feeds)
    for name, want in zip(names, wanted, strict=True):
        assert ours[name].dtype == want.dtype
        np.testing.assert_allclose(ours[name], want, rtol=1e-4, atol=1e-5)


def steps_of(model: bytes, feeds: dict[str, Any]) -> list[str]:
    graph, _ = read_model(onnx.load_from_string(model))
    optimize(graph)
    types = [TensorType(dtype_of(feeds[v.name]), feeds[v.name].shape) for v in graph.inputs]
    return [s.kind for s in make_program(graph, types, Target()).steps]


@pytest.mark.parametrize(
    ("op", "names", "outputs"),
    [
        ("SkipLayerNormalization", "x skip gamma beta bias", "y - - total"),
        ("SkipLayerNormalization", "x skip gamma", "y"),
        ("SkipLayerNormalization", "x few gamma beta", "y - - total"),
        ("SkipSimplifiedLayerNormalization", "x skip gamma bias", "y - - total"),
        ("SkipSimplifiedLayerNormalization", "x skip gamma", "y"),
    ],
)
def test_residuals(op: str, names: str, outputs: str) -> None:
    given = {"x": normal(*SHAPE), "skip": normal(*SHAPE) / 2, "few": normal(1, LENGTH, WIDTH)}
    feeds = {n: a for n, a in given.items() if n in names.split()}
    weights = {n: normal(WIDTH) + 1 for n in ("gamma", "beta", "bias")[::-1] if n in names.split()}
    model = model_of(op, feeds, weights, names, outputs, epsilon=1e-3)
    check(model, feeds)
    assert steps_of(model, feeds) == ["miniinfer.FusedNormalization"]


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        ("ids segments words places kinds gamma beta mask", "y mask_index total"),
        ("ids segments words places kinds gamma beta", "y mask_index"),
        ("ids - words places - gamma beta - at", "y mask_index total"),
        ("ids segments words places kinds gamma beta mask at", "y mask_index"),
    ],
)
def test_embeddings(names: str, outputs: str) -> None:
    given = {
        "ids": integers(BATCH, LENGTH, high=11),
        "segments": integers(BATCH, LENGTH, high=2),
        "mask": integers(BATCH, LENGTH, high=2),
        "at": integers(BATCH, LENGTH, high=7),
    }
    feeds = {n: a for n, a in given.items() if n in names.split()}
    sizes = {"words": (11, WIDTH), "places": (7, WIDTH), "kinds": (2, WIDTH), "gamma": (WIDTH,), "beta": (WIDTH,)}
    weights = {n: normal(*shape) for n, shape in sizes.items() if n in names.split()}
    model = model_of("EmbedLayerNormalization", feeds, weights, names, outputs)
    check(model, feeds)
    assert steps_of(model, feeds).count("miniinfer.FusedNormalization") == 1
    assert "Gather" not in steps_of(model, feeds)


@pytest.mark.parametrize(
    ("op", "names", "outputs", "message"),
    [
        ("SkipLayerNormalization", "x x gamma", "y mean", "mean and inverse deviation are outputs of training"),
        (
            "EmbedLayerNormalization",
            "ids ids table table - gamma gamma",
            "y",
            "segment_ids or segment_embedding without the other",
        ),
    ],
)
def test_refusals(op: str, names: str, outputs: str, message: str) -> None:
    feeds = {"x": normal(*SHAPE)} if "x" in names else {"ids": integers(BATCH, LENGTH, high=3)}
    weights = {"gamma": normal(WIDTH), "table": normal(7, WIDTH)}
    used = {n: a for n, a in weights.items() if n in names.split()}
    with pytest.raises(ModelError, match=message):
        miniinfer_cli.build(model_of(op, feeds, used, names, outputs))
