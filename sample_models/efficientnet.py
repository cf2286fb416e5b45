"""EfficientNet-B0 (Tan, Le 2019): SiLU as Sigmoid and Mul, squeeze and excitation; 5 288 548 parameters."""

from sample_models.graph_writer import GraphWriter
from sample_models.layers import batch_norm, conv, gemm, silu
from sample_models.request import Request

OPSET = 17
# Expansion, kernel, stride of the first, channels, blocks.
STAGES = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
)  # fmt: skip
SMALL_STAGES = ((1, 3, 1, 8, 1), (6, 3, 2, 8, 2), (6, 5, 2, 12, 2))


def write(graph: GraphWriter, request: Request) -> None:
    """image [batch, 3, 224, 224] to logits [batch, 1000]; ``small``: five blocks, 32x32, 10 classes."""
    stages, channels, last, size, classes = (STAGES, 32, 1280, 224, 1000)
    if request.small:
        stages, channels, last, size, classes = (SMALL_STAGES, 8, 32, 32, 10)
    x = graph.input("image", graph.dtype, [request.batch, 3, size, size])
    with graph.scope("features.0"):
        x = _conv_norm_silu(graph, x, channels=3, out=channels, kernel=3, stride=2, part="", variance=2.0)
    for level, (expansion, kernel, stride, out, depth) in enumerate(stages, 1):
        for block in range(depth):
            with graph.scope(f"features.{level}.{block}"):
                x = _block(graph, x, channels, out, expansion, kernel, stride if block == 0 else 1)
            channels = out
    with graph.scope(f"features.{len(stages) + 1}"):
        x = _conv_norm_silu(graph, x, channels=channels, out=last, kernel=1, part="", variance=2.0)
    with graph.scope("avgpool"):
        x = graph.node("GlobalAveragePool", [x])
    x = graph.node("Flatten", [x], axis=1)
    graph.output("logits", gemm(graph, "classifier.1", x, last, classes), graph.dtype, [request.batch, classes])


def _block(graph: GraphWriter, x: str, channels: int, out: int, expansion: int, kernel: int, stride: int) -> str:
    """Expansion, depthwise convolution, squeeze and excitation, projection, and the sum where shapes allow."""
    hidden, y, part = channels * expansion, x, 0
    if expansion != 1:
        y, part = _conv_norm_silu(graph, x, channels=channels, out=hidden, kernel=1, part="block.0.", variance=2.0), 1
    y = _conv_norm_silu(
        graph, y, channels=hidden, out=hidden, kernel=kernel, stride=stride, group=hidden, part=f"block.{part}.", variance=0.7
    )
    with graph.scope(f"block.{part + 1}"):
        squeezed = max(1, channels // 4)
        weights = conv(graph, "fc1", graph.node("GlobalAveragePool", [y]), hidden, squeezed, 1, bias=True)
        weights = conv(graph, "fc2", silu(graph, "activation", weights), squeezed, hidden, 1, bias=True)
        y = graph.node("Mul", [graph.node("Sigmoid", [weights]), y])
    summed = stride == 1 and channels == out
    # Gates of about a half leave about a third of the variance; a smaller scale keeps the sums from growing.
    y = conv(graph, f"block.{part + 2}.0", y, hidden, out, 1)
    y = batch_norm(graph, f"block.{part + 2}.1", y, out, variance=0.35, scale=0.5 if summed else 1.0)
    return graph.node("Add", [y, x]) if summed else y


def _conv_norm_silu(
    graph: GraphWriter,
    x: str,
    *,
    channels: int,
    out: int,
    kernel: int,
    part: str,
    variance: float,
    stride: int = 1,
    group: int = 1,
) -> str:
    y = conv(graph, f"{part}0", x, channels, out, kernel, stride=stride, group=group)
    return silu(graph, f"{part}2", batch_norm(graph, f"{part}1", y, out, variance=variance))
