"""What an operation becomes when its tensors are channels-last: the same operation with axes and operands renumbered.

A rule looks at a node and says what would have to change, or None when the operation cannot be had channels-last.
Nothing is changed here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, DType, Node, Value
from miniinfer_cli.ops import ONNX, OURS
from miniinfer_cli.ops.layout import channels_last
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.operands import constant_handle, dims, known_ints


@dataclass(frozen=True, slots=True)
class Relayout:
    """The channels-last form of a node.

    ``data``: numbers of the inputs that come channels-last; ``outputs``: whether the outputs do. ``operands``: new
    contents of other inputs, by number. ``gathers``: inputs to take elements of, in the order given. ``broadcasts``:
    whether the inputs that are not data broadcast by numpy's rules and have to follow the axes.
    """

    op: str
    data: tuple[int, ...] = (0,)
    outputs: bool = True
    domain: str = ONNX
    attrs: dict[str, Any] = field(default_factory=dict)
    operands: dict[int, Array] = field(default_factory=dict)
    gathers: dict[int, list[int]] = field(default_factory=dict)
    broadcasts: bool = False


def relayout(node: Node) -> Relayout | None:
    """The channels-last form of ``node``; None when it has none."""
    rank = len(dims(node.outputs[0]) or ()) if is_pointwise(node) else len(dims(_operand(node, 0)) or ())
    if rank < 3 or any(dims(v) is None for v in node.outputs):
        return None
    rule = _RULES.get(node.op) if node.domain == ONNX else None
    if rule is not None:
        return rule(node, rank)
    return _pointwise(node, rank) if is_pointwise(node) else None


def moved_axis(axis: int, rank: int) -> int:
    """Where axis ``axis`` of a channels-first tensor is when the channels are last."""
    return channels_last(rank).index(axis % rank)


def _operand(node: Node, number: int) -> Value | None:
    return node.inputs[number] if number < len(node.inputs) else None


def _with_axis(default: int) -> Callable[[Node, int], Relayout]:
    def rule(node: Node, rank: int) -> Relayout:
        axis = moved_axis(node.attrs.get("axis", default), rank)
        return Relayout(node.op, attrs={**node.attrs, "axis": axis})

    return rule


def _pointwise(node: Node, rank: int) -> Relayout | None:
    shape = dims(node.outputs[0])
    if len(node.outputs) != 1 or all(dims(v) != shape for v in node.inputs):
        return None
    if any(v is not None and (dims(v) is None or len(dims(v) or ()) > rank) for v in node.inputs):
        return None
    data = tuple(i for i, v in enumerate(node.inputs) if v is not None and len(dims(v) or ()) == rank and not _is_constant(v))
    return Relayout(node.op, data, domain=node.domain, attrs=dict(node.attrs), broadcasts=True)


def _concat(node: Node, rank: int) -> Relayout:
    attrs = {**node.attrs, "axis": moved_axis(node.attrs["axis"], rank)}
    return Relayout("Concat", tuple(range(len(node.inputs))), attrs=attrs)


def _pool(node: Node, rank: int) -> Relayout | None:
    if len(node.outputs) > 1:  # the indices of a MaxPool count channels-first
        return None
    attrs = {k: v for k, v in node.attrs.items() if k != "storage_order"}
    return Relayout(f"{node.op}NHWC", domain=OURS, attrs=attrs)


def _global_max_pool(node: Node, rank: int) -> Relayout:
    return Relayout("ReduceMax", operands={1: np.arange(1, rank - 1)})


def _reduce(node: Node, rank: int) -> Relayout | None:
    axes = known_ints(_operand(node, 1)) if _operand(node, 1) is not None else ()
    if axes is None:
        return None
    if axes == ():
        reduced = list(range(rank)) if not node.attrs.get("noop_with_empty_axes", 0) else []
    else:
        reduced = [a % rank for a in axes]
    outputs = bool(node.attrs.get("keepdims", 1))
    if not outputs and not _keeps_order(reduced, rank):
        return None
    operands = {1: np.array([moved_axis(a, rank) for a in axes])} if axes else {}
    return Relayout(node.op, outputs=outputs, attrs=dict(node.attrs), operands=operands)


def _arg_reduce(node: Node, rank: int) -> Relayout | None:
    axis = node.attrs.get("axis", 0) % rank
    outputs = bool(node.attrs.get("keepdims", 1))
    if not outputs and not _keeps_order([axis], rank):
        return None
    return Relayout(node.op, outputs=outputs, attrs={**node.attrs, "axis": moved_axis(axis, rank)})


def _keeps_order(reduced: Sequence[int], rank: int) -> bool:
    """True when the axes that are left have the same order in both layouts."""
    left = [moved_axis(a, rank) for a in range(rank) if a not in reduced]
    return left == sorted(left)


def _slice(node: Node, rank: int) -> Relayout | None:
    axes = _operand(node, 3)
    starts = dims(node.inputs[1])
    known = known_ints(axes) if axes is not None else tuple(range(starts[0])) if starts and isinstance(starts[0], int) else None
    if known is None:
        return None
    return Relayout("Slice", operands={3: np.array([moved_axis(a, rank) for a in known])})


def _pad(node: Node, rank: int) -> Relayout | None:
    if _operand(node, 3) is None:
        order = channels_last(rank)
        return Relayout("Pad", attrs=dict(node.attrs), gathers={1: [*order, *(rank + a for a in order)]})
    axes = known_ints(node.inputs[3])
    if axes is None:
        return None
    return Relayout("Pad", attrs=dict(node.attrs), operands={3: np.array([moved_axis(a, rank) for a in axes])})


def _resize(node: Node, rank: int) -> Relayout | None:
    axes = node.attrs.get("axes")
    if axes:
        return Relayout("Resize", attrs={**node.attrs, "axes": [moved_axis(a, rank) for a in axes]})
    order = channels_last(rank)
    gathers = {}
    for number, indices in ((1, [*order, *(rank + a for a in order)]), (2, order), (3, order)):
        shape = dims(_operand(node, number))
        if shape and shape != (0,):
            gathers[number] = indices
    return Relayout("Resize", attrs=dict(node.attrs), gathers=gathers)


def _tile(node: Node, rank: int) -> Relayout:
    return Relayout("Tile", gathers={1: channels_last(rank)})


def _quantize(node: Node, rank: int) -> Relayout | None:
    scale = dims(node.inputs[1])
    if scale is None or len(scale) > 1 or node.attrs.get("block_size", 0):
        return None
    return Relayout(node.op, attrs={**node.attrs, "axis": moved_axis(node.attrs.get("axis", 1), rank)})


def _group_normalization(node: Node, rank: int) -> Relayout | None:
    """InstanceNormalization has a group for each channel. Statistics in another type than f32 stay as they are."""
    channels = (dims(node.inputs[0]) or ())[1]
    groups = node.attrs.get("num_groups", channels)
    f32_statistics = node.attrs.get("stash_type", 1) == 1 and node.outputs[0].tensor.dtype is not DType.F64
    if not isinstance(groups, int) or not f32_statistics:
        return None
    attrs = {"num_groups": groups, "epsilon": node.attrs.get("epsilon", 1e-5)}
    return Relayout("GroupNormalizationNHWC", domain=OURS, attrs=attrs)


def _cumulative(node: Node, rank: int) -> Relayout | None:
    axis = known_ints(node.inputs[1])
    if axis is None:
        return None
    return Relayout(node.op, attrs=dict(node.attrs), operands={1: np.array(moved_axis(axis[0], rank))})


def _never(node: Node, rank: int) -> None:
    return None


def _is_constant(value: Value) -> bool:
    return constant_handle(value) is not None


_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
_RULES: dict[str, Callable[[Node, int], Relayout | None]] = {
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "AveragePool": _pool,
    "BitCast": _never,  # may change the last dimension
    "Concat": _concat,
    "CumSum": _cumulative,
    "DequantizeLinear": _quantize,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _global_max_pool,
    "GroupNormalization": _group_normalization,
    "Hardmax": _with_axis(-1),
    "InstanceNormalization": _group_normalization,
    "LogSoftmax": _with_axis(-1),
    "MaxPool": _pool,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _with_axis(-1),
    "Split": _with_axis(0),
    "Tile": _tile,
} | dict.fromkeys(_REDUCTIONS, _reduce)
