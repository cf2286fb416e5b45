"""The generated networks, small, through build, file and run: onnxruntime's numbers at two sizes from one plan."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import miniinfer_cli
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.builder.building import read_model
from miniinfer_cli.passes.pipeline import optimize
from sample_models.catalogue import FAMILIES, generate, sample_inputs
from sample_models.request import Request
from tests.a_tenth import build_within_a_tenth

LARGEST_ERROR = 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_are_those_of_onnxruntime(name: str, tmp_path: Path):
    model = generate(name, Request(small=True))
    build_within_a_tenth(model, tmp_path / "model.plan")
    with miniinfer_cli.load(tmp_path / "model.plan", device="cpu") as engine:
        for sizes in ({"batch": 1, "seq": 5}, {"batch": 3, "seq": 11}):
            inputs = sample_inputs(model, sizes, seed=2)
            got = engine.run(inputs)
            for key, expected in oracle(model, inputs).items():
                assert (got[key].dtype, got[key].shape) == (expected.dtype, expected.shape)
                error = (
                    np.linalg.norm(got[key] - expected) / np.linalg.norm(expected) if expected.any() else np.abs(got[key]).max()
                )
                assert error < LARGEST_ERROR, f"{key} is off by {error:.1e}"


@pytest.mark.parametrize(
    ("name", "recognised"),
    [
        ("bert_base", {"Attention": 2, "LayerNormalization": 5, "Gelu": 2}),
        ("gpt2", {"Attention": 2, "LayerNormalization": 5, "Gelu": 2}),
        ("llama_1b", {"Attention": 2, "RMSNormalization": 5, "RotaryEmbedding": 4, "Swish": 2, "Split": 4, "MatMul": 9}),
        ("vit_b16", {"Attention": 2, "LayerNormalization": 5, "Gelu": 2}),
        ("resnet50", {"BatchNormalization": 0, "ConvNHWC": 20}),
        ("efficientnet_b0", {"BatchNormalization": 0, "Swish": 16}),
        ("mobilenet_v2", {"BatchNormalization": 0}),
    ],
)
def test_layers_are_recognised(name: str, recognised: dict[str, int], tmp_path: Path):
    miniinfer_cli.build(generate(name, Request(small=True)), tmp_path / "model.plan")
    with miniinfer_cli.load(tmp_path / "model.plan", device="cpu") as engine:
        found = [inner.op for node in engine.graph for inner in ([node] if node.body is None else node.body)]
    assert {op: found.count(op) for op in recognised} == recognised


def test_a_layer_of_the_llama_is_ten_steps_on_a_gpu():
    """No step moves data: the embedding is looked up by the first norm, heads and gates are read within merged projections."""
    graph, _ = read_model(generate("llama_1b", Request(2, 6, small=True), dtype="f16"))
    optimize(graph)
    kinds = [
        step.kind.removeprefix("miniinfer.") for step in make_program(graph, [v.type for v in graph.inputs], Target(80)).steps
    ]
    attention = ["MatMul", "RotaryEmbedding", "RotaryEmbedding", "Attention", "FusedMatMul", "RMSNormalization"]
    gates = ["MatMul", "FusedPointwise", "FusedMatMul", "RMSNormalization"]
    assert kinds == ["FusedNormalization", *attention, *gates, *attention, *gates, "MatMul"]


def oracle(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in model.graph.output]
    return dict(zip(names, session.run(names, inputs), strict=True))
