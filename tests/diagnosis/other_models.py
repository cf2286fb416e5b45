"""Models of the kinds of ``models.py``, of other sizes and other operations: a rule that fits those alone shows here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from miniinfer_cli.diagnosis.findings import Kind
from tests.diagnosis.models import Made, inner_outputs, pointwise, products, tiny_net_of_an_image, tiny_steps

_RESIDENT = ("--no-data-transfers",)
_NAMES = {np.dtype(np.float32): "float", np.dtype(np.float16): "float16"}


def written(inputs: str, outputs: str, nodes: str, dtype: Any = np.float32, **weights: Sequence[int]) -> onnx.ModelProto:
    """A model from ONNX's text: ``inputs`` as ``[1,3] x``, in ``dtype`` as ``outputs`` are; ``weights``: their shapes."""
    kind = _NAMES[np.dtype(dtype)]
    given = ", ".join(f"{kind}{one.strip()}" for one in inputs.split(";"))
    taken = ", ".join(f"{kind}[] {name}" for name in outputs.split())
    graph = onnx.parser.parse_graph(f"made ({given}) => ({taken}) {{ {nodes} }}")
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    noise = np.random.default_rng(0)
    for name, shape in weights.items():
        scale = max(float(np.prod(shape[1:])), 1.0) ** -0.5
        graph.initializer.append(numpy_helper.from_array((noise.standard_normal(shape) * scale).astype(dtype), name))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def convolutions(
    count: int, channels: int, size: int, images: int = 1, group: int = 1, dtype: Any = np.float32
) -> onnx.ModelProto:
    """A chain of 3x3 convolutions, with a Relu behind each."""
    nodes, value = "", "x"
    for i in range(count):
        nodes += f"c{i} = Conv<pads=[1,1,1,1]>({value}, w{i}) r{i} = Relu(c{i}) "
        value = f"r{i}"
    shapes = {f"w{i}": (channels, channels, 3, 3) for i in range(count)}
    return written(f"[{images},{channels},{size},{size}] x", value, nodes, dtype, **shapes)


def chained(operation: str, count: int, shape: str, dtype: Any = np.float32, **weights: Sequence[int]) -> onnx.ModelProto:
    """``count`` times the operation, from VALUE, which the one before gave, to OUT; # numbers what is between."""
    nodes, value = "", "x"
    for i in range(count):
        nodes += operation.replace("VALUE", value).replace("#", str(i)).replace("OUT", f"o{i}") + " "
        value = f"o{i}"
    return written(f"{shape} x", value, nodes, dtype, **weights)


def outputs_of_convolutions(count: int, channels: int, size: int, dtype: Any = np.float32) -> onnx.ModelProto:
    """Convolutions whose results are outputs as well, so that the Relu behind each stands by itself."""
    model = convolutions(count, channels, size, dtype=dtype)
    model.graph.output.extend(
        helper.make_tensor_value_info(f"c{i}", model.graph.input[0].type.tensor_type.elem_type, None) for i in range(count)
    )
    return model


OTHERS_ON_CPU = {
    "convolutions": Made(lambda: convolutions(4, 64, 56), Kind.COMPUTE),
    "convolutions of a batch": Made(lambda: convolutions(2, 32, 64, images=4), Kind.COMPUTE),
    "products of a batch": Made(lambda: written("[8,256,256] a; [8,256,512] b", "y", "y = MatMul(a, b)"), Kind.COMPUTE),
    "wide products": Made(lambda: products([256, 2048, 256], 512), Kind.COMPUTE),
    "a Gemm": Made(lambda: written("[512,768] x", "y", "y = Gemm<transB=1>(x, w, b)", w=(1024, 768), b=(1024,)), Kind.COMPUTE),
    "three large sums": Made(lambda: pointwise((2048, 2048), 3), Kind.MEMORY),
    "a row times a large matrix": Made(lambda: products([4096, 4096], 1), Kind.MEMORY),
    "a large Concat": Made(lambda: written("[1024,2048] a; [1024,2048] b", "y", "y = Concat<axis=1>(a, b)"), Kind.MEMORY),
    "a large Transpose": Made(lambda: written("[64,512,256] x", "y", "y = Transpose<perm=[1,0,2]>(x)"), Kind.MEMORY),
    "a large difference": Made(lambda: written("[16,1024,512] a; [16,1024,512] b", "y", "y = Sub(a, b)"), Kind.MEMORY),
    "tiny norms": Made(
        lambda: chained("h# = Gemm(VALUE, w, b) OUT = LayerNormalization(h#, s)", 60, "[1,24]", w=(24, 24), b=(24,), s=(24,)),
        Kind.LAUNCH,
    ),
    "tiny convolutions": Made(
        lambda: chained("h# = Conv(VALUE, w) OUT = Softmax<axis=1>(h#)", 80, "[1,4,4,4]", w=(4, 4, 1, 1)), Kind.LAUNCH
    ),
    "small products, many": Made(lambda: tiny_steps(240), Kind.LAUNCH, advice="batch 8"),
    "distinct rows": Made(lambda: written("[3000,4] x", "u", "u = Unique<axis=0>(x)"), Kind.HOST_STEP),
    "determinants": Made(lambda: written("[400,16,16] x", "d", "d = Det(x)"), Kind.HOST_STEP),
    "unfused convolutions": Made(lambda: outputs_of_convolutions(3, 16, 160), None, advice="without inner outputs"),
    "unfused, wide": Made(lambda: inner_outputs(8192, 64, 4), None, advice="without inner outputs", blocked=True),
    "unfused, by the build": Made(
        lambda: chained("a# = Mul(VALUE, s) b# = Add(a#, s) c# = Max(b#, s) OUT = Sub(c#, s)", 3, "[2048,2048]", s=(2048,)),
        None,
        advice="all passes",
        build=("--opt-level", "1"),
    ),
    "one thread": Made(lambda: products([768] * 5, 768), Kind.COMPUTE, run=("--threads", "1")),
}
OTHERS_ON_GPU = {
    "large convolutions": Made(lambda: convolutions(4, 256, 56, images=64, dtype=np.float16), Kind.COMPUTE, run=_RESIDENT),
    "large products, f32": Made(lambda: products([4096] * 4, 4096), Kind.COMPUTE, run=_RESIDENT),
    "products of a large batch": Made(
        lambda: written("[64,1024,1024] a; [64,1024,1024] b", "y", "y = MatMul(a, b)", np.float16), Kind.COMPUTE, run=_RESIDENT
    ),
    "a large Softmax": Made(lambda: chained("OUT = Softmax(VALUE)", 2, "[16384,4096]", np.float16), Kind.MEMORY, run=_RESIDENT),
    "a large Transpose": Made(
        lambda: written("[512,512,512] x", "y", "y = Transpose<perm=[1,2,0]>(x)"), Kind.MEMORY, run=_RESIDENT
    ),
    "a row times large matrices": Made(lambda: products([8192] * 4, 1, np.float16), Kind.MEMORY),
    "large sums, f32": Made(lambda: pointwise((8192, 8192), 3), Kind.MEMORY, run=_RESIDENT),
    "tiny net, larger image": Made(lambda: tiny_net_of_an_image(4096, np.float16), Kind.TRANSFER, advice="uint8 input"),
    "a small part of a large input": Made(
        lambda: written("[64,1024,1024] x", "y", "y = ReduceMax<axes=[1,2], keepdims=0>(x)"), Kind.TRANSFER, advice="uint8 input"
    ),
    "a large result": Made(lambda: written("[8192,1] a; [1,4096] b", "y", "y = Mul(a, b)"), Kind.TRANSFER),
    "tiny steps, replayed": Made(lambda: tiny_steps(120, np.float16), Kind.LAUNCH),
    "tiny convolutions": Made(
        lambda: chained("h# = Conv(VALUE, w) OUT = Softmax<axis=1>(h#)", 100, "[1,8,8,8]", np.float16, w=(8, 8, 1, 1)),
        Kind.LAUNCH,
        run=("--no-cuda-graph",),
        advice="CUDA graph",
    ),
    "distinct rows": Made(lambda: written("[3000,4] x", "u", "u = Unique<axis=0>(x)"), Kind.HOST_STEP),
    "unfused": Made(
        lambda: inner_outputs(65_536, 256, 3, np.float16), None, advice="without inner outputs", blocked=True, run=_RESIDENT
    ),
}
