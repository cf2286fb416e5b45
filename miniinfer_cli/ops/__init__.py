"""What operations mean: one file per family, each with shape rules and numpy references. Importing this registers all."""

from miniinfer_cli.ops import (
    activation,
    arg_reduction,
    attention,
    binary,
    cast,
    causal_conv,
    control_flow,
    conv_transpose,
    convolution,
    deform_conv,
    determinant,
    einsum,
    filling,
    gather,
    global_pooling,
    layer_normalization,
    linear_attention,
    local_normalization,
    logical,
    matmul,
    movement,
    normalization,
    padding,
    pooling,
    quantize,
    quantized_conv,
    quantized_matmul,
    random,
    rearrange,
    recurrent,
    reduction,
    resize,
    scan_ops,
    scatter,
    selection,
    shape,
    slicing,
    softmax,
    topk,
    unary,
)
from miniinfer_cli.ops.inference import UNKNOWN, annotate, infer_graph, infer_node, infer_outputs
from miniinfer_cli.ops.insert import insert, insert_many
from miniinfer_cli.ops.registry import ONNX, OURS, OpDef, define, defined, find, lookup

__all__ = [
    "ONNX", "OURS", "UNKNOWN", "OpDef", "annotate", "define", "defined", "find", "infer_graph", "infer_node",
    "infer_outputs", "insert", "insert_many", "lookup", "softmax",
]  # fmt: skip
