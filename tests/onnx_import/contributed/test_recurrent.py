"""Operators of com.microsoft beside ONNX Runtime, which they are of."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.errors import ModelError

INPUTS, HIDDEN, STEPS = 5, 4, 6


NAMES = ["Y", "Yh", "Yc"]


def tensors_of(direction: str, per_column: bool, scales=None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    directions = 2 if direction == "bidirectional" else 1
    scale = (directions, 4 * HIDDEN) if per_column else (directions,)
    return {
        "W": rng.integers(-127, 127, (directions, INPUTS, 4 * HIDDEN)).astype(np.int8),
        "R": rng.integers(-127, 127, (directions, HIDDEN, 4 * HIDDEN)).astype(np.int8),
        "B": rng.normal(size=(directions, 8 * HIDDEN)).astype(np.float32),
        "h": rng.normal(size=(directions, 2, HIDDEN)).astype(np.float32),
        "c": rng.normal(size=(directions, 2, HIDDEN)).astype(np.float32),
        "ws": rng.uniform(0.001, 0.002, scale if scales is None else scales).astype(np.float32),
        "wz": np.zeros(scale, np.int8),
        "rs": rng.uniform(0.001, 0.002, scale).astype(np.float32),
        "rz": np.zeros(scale, np.int8),
    }


def model_of(node, tensors, inputs=()) -> bytes:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, 2, INPUTS]), *inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in NAMES],
        [numpy_helper.from_array(a, n) for n, a in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def quantized(direction: str, tensors, given=()) -> bytes:
    """A quantized LSTM over x; the tensors ``given`` are inputs."""
    inputs = ["x", "W", "R", "B", "", "h", "c", "", "ws", "wz", "rs", "rz"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, NAMES, domain="com.microsoft", direction=direction, hidden_size=HIDDEN, input_forget=0
    )
    kept = {n: a for n, a in tensors.items() if n not in given}
    kinds = {n: helper.np_dtype_to_tensor_dtype(tensors[n].dtype) for n in given}
    return model_of(node, kept, [helper.make_tensor_value_info(n, k, list(tensors[n].shape)) for n, k in kinds.items()])


def plain(direction: str, tensors) -> bytes:
    """The LSTM by the weights that the 8-bit ones stand for."""

    def stored(w: str) -> np.ndarray:
        scale, zero = (tensors[w.lower() + end].astype(np.float32) for end in "sz")
        column = (slice(None), None) if scale.ndim == 2 else (slice(None), None, None)
        return ((tensors[w].astype(np.float32) - zero[column]) * scale[column]).transpose(0, 2, 1).copy()

    node = helper.make_node("LSTM", ["x", "W", "R", "B", "", "h", "c"], NAMES, direction=direction, hidden_size=HIDDEN)
    return model_of(node, {"W": stored("W"), "R": stored("R"), **{n: tensors[n] for n in "Bhc"}})


def theirs(model: bytes, feeds) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(NAMES, feeds)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("given", [(), ("W", "ws", "wz")])
def test_dynamic_quantize_lstm(direction, per_column, given):
    tensors = tensors_of(direction, per_column)
    x = np.random.default_rng(1).normal(size=(STEPS, 2, INPUTS)).astype(np.float32)
    with miniinfer_cli.load(miniinfer_cli.build(quantized(direction, tensors, given)), device="cpu") as engine:
        ours = engine.run({"x": x, **{n: tensors[n] for n in given}})
    exact, rounded = theirs(plain(direction, tensors), {"x": x}), theirs(quantized(direction, tensors), {"x": x})
    for name, one, other in zip(NAMES, exact, rounded, strict=True):
        assert ours[name].shape == one.shape
        np.testing.assert_allclose(ours[name], one, rtol=1e-4, atol=1e-5)
        assert np.abs(ours[name] - other).mean() < 0.05  # theirs rounds x and the hidden states to 8 bits


def test_scales_of_another_rank_are_refused():
    model = quantized("forward", tensors_of("forward", False, scales=(1, 1, 1)))
    with pytest.raises(ModelError, match="input 8 of DynamicQuantizeLSTM has rank 3; expected 1 or 2"):
        miniinfer_cli.build(model)


def test_scales_that_do_not_fit_are_refused():
    model = quantized("forward", tensors_of("forward", False, scales=(3,)))
    with pytest.raises(ModelError, match=r"f32\[3\] and i8\[1\] do not lie on the weights i8\[1,5,16\]"):
        miniinfer_cli.build(model)


def test_weights_stay_8_bits_wide():
    plan = miniinfer_cli.build(quantized("bidirectional", tensors_of("bidirectional", True)))
    assert sorted(t.shape for t in plan.tensors if t.dtype.bits == 8 and t.size > 32) == [(2, 16, 4), (2, 16, 5)]


def test_other_operators_of_the_domain_are_not_known():
    graph = helper.make_graph(
        [helper.make_node("Nothing", ["x"], ["y"], domain="com.microsoft")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    with pytest.raises(ModelError, match=r"com\.microsoft::Nothing is not known"):
        miniinfer_cli.build(helper.make_model(graph, opset_imports=opsets, ir_version=8))
