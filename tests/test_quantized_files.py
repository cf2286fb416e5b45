"""Files of quantizing tools, as they come: ONNX Runtime's static QDQ in three forms, and PyTorch's style by hand.

Outputs are those of ONNX Runtime without optimizations; there are about as many steps as in the f32 form.
"""

import logging

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import miniinfer_cli

SIZE = 16


def cnn(width=8):
    """A stem with a pool, a bottleneck with a residual, a depthwise block with relu6, and a classifier."""
    rng = np.random.default_rng(0)
    weights, nodes = [], []

    def weight(name, *shape):
        array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:] or (10,)))
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(x, y, features, channels, taps, **attrs):
        operands = [x, weight(f"w_{y}", features, channels, taps, taps), weight(f"b_{y}", features)]
        nodes.append(helper.make_node("Conv", operands, [y], name=y, pads=[taps // 2] * 4, **attrs))
        return y

    def node(op, inputs, y, **attrs):
        nodes.append(helper.make_node(op, inputs, [y], name=y, **attrs))
        return y

    x = node("MaxPool", [node("Relu", [conv("x", "c0", width, 3, 3)], "r0")], "p0", kernel_shape=[2, 2], strides=[2, 2])
    y = node("Relu", [conv(x, "c1", width, width, 1)], "r1")
    y = node("Relu", [conv(y, "c2", width, width, 3)], "r2")
    x = node("Relu", [node("Add", [conv(y, "c3", width, width, 1), x], "a3")], "r3")
    weights += [numpy_helper.from_array(np.float32(n), name) for n, name in ((0, "low"), (6, "high"))]
    x = node("Clip", [conv(x, "c4", width, 1, 3, group=width), "low", "high"], "r4")
    x = node("Flatten", [node("GlobalAveragePool", [x], "g")], "f")
    node("Gemm", [x, weight("wf", width, 10), weight("bf", 10)], "y")
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in (("x", ["n", 3, SIZE, SIZE]), ("y", ["n", 10]))]
    graph = helper.make_graph(nodes, "cnn", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class Reader(CalibrationDataReader):
    """Four samples."""

    def __init__(self):
        rng = np.random.default_rng(1)
        self._left = [{"x": rng.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)} for _ in range(4)]

    def get_next(self):
        return self._left.pop() if self._left else None


X = np.random.default_rng(2).standard_normal((3, 3, SIZE, SIZE)).astype(np.float32)


def runtime(model, x):
    """What ONNX Runtime gives without optimizations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def run(plan, x):
    with miniinfer_cli.load(plan, "cpu") as engine:
        return engine.run({"x": x})["y"], len(engine.graph)


FORMS = {
    "u8s8, by channel": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True},
    "s8s8": {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8},
    "16 bits": {
        "activation_type": QuantType.QInt16,
        "weight_type": QuantType.QInt8,
        "extra_options": {"UseQDQContribOps": False},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_static_files_of_onnxruntime(tmp_path, form):
    logging.getLogger().setLevel(logging.ERROR)
    source = cnn()
    if form == "16 bits":
        source.opset_import[0].version = 21
    onnx.save(source, tmp_path / "f.onnx")
    quantize_static(tmp_path / "f.onnx", tmp_path / "q.onnx", Reader(), quant_format=QuantFormat.QDQ, **FORMS[form])
    model = onnx.load(tmp_path / "q.onnx")
    want = runtime(model, X)
    plan = miniinfer_cli.build(model)
    got, steps = run(plan, X)
    exact, exact_steps = run(miniinfer_cli.build(source), X)
    assert np.linalg.norm(got - want) <= 0.01 * np.linalg.norm(want)
    assert np.linalg.norm(got - exact) <= 0.15 * np.linalg.norm(exact)
    if form != "16 bits":
        assert steps <= 1.3 * exact_steps, (steps, exact_steps)


def test_a_linear_layer_in_the_style_of_pytorch():
    """Weights [out, in] are dequantized by row and transposed; activations have a scale and a zero point for each tensor."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.integers(-127, 128, (6, 8)).astype(np.int8),
        "ws": rng.uniform(0.005, 0.02, 6).astype(np.float32),
        "wz": np.zeros(6, np.int8),
        "b": rng.standard_normal(6).astype(np.float32),
        "s": np.float32(0.03), "z": np.int8(-7), "t": np.float32(0.05), "u": np.int8(11),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["xd", "wt"], ["m"], name="linear"),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Gelu", ["a"], ["e"]),
        helper.make_node("QuantizeLinear", ["e", "t", "u"], ["eq"]),
        helper.make_node("DequantizeLinear", ["eq", "t", "u"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k])] for n, k in (("x", 8), ("y", 6))]
    graph = helper.make_graph(nodes, "linear", *ends, [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    x = rng.standard_normal((5, 8)).astype(np.float32)
    got, steps = run(miniinfer_cli.build(model), x)
    assert np.abs(got - runtime(model, x)).max() <= 0.05 * 1.001
    assert steps == 2  # x is quantized, and all else is one region
