"""What operations mean: one file per family, each with shape rules and numpy references. Importing this registers all."""

from miniinfer_cli.ops import (
    arg_reduction,
    attention,
    control_flow,
    conv_transpose,
    convolution,
    determinant,
    filling,
    gather,
    global_pooling,
    layer_normalization,
    local_normalization,
    matmul,
    movement,
    normalization,
    padding,
    pooling,
    rearrange,
    reduction,
    resize,
    scan_ops,
    scatter,
    selection,
    shape,
    slicing,
    softmax,
    topk,
)
from miniinfer_cli.ops.inference import UNKNOWN, annotate, infer_graph, infer_node, infer_outputs
from miniinfer_cli.ops.insert import insert, insert_many
from miniinfer_cli.ops.registry import ONNX, OURS, OpDef, define, defined, find, lookup

__all__ = [
    "ONNX", "OURS", "UNKNOWN", "OpDef", "annotate", "define", "defined", "find", "infer_graph", "infer_node",
    "infer_outputs", "insert", "insert_many", "lookup", "softmax",
]  # fmt: skip
