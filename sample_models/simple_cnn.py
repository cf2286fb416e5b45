"""SimpleCNN: two convolutions with pools and two linear layers on 32x32 colour images; 545 098 parameters."""

from sample_models.graph_writer import GraphWriter
from sample_models.layers import conv, gemm
from sample_models.request import Request

OPSET = 13


def write(graph: GraphWriter, request: Request) -> None:
    """image [batch, 3, 32, 32] to logits [batch, 10]; ``small`` has a quarter of the channels."""
    first, second, hidden = (8, 16, 32) if request.small else (32, 64, 128)
    x = graph.input("image", graph.dtype, [request.batch, 3, 32, 32])
    for name, channels, out in (("conv1", 3, first), ("conv2", first, second)):
        x = graph.node("Relu", [conv(graph, name, x, channels, out, 3, bias=True)])
        x = graph.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = graph.node("Flatten", [x], axis=1)
    x = graph.node("Relu", [gemm(graph, "fc1", x, second * 64, hidden)])
    graph.output("logits", gemm(graph, "fc2", x, hidden, 10), graph.dtype, [request.batch, 10])
