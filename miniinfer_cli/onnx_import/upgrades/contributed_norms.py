"""Normalizations that ONNX Runtime's optimizer makes of several nodes, as the operations of ai.onnx that they stand for."""

from collections.abc import Sequence

import numpy as np
import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.registry import contributed

_FLOAT, _INT = onnx.AttributeProto.FLOAT, onnx.AttributeProto.INT
_EPSILON = 1e-12


@contributed("SkipLayerNormalization", {"epsilon": _FLOAT}, (3, 5), (1, 4))
def skip_layer_normalization(call: Call) -> Sequence[Value]:
    """input + skip (+ bias), which is the fourth output, and its LayerNormalization by gamma and beta."""
    total = _sum(call, *(call.input(i) for i in (0, 1, 4)))
    return _with_sum(call, total, "LayerNormalization", call.required(2), call.input(3))


@contributed("SkipSimplifiedLayerNormalization", {"epsilon": _FLOAT}, (3, 4), (1, 4))
def skip_simplified_layer_normalization(call: Call) -> Sequence[Value]:
    """The same with an RMSNormalization by gamma."""
    total = _sum(call, *(call.input(i) for i in (0, 1, 3)))
    return _with_sum(call, total, "RMSNormalization", call.required(2))


@contributed("EmbedLayerNormalization", {"epsilon": _FLOAT, "mask_index_type": _INT}, (7, 9), (1, 3))
def embed_layer_normalization(call: Call) -> Sequence[Value]:
    """Rows of words, positions and segments, their sum, which is the third output, and its LayerNormalization.

    The second output has for each row of a batch how many of the mask are 1; zeros without a mask.
    """
    ids, segments, mask, places = call.required(0), call.input(1), call.input(7), call.input(8)
    words, positions = call.emit("Gather", call.required(2), ids), call.required(3)
    if places is None:
        start, axis = call.integers([0], "start"), call.integers([0], "axis")
        rows = call.emit("Slice", positions, start, call.emit("Shape", ids, start=1, end=2), axis)
    else:
        rows = call.emit("Gather", positions, places)
    kinds = call.input(4)
    if (segments is None) != (kinds is None):
        raise ModelError(f"{call.op} has segment_ids or segment_embedding without the other")
    total = _sum(call, words, rows, None if segments is None or kinds is None else call.emit("Gather", kinds, segments))
    wanted, call.outputs = call.outputs, call.outputs[:1]
    (y,) = _normalized(call, total, "LayerNormalization", call.required(5), call.required(6))
    return (y, _ones(call, ids, mask) if wanted[1:2] and wanted[1] else y, total)[: len(wanted)]


def _sum(call: Call, first: Value | None, *others: Value | None) -> Value:
    """The sum of what is there."""
    if first is None:
        raise ModelError(f"{call.op} needs input 0")
    total = first
    for value in others:
        total = total if value is None else call.emit("Add", total, value)
    return total


def _with_sum(call: Call, total: Value, op: str, *affine: Value | None) -> Sequence[Value]:
    """The norm, and the sum where it is an output. Raises ModelError for statistics, which inference has no use for."""
    wanted, call.outputs = call.outputs, call.outputs[:1]
    if any(wanted[1:3]):
        raise ModelError(f"{call.op}: mean and inverse deviation are outputs of training", hint="export the model for inference")
    (y,) = _normalized(call, total, op, *affine)
    return (y, y, y, total)[: len(wanted)]


def _normalized(call: Call, x: Value, op: str, *affine: Value | None) -> Sequence[Value]:
    return call.result(op, x, *affine, domain="", axis=-1, epsilon=call.attrs.get("epsilon", _EPSILON))


def _ones(call: Call, ids: Value, mask: Value | None) -> Value:
    """How many elements of each row of the mask are 1, in i32; zeros where there is none."""
    if mask is None:
        rows = call.emit("Shape", ids, start=0, end=1)
        return call.emit("ConstantOfShape", rows, value=np.zeros(1, np.int32))
    ones = call.emit("Equal", mask, call.constant(np.array(1, np.int32), "one"))
    return call.emit("ReduceSum", call.emit("Cast", ones, to=onnx.TensorProto.INT32), call.integers([1], "axes"), keepdims=0)
