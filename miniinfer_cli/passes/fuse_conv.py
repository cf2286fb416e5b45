"""Conv and ConvTranspose with the residual Add, the activation and what else follows elementwise -> region FusedConv."""

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops import ONNX, OURS
from miniinfer_cli.passes.epilogues import fuse_epilogues
from miniinfer_cli.passes.operands import dims

LABEL = "FusedConv"
_ANCHORS = {(ONNX, "Conv"), (ONNX, "ConvTranspose"), (OURS, "ConvNHWC"), (OURS, "ConvTransposeNHWC")}


def fuse_conv(graph: Graph) -> int:
    """Gives the number of regions made."""
    _put_shortcuts_first(graph)
    return fuse_epilogues(graph, LABEL, _ANCHORS)


def _put_shortcuts_first(graph: Graph) -> None:
    """Where two convolutions are added, the one that is a plain matrix product comes last, so that the Add becomes its own.

    A product takes a residual for nothing, with kernels that libraries have ready; for a strided shortcut, cuDNN compiles
    one (60 to 300 ms on an H200, for each shape).
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    for add in graph.nodes:
        if not add.is_op("Add"):
            continue
        producers = {v.producer for v in add.inputs if v is not None and v.producer is not None and len(v.users) == 1}
        convs = sorted((p for p in producers if _is_conv(p)), key=position.__getitem__)
        if len(convs) != 2:
            continue
        first, last = convs
        if _is_product(first) and not _is_product(last) and _can_precede(last, first, position):
            graph.move_before(last, first)


def _is_conv(node: Node) -> bool:
    return (node.domain, node.op) == (OURS, "ConvNHWC")


def _is_product(node: Node) -> bool:
    """True for a kernel of one tap that visits every pixel."""
    weights = None if node.inputs[1] is None else dims(node.inputs[1])
    plain = weights is not None and all(n == 1 for n in weights[1:-1]) and node.attrs.get("group", 1) == 1
    moves = any(s != 1 for s in node.attrs.get("strides", ())) or any(node.attrs.get("pads", ()))
    return plain and not moves


def _can_precede(node: Node, other: Node, position: dict[Node, int]) -> bool:
    producers = (v.producer for v in node.inputs if v is not None)
    return all(p is None or position[p] < position[other] for p in producers)
