"""MobileNetV2 (Sandler et al. 2018): inverted residuals, depthwise convolutions, ReLU6; 3 504 872 parameters."""

from sample_models.graph_writer import GraphWriter
from sample_models.layers import batch_norm, conv, gemm
from sample_models.request import Request

OPSET = 13
# Expansion, channels, blocks, stride of the first.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
SMALL_STAGES = ((1, 4, 1, 1), (6, 8, 2, 2), (6, 12, 2, 2))


def write(graph: GraphWriter, request: Request) -> None:
    """image [batch, 3, 224, 224] to logits [batch, 1000]; ``small``: five blocks, 32x32, 10 classes."""
    stages, channels, last, size, classes = (STAGES, 32, 1280, 224, 1000)
    if request.small:
        stages, channels, last, size, classes = (SMALL_STAGES, 8, 32, 32, 10)
    x = graph.input("image", graph.dtype, [request.batch, 3, size, size])
    with graph.scope("features.0"):
        x = _relu6(graph, _conv_norm(graph, "", x, 3, channels, 3, stride=2, variance=2.0))
    index = 1
    for expansion, out, depth, stride in stages:
        for block in range(depth):
            with graph.scope(f"features.{index}"):
                x = _inverted_residual(graph, x, channels, out, expansion, stride if block == 0 else 1)
            channels, index = out, index + 1
    with graph.scope(f"features.{index}"):
        x = _relu6(graph, _conv_norm(graph, "", x, channels, last, 1, variance=2.0))
    x = graph.reduce("ReduceMean", x, [2, 3], keepdims=0)
    graph.output("logits", gemm(graph, "classifier.1", x, last, classes), graph.dtype, [request.batch, classes])


def _inverted_residual(graph: GraphWriter, x: str, channels: int, out: int, expansion: int, stride: int) -> str:
    hidden = channels * expansion
    y, part = x, 0
    if expansion != 1:
        y, part = _relu6(graph, _conv_norm(graph, "conv.0.", x, channels, hidden, 1, variance=2.0)), 1
    y = _relu6(graph, _conv_norm(graph, f"conv.{part}.", y, hidden, hidden, 3, stride=stride, group=hidden))
    summed = stride == 1 and channels == out
    y = conv(graph, f"conv.{part + 1}", y, hidden, out, 1)
    y = batch_norm(graph, f"conv.{part + 2}", y, out, scale=0.5 if summed else 1.0)
    return graph.node("Add", [x, y]) if summed else y


def _conv_norm(
    graph: GraphWriter,
    prefix: str,
    x: str,
    channels: int,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    group: int = 1,
    variance: float = 1.0,
) -> str:
    y = conv(graph, f"{prefix}0", x, channels, out, kernel, stride=stride, group=group)
    return batch_norm(graph, f"{prefix}1", y, out, variance=variance)


def _relu6(graph: GraphWriter, x: str) -> str:
    return graph.node("Clip", [x, graph.constant(0.0), graph.constant(6.0)])
