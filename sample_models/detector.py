"""A one-stage detector: residual backbone, top-down path by Resize and Concat, heads on three levels, NonMaxSuppression."""

import numpy as np
from onnx import TensorProto

from sample_models.graph_writer import GraphWriter
from sample_models.layers import batch_norm, conv, silu
from sample_models.request import Request

OPSET = 17
STRIDES = (8, 16, 32)
ANCHORS = 3
# The most boxes per image and class, and the overlap above which the weaker box goes.
MOST, OVERLAP = 10, 0.5


def write(graph: GraphWriter, request: Request) -> None:
    """image [batch, 3, 320, 320] to the boxes kept: boxes [n, 4] (y1, x1, y2, x2 in pixels), scores, classes, images [n].

    ``small``: an eighth of the channels, 64x64, 3 classes.
    """
    width, size, classes, least = (8, 64, 3, 0.72) if request.small else (64, 320, 20, 0.9)
    image = graph.input("image", graph.dtype, [request.batch, 3, size, size])
    with graph.scope("backbone"):
        levels = _backbone(graph, image, width)
    with graph.scope("neck"):
        levels = _neck(graph, levels, [2 * width, 4 * width, 8 * width], 2 * width)
    batch = graph.size(image, 0, request.batch)
    boxes, scores = [], []
    for stride, level in zip(STRIDES, levels, strict=True):
        with graph.scope(f"head.{stride}"):
            cells = size // stride
            y = _conv_norm_silu(graph, "stem", level, 2 * width, 2 * width, 3)
            # Scores well below 1: there, neighbouring floats are so close that boxes would tie.
            score = conv(graph, "score", y, 2 * width, ANCHORS * classes, 1, bias=True, gain=0.3)
            scores.append(_flat(graph, score, batch, classes, cells))
            boxes.append(_flat(graph, conv(graph, "box", y, 2 * width, ANCHORS * 4, 1, bias=True), batch, 4, cells))
    boxes = _decode(graph, graph.node("Concat", boxes, axis=1), _anchors(size))
    scores = graph.node("Transpose", [graph.node("Sigmoid", [graph.node("Concat", scores, axis=1)])], perm=[0, 2, 1])
    _keep(graph, boxes, scores, least)


def _backbone(graph: GraphWriter, x: str, width: int) -> list[str]:
    """The maps of stride 8, 16 and 32, of 2, 4 and 8 times ``width`` channels."""
    x = graph.node("Relu", [batch_norm(graph, "bn1", conv(graph, "conv1", x, 3, width, 7, stride=2), width, variance=2.0)])
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    levels, channels = [], width
    for level in range(4):
        out = width << level
        for block in range(2):
            with graph.scope(f"layer{level + 1}.{block}"):
                x = _residual(graph, x, channels, out, stride=2 if level and not block else 1)
            channels = out
        levels.append(x)
    return levels[1:]


def _residual(graph: GraphWriter, x: str, channels: int, out: int, stride: int) -> str:
    y = conv(graph, "conv1", x, channels, out, 3, stride=stride)
    y = graph.node("Relu", [batch_norm(graph, "bn1", y, out, variance=2.0)])
    y = batch_norm(graph, "bn2", conv(graph, "conv2", y, out, out, 3), out, scale=0.5)
    if stride != 1 or channels != out:
        x = batch_norm(graph, "downsample.1", conv(graph, "downsample.0", x, channels, out, 1, stride=stride), out, variance=2.0)
    return graph.node("Relu", [graph.node("Add", [y, x])])


def _neck(graph: GraphWriter, levels: list[str], channels: list[int], out: int) -> list[str]:
    """Each map joined with the next coarser one: by fixed scales once, by the finer map's size once."""
    top = _conv_norm_silu(graph, "lateral.2", levels[2], channels[2], out, 1)
    merged = [top]
    for index in (1, 0):
        lateral = _conv_norm_silu(graph, f"lateral.{index}", levels[index], channels[index], out, 1)
        if index:
            scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
            grown = graph.node("Resize", [merged[0], None, scales], **_NEAREST)
        else:
            grown = graph.node("Resize", [merged[0], None, None, _size_like(graph, merged[0], lateral)], **_NEAREST)
        joined = graph.node("Concat", [grown, lateral], axis=1)
        merged.insert(0, _conv_norm_silu(graph, f"merge.{index}", joined, 2 * out, out, 3))
    return merged


_NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


def _size_like(graph: GraphWriter, x: str, other: str) -> str:
    """The batch and channels of ``x`` with the height and width of ``other``."""
    first = graph.node("Slice", [graph.node("Shape", [x]), graph.constant([0]), graph.constant([2]), graph.constant([0])])
    last = graph.node("Slice", [graph.node("Shape", [other]), graph.constant([2]), graph.constant([4]), graph.constant([0])])
    return graph.node("Concat", [first, last], axis=0)


def _conv_norm_silu(graph: GraphWriter, name: str, x: str, channels: int, out: int, kernel: int) -> str:
    with graph.scope(name):
        return silu(graph, "act", batch_norm(graph, "bn", conv(graph, "conv", x, channels, out, kernel), out, variance=0.7))


def _flat(graph: GraphWriter, x: str, batch: int | str, size: int, cells: int) -> str:
    """[batch, anchors * size, cells, cells] to [batch, cells * cells * anchors, size]."""
    x = graph.reshape(x, [batch, ANCHORS, size, cells, cells])
    return graph.reshape(graph.node("Transpose", [x], perm=[0, 3, 4, 1, 2]), [batch, -1, size])


def _anchors(size: int) -> np.ndarray:
    """Centre y, centre x, height, width of every anchor [boxes, 4], level by level, in pixels."""
    parts = []
    for stride in STRIDES:
        centres = (np.arange(size // stride, dtype=np.float32) + 0.5) * stride
        y, x, scale = np.meshgrid(centres, centres, np.float32([1.5, 2.5, 4.0]) * stride, indexing="ij")
        parts.append(np.stack([y, x, scale, scale], axis=-1).reshape(-1, 4))
    return np.concatenate(parts)


def _decode(graph: GraphWriter, offsets: str, anchors: np.ndarray) -> str:
    """Corners (y1, x1, y2, x2) of offsets [batch, boxes, 4] in units of the anchors, in f32."""
    offsets = graph.node("Cast", [offsets], to=TensorProto.FLOAT)
    shift, stretch = graph.nodes("Split", [offsets, graph.constant([2, 2])], outputs=2, axis=-1)
    centres, sizes = graph.constant(anchors[None, :, :2]), graph.constant(anchors[None, :, 2:])
    tenth, half = graph.constant(np.array(0.1, np.float32)), graph.constant(np.array(0.5, np.float32))
    centre = graph.node("Add", [graph.node("Mul", [graph.node("Mul", [shift, tenth]), sizes]), centres])
    extent = graph.node("Mul", [graph.node("Exp", [graph.node("Mul", [stretch, tenth])]), sizes])
    reach = graph.node("Mul", [extent, half])
    return graph.node("Concat", [graph.node("Sub", [centre, reach]), graph.node("Add", [centre, reach])], axis=-1)


def _keep(graph: GraphWriter, boxes: str, scores: str, least: float) -> None:
    """Drop boxes that score less than ``least`` or overlap a better one of their class; what is left goes to the outputs."""
    scores = graph.node("Cast", [scores], to=TensorProto.FLOAT)
    limits = [
        graph.constant([MOST]),
        graph.constant(np.array([OVERLAP], np.float32)),
        graph.constant(np.array([least], np.float32)),
    ]
    kept = graph.node("NonMaxSuppression", [boxes, scores, *limits])
    images, classes = (graph.node("Gather", [kept, graph.constant(column)], axis=1) for column in (0, 1))
    places = graph.node("Gather", [kept, graph.constant([0, 2])], axis=1)
    graph.output("boxes", graph.node("GatherND", [boxes, places]), "float32", ["kept", 4])
    graph.output("scores", graph.node("GatherND", [scores, kept]), "float32", ["kept"])
    graph.output("classes", classes, "int64", ["kept"])
    graph.output("images", images, "int64", ["kept"])
