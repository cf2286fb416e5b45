"""Conv and ConvTranspose with the residual Add, the activation and what else follows elementwise -> region FusedConv."""

from miniinfer_cli.ir import Graph
from miniinfer_cli.ops import ONNX, OURS
from miniinfer_cli.passes.epilogues import fuse_epilogues

LABEL = "FusedConv"
_ANCHORS = {(ONNX, "Conv"), (ONNX, "ConvTranspose"), (OURS, "ConvNHWC"), (OURS, "ConvTransposeNHWC")}


def fuse_conv(graph: Graph) -> int:
    """Gives the number of regions made."""
    return fuse_epilogues(graph, LABEL, _ANCHORS)
