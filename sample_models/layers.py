"""The layers that several families share, each as PyTorch's exporters write it; weights scaled to keep variance."""

import math

from sample_models.graph_writer import GraphWriter


def conv(
    graph: GraphWriter,
    name: str,
    x: str,
    channels: int,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    group: int = 1,
    bias: bool = False,
    gain: float = 1.0,
) -> str:
    """Conv [n, channels, h, w] to [n, out, h', w'], padded to keep the size at stride 1; weights by He's rule times ``gain``."""
    with graph.scope(name):
        fan_in = channels // group * kernel * kernel
        inputs = [x, graph.normal("weight", (out, channels // group, kernel, kernel), gain * math.sqrt(2 / fan_in))]
        if bias:
            inputs.append(graph.normal("bias", (out,), 0.02))
        square = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2, "dilations": [1, 1]}
        return graph.node("Conv", inputs, group=group, **square)


def batch_norm(graph: GraphWriter, name: str, x: str, channels: int, *, scale: float = 1.0, variance: float = 1.0) -> str:
    """BatchNormalization kept apart, as exported for training or without folding; ``variance`` is what ``x`` should have."""
    with graph.scope(name):
        statistics = [
            graph.uniform("weight", (channels,), 0.8 * scale, 1.2 * scale),
            graph.normal("bias", (channels,), 0.1),
            graph.normal("running_mean", (channels,), 0.1 * math.sqrt(variance)),
            graph.uniform("running_var", (channels,), 0.8 * variance, 1.2 * variance),
        ]
        return graph.node("BatchNormalization", [x, *statistics], epsilon=1e-5, momentum=0.9)


def gemm(graph: GraphWriter, name: str, x: str, width: int, out: int) -> str:
    """A linear layer on [n, width], as Gemm with the weight as PyTorch keeps it [out, width]."""
    with graph.scope(name):
        weight = graph.normal("weight", (out, width), math.sqrt(1 / width))
        return graph.node("Gemm", [x, weight, graph.normal("bias", (out,), 0.02)], alpha=1.0, beta=1.0, transB=1)


def linear(graph: GraphWriter, name: str, x: str, width: int, out: int, *, gain: float = 1.0) -> str:
    """A linear layer on [..., width], as MatMul with the transposed weight, then Add with the bias first."""
    with graph.scope(name):
        product = graph.node("MatMul", [x, graph.normal("weight", (width, out), gain * math.sqrt(1 / width))])
        return graph.node("Add", [graph.normal("bias", (out,), 0.02), product])


def layer_norm(graph: GraphWriter, name: str, x: str, width: int, epsilon: float) -> str:
    """LayerNormalization over the last axis, as written from opset 17 on."""
    with graph.scope(name):
        return graph.node("LayerNormalization", [x, *_scale_and_shift(graph, width)], axis=-1, epsilon=epsilon)


def decomposed_layer_norm(graph: GraphWriter, name: str, x: str, width: int, epsilon: float) -> str:
    """The same in primitives, as written before opset 17."""
    with graph.scope(name):
        scale, shift = _scale_and_shift(graph, width)
        centred = graph.node("Sub", [x, graph.reduce("ReduceMean", x, [-1])])
        variance = graph.reduce("ReduceMean", graph.node("Pow", [centred, graph.constant(2.0)]), [-1])
        deviation = graph.node("Sqrt", [graph.node("Add", [variance, graph.constant(epsilon)])])
        return graph.node("Add", [graph.node("Mul", [graph.node("Div", [centred, deviation]), scale]), shift])


def erf_gelu(graph: GraphWriter, name: str, x: str) -> str:
    """GELU by erf in primitives, as written before opset 20."""
    with graph.scope(name):
        erf = graph.node("Erf", [graph.node("Div", [x, graph.constant(math.sqrt(2))])])
        product = graph.node("Mul", [x, graph.node("Add", [erf, graph.constant(1.0)])])
        return graph.node("Mul", [product, graph.constant(0.5)])


def tanh_gelu(graph: GraphWriter, name: str, x: str) -> str:
    """GPT-2's GELU: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), written out in that order."""
    with graph.scope(name):
        half = graph.node("Mul", [x, graph.constant(0.5)])
        cube = graph.node("Mul", [graph.node("Pow", [x, graph.constant(3.0)]), graph.constant(0.044715)])
        inner = graph.node("Mul", [graph.node("Add", [x, cube]), graph.constant(math.sqrt(2 / math.pi))])
        return graph.node("Mul", [half, graph.node("Add", [graph.node("Tanh", [inner]), graph.constant(1.0)])])


def silu(graph: GraphWriter, name: str, x: str) -> str:
    """x sigmoid(x), as exporters write SiLU."""
    with graph.scope(name):
        return graph.node("Mul", [x, graph.node("Sigmoid", [x])])


def split_heads(graph: GraphWriter, x: str, sizes: list[int | str], perm: list[int]) -> str:
    """[batch, seq, width] viewed as ``sizes`` (batch, seq, heads, head size), then transposed."""
    return graph.node("Transpose", [graph.reshape(x, sizes)], perm=perm)


def _scale_and_shift(graph: GraphWriter, width: int) -> tuple[str, str]:
    return graph.uniform("weight", (width,), 0.8, 1.2), graph.normal("bias", (width,), 0.05)
