"""MatMul and Gemm with bias, residual Add, activation and what else follows elementwise -> region FusedMatMul."""

from miniinfer_cli.ir import Graph
from miniinfer_cli.ops import ONNX
from miniinfer_cli.passes.epilogues import fuse_epilogues

LABEL = "FusedMatMul"
_ANCHORS = {(ONNX, "MatMul"), (ONNX, "Gemm")}


def fuse_matmul(graph: Graph) -> int:
    """Gives the number of regions made."""
    return fuse_epilogues(graph, LABEL, _ANCHORS)
