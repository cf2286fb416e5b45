"""Models made to be bound by one thing, with what a diagnosis is to say of each, on a CPU and on a GPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from miniinfer_cli.diagnosis.findings import Kind

_TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}
Sizes = Sequence[int | str]


@dataclass(frozen=True)
class Made:
    """A model, what bounds it (None: that hangs on the machine), flags for its run and its build, and advice that is to be tried.

    ``blocked``: the finding is to tell that fusions are.
    """

    model: Callable[[], onnx.ModelProto]
    kind: Kind | None
    run: Sequence[str] = ()
    advice: str | None = None
    blocked: bool = False
    build: Sequence[str] = ()


def products(sizes: Sequence[int], rows: int | str, dtype: Any = np.float32) -> onnx.ModelProto:
    """x [rows, sizes[0]], multiplied by a matrix for each further size, with a Relu behind each."""
    nodes, weights, value = [], {}, "x"
    for i, (k, n) in enumerate(pairwise(sizes)):
        weights[f"w{i}"] = _noise((k, n), dtype)
        nodes += [helper.make_node("MatMul", [value, f"w{i}"], [f"h{i}"]), helper.make_node("Relu", [f"h{i}"], [f"r{i}"])]
        value = f"r{i}"
    return _model(nodes, {"x": (rows, sizes[0])}, [value], weights, dtype)


def pointwise(shape: Sizes, count: int = 1, dtype: Any = np.float32) -> onnx.ModelProto:
    """``count`` sums of large tensors that are inputs: hardly anything is computed for what is read."""
    nodes, inputs, value = [], {"x": shape}, "x"
    for i in range(count):
        inputs[f"y{i}"] = shape
        nodes.append(helper.make_node("Add", [value, f"y{i}"], [f"s{i}"]))
        value = f"s{i}"
    return _model(nodes, inputs, [value], {}, dtype)


def tiny_steps(count: int, dtype: Any = np.float32) -> onnx.ModelProto:
    """``count`` products of a row with a small matrix, each behind a Softmax, which nothing is fused with."""
    nodes, weights, value = [], {}, "x"
    for i in range(count // 2):
        weights[f"w{i}"] = _noise((16, 16), dtype)
        nodes += [helper.make_node("MatMul", [value, f"w{i}"], [f"h{i}"]), helper.make_node("Softmax", [f"h{i}"], [f"s{i}"])]
        value = f"s{i}"
    return _model(nodes, {"x": ("batch", 16)}, [value], weights, dtype)


def host_step(count: int) -> onnx.ModelProto:
    """Distinct numbers of many, which no device has a kernel for: their number hangs on the data."""
    nodes = [helper.make_node("Unique", ["x"], ["u"], sorted=1), helper.make_node("Relu", ["x"], ["y"])]
    return _model(nodes, {"x": (count,)}, ["y", "u"], {}, np.float32)


def inner_outputs(rows: int, size: int, count: int, dtype: Any = np.float32) -> onnx.ModelProto:
    """Products whose results are outputs as well, so that the work behind each cannot be done with it."""
    model = products([size] * (count + 1), rows, dtype)
    code = _TYPES[np.dtype(dtype)]
    model.graph.output.extend(helper.make_tensor_value_info(f"h{i}", code, None) for i in range(count))
    return model


def tiny_net_of_an_image(size: int, dtype: Any = np.float32) -> onnx.ModelProto:
    """The mean of each channel of a large image, and a small product."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return _model(nodes, {"x": (1, 3, size, size)}, ["y"], {"w": _noise((3, 8), dtype)}, dtype)


def _model(
    nodes: Sequence[Any], inputs: Mapping[str, Sizes], outputs: Sequence[str], weights: Any, dtype: Any
) -> onnx.ModelProto:
    code = _TYPES[np.dtype(dtype)]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, code, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, code, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _noise(shape: tuple[int, int], dtype: Any) -> Any:
    return (np.random.default_rng(0).standard_normal(shape) / shape[0] ** 0.5).astype(dtype)


ON_CPU = {
    "compute": Made(lambda: products([512] * 4, 256), Kind.COMPUTE),
    "memory": Made(lambda: pointwise((1024, 4096)), Kind.MEMORY),
    "launch": Made(lambda: tiny_steps(100), Kind.LAUNCH, advice="batch 8"),
    "host step": Made(lambda: host_step(20_000), Kind.HOST_STEP),
    "unfused": Made(lambda: inner_outputs(32_768, 32, 3), None, advice="without inner outputs", blocked=True),
}
ON_GPU = {
    "large products": Made(lambda: products([8192] * 5, 4096, np.float16), Kind.COMPUTE),
    "large pointwise chains": Made(lambda: pointwise((16384, 4096), 2, np.float16), Kind.MEMORY, run=("--no-data-transfers",)),
    "tiny net": Made(lambda: tiny_net_of_an_image(2048), Kind.TRANSFER, advice="uint8 input"),
    "tiny steps": Made(lambda: tiny_steps(300, np.float16), Kind.LAUNCH, run=("--no-cuda-graph",), advice="CUDA graph"),
}
