"""Small models for sessions."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

W = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def value(name: str, kind: int, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, initializers=(), **more) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in initializers])
    options = {"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8, "model_version": 1, **more}
    return helper.make_model(graph, **options).SerializeToString()


def product(w: np.ndarray = W, **more) -> bytes:
    """y = x @ w, z = the largest of each row's places."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("ArgMax", ["y"], ["z"], axis=1)]
    outputs = [value("y", TensorProto.FLOAT, None), value("z", TensorProto.INT64, None)]
    return model_of(nodes, [value("x", TensorProto.FLOAT, ["n", 4])], outputs, [("w", w)], **more)


def with_default() -> bytes:
    """y = x + c, where c is an input with an initializer."""
    inputs = [value("x", TensorProto.FLOAT, [2]), value("c", TensorProto.FLOAT, [2])]
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    return model_of(nodes, inputs, [value("y", TensorProto.FLOAT, [2])], [("c", np.array([10, 20], np.float32))])


def of_many_kinds() -> bytes:
    """Texts, a sequence, bf16, sizes of all kinds, and all that a model may say of itself."""
    inputs = [
        value("x", TensorProto.FLOAT, ["n", None, 4]),
        value("s", TensorProto.STRING, None),
        value("b", TensorProto.BFLOAT16, [2]),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("SequenceConstruct", ["x", "x"], ["q"]),
        helper.make_node("Identity", ["b"], ["c"]),
    ]
    outputs = [
        value("y", TensorProto.FLOAT, None),
        value("t", TensorProto.STRING, None),
        helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, None),
        value("c", TensorProto.BFLOAT16, [2]),
    ]
    model = onnx.ModelProto.FromString(
        model_of(nodes, inputs, outputs, [("w", W)], producer_name="maker", domain="a.b", doc_string="said", model_version=7)
    )
    model.graph.doc_string = "of the graph"
    helper.set_model_props(model, {"character": "a\nb\nç", "empty": ""})
    return model.SerializeToString()


def with_data_beside(folder: Path, w: np.ndarray = W) -> Path:
    """``product`` with its weights in a file beside it."""
    path = folder / "model.onnx"
    model = onnx.ModelProto.FromString(product(w))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path
