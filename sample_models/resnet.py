"""ResNet-50 (He et al. 2015, stride on the 3x3) with BatchNormalization kept apart; 25 557 032 parameters."""

from sample_models.graph_writer import GraphWriter
from sample_models.layers import batch_norm, conv, gemm
from sample_models.request import Request

OPSET = 17
EXPANSION = 4


def write(graph: GraphWriter, request: Request) -> None:
    """image [batch, 3, 224, 224] to logits [batch, 1000]; ``small``: five blocks, 8 wide, 64x64, 10 classes."""
    depths, width, size, classes = ((2, 1, 1, 1), 8, 64, 10) if request.small else ((3, 4, 6, 3), 64, 224, 1000)
    x = graph.input("image", graph.dtype, [request.batch, 3, size, size])
    x = batch_norm(graph, "bn1", conv(graph, "conv1", x, 3, width, 7, stride=2), width, variance=2.0)
    with graph.scope("relu"):
        x = graph.node("Relu", [x])
    with graph.scope("maxpool"):
        x = graph.node("MaxPool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], ceil_mode=0)
    channels = width
    for level, depth in enumerate(depths):
        for block in range(depth):
            with graph.scope(f"layer{level + 1}.{block}"):
                stride = 2 if level and not block else 1
                x = _bottleneck(graph, x, channels, width << level, stride)
            channels = (width << level) * EXPANSION
    with graph.scope("avgpool"):
        x = graph.node("GlobalAveragePool", [x])
    x = graph.node("Flatten", [x], axis=1)
    graph.output("logits", gemm(graph, "fc", x, channels, classes), graph.dtype, [request.batch, classes])


def _bottleneck(graph: GraphWriter, x: str, channels: int, width: int, stride: int) -> str:
    out = width * EXPANSION
    shortcut = x
    y = conv(graph, "conv1", x, channels, width, 1)
    y = graph.node("Relu", [batch_norm(graph, "bn1", y, width, variance=2.0)])
    y = conv(graph, "conv2", y, width, width, 3, stride=stride)
    y = graph.node("Relu", [batch_norm(graph, "bn2", y, width)])
    # A small last scale keeps sixteen residual sums within one order of magnitude.
    y = batch_norm(graph, "bn3", conv(graph, "conv3", y, width, out, 1), out, scale=0.5)
    if stride != 1 or channels != out:
        shortcut = conv(graph, "downsample.0", x, channels, out, 1, stride=stride)
        shortcut = batch_norm(graph, "downsample.1", shortcut, out, variance=2.0)
    return graph.node("Relu", [graph.node("Add", [y, shortcut])])
