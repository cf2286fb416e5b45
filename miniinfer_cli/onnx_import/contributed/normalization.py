"""Normalizations that ONNX Runtime makes of several nodes, as the operations of ai.onnx that they stand for."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.convolution import channels_first, channels_last
from miniinfer_cli.onnx_import.registry import FLOAT, INT, contributed
from miniinfer_cli.ops.type_codes import code_of_dtype

_EPSILON = 1e-12


@contributed("SkipLayerNormalization", {"epsilon": FLOAT}, (3, 5), (1, 4))
def skip_layer_normalization(call: Call) -> Sequence[Value]:
    """input + skip (+ bias), which is the fourth output, and its LayerNormalization by gamma and beta."""
    total = _sum(call, call.required(0), call.input(1), call.input(4))
    return _with_sum(call, total, "LayerNormalization", call.required(2), call.input(3))


@contributed("SkipSimplifiedLayerNormalization", {"epsilon": FLOAT}, (3, 4), (1, 4))
def skip_simplified_layer_normalization(call: Call) -> Sequence[Value]:
    """input + skip (+ bias), which is the fourth output, and its RMSNormalization by gamma."""
    total = _sum(call, call.required(0), call.input(1), call.input(3))
    return _with_sum(call, total, "RMSNormalization", call.required(2))


@contributed("EmbedLayerNormalization", {"epsilon": FLOAT, "mask_index_type": INT}, (7, 9), (1, 3))
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
    wanted = call.outputs
    y = _normalized(call, total, "LayerNormalization", call.required(5), call.required(6))
    return (y, _ones(call, ids, mask) if wanted[1:2] and wanted[1] else y, total)[: len(wanted)]


_GROUPS = {"activation": INT, "channels_last": INT, "epsilon": FLOAT, "groups": INT}


@contributed("GroupNorm", _GROUPS, (3, 3), required=("activation", "groups"))
def group_norm(call: Call) -> Sequence[Value]:
    """GroupNormalization, between Transposes where the channels are last, through SiLU where asked."""
    return (_group_norm(call, call.required(0)),)


@contributed("SkipGroupNorm", _GROUPS, (4, 5), (1, 2), required=("activation", "groups"))
def skip_group_norm(call: Call) -> Sequence[Value]:
    """GroupNorm of X + skip + bias, a sum that is the second output; a skip of [N,C] is one for all pixels."""
    x, skip, wanted = call.required(0), call.required(3), len(call.outputs)
    is_last = call.attrs.get("channels_last", 1)
    pixels = [] if call.rank(skip) != 2 else list(range(1, call.rank(x) - 1)) if is_last else list(range(2, call.rank(x)))
    parts = [call.emit("Unsqueeze", skip, call.integers(pixels, "axes")) if pixels else skip]
    if (bias := call.input(4)) is not None:
        rest = call.rank(x) - 2
        parts.append(bias if is_last or not rest else call.emit("Unsqueeze", bias, call.integers(range(1, rest + 1), "axes")))
    total = _sum(call, x, *parts)
    return (_group_norm(call, total), total)[:wanted]


def _group_norm(call: Call, x: Value) -> Value:
    """The first output. Gamma and beta may be f32 where ``x`` is f16."""
    if (activation := call.attrs.get("activation", 0)) not in (0, 1):
        raise ModelError(f"{call.op} activation is {activation}, expected 0 (none) or 1 (SiLU)")
    is_last = call.attrs.get("channels_last", 1)
    affine = [call.cast(call.required(i), call.dtype(x)) for i in (1, 2)]
    attrs = {"epsilon": call.attrs.get("epsilon", 1e-5), "num_groups": call.attrs["groups"]}
    y = call.emit("GroupNormalization", channels_first(call, x) if is_last else x, *affine, **attrs)
    if activation:
        y = call.emit("Swish", y)
    return channels_last(call, y, last=True) if is_last else call.first("Identity", y)


def _sum(call: Call, total: Value, *others: Value | None) -> Value:
    """The sum of what is there."""
    for value in others:
        total = total if value is None else call.emit("Add", total, value)
    return total


def _with_sum(call: Call, total: Value, op: str, *affine: Value | None) -> Sequence[Value]:
    """The norm, and the sum where it is an output. Raises ModelError for statistics, which inference has no use for."""
    wanted = call.outputs
    if any(wanted[1:3]):
        raise ModelError(f"{call.op}: mean and inverse deviation are outputs of training", hint="export the model for inference")
    y = _normalized(call, total, op, *affine)
    return (y, y, y, total)[: len(wanted)]


def _normalized(call: Call, x: Value, op: str, *affine: Value | None) -> Value:
    """The first output."""
    return call.first(op, x, *affine, axis=-1, epsilon=call.attrs.get("epsilon", _EPSILON))


def _ones(call: Call, ids: Value, mask: Value | None) -> Value:
    """How many elements of each row of the mask are 1, in i32; zeros where there is none."""
    if mask is None:
        rows = call.emit("Shape", ids, start=0, end=1)
        return call.emit("ConstantOfShape", rows, value=np.zeros(1, np.int32))
    ones = call.emit("Equal", mask, call.constant(np.array(1, np.int32), "one"))
    return call.emit("ReduceSum", call.emit("Cast", ones, to=code_of_dtype(DType.I32)), call.integers([1], "axes"), keepdims=0)
