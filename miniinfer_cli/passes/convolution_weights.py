"""Scales and shifts per output channel, taken into the weights and the bias of a Conv or ConvTranspose.

Whatever the element type of the weights, the factors may be wider: the arithmetic is done in the widest type, f32 at least,
and the results are rounded once.
"""

from collections.abc import Callable

import numpy as np

from miniinfer_cli.ir import Array, Constant, Graph, Node, Value, constant
from miniinfer_cli.ir.constants import Filled
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.exact_scaling import can_scale, wide
from miniinfer_cli.passes.operands import constant_handle, dims, sole_user
from miniinfer_cli.passes.recipes import map_constants, reshape_constant


def scaled_weights(
    graph: Graph, source: Node, factors: Constant, function: Callable[..., Array], label: str, shift: Constant | None = None
) -> Value | None:
    """The weights of ``source``, function(weights, factors), as a constant; ``factors`` is a vector, or a single number.

    ``shift``: what is added to the results, as such a vector. None when the weights are not constant, somebody else reads them,
    or the new ones would not be as exact.
    """
    weight = source.inputs[1]
    handle = constant_handle(weight)
    if weight is None or handle is None or sole_user(graph, weight) is not source:
        return None
    over = _over_kernels(source, handle.shape, factors)
    shifts = None if shift is None else _over_kernels(source, handle.shape, shift).array()
    if not can_scale(handle, over.array(), function, _summed_axes(source, handle.shape), shifts):
        return None
    return graph.add_constant(map_constants(wide(function), [handle, over], handle.dtype, handle.shape, label), weight.name)


def bias_handle(source: Node) -> Constant | None:
    """The bias of ``source`` as a constant, zeros where it has none; None when it is not constant."""
    bias = source.inputs[2] if len(source.inputs) > 2 else None
    if bias is not None:
        return constant_handle(bias)
    channels = (dims(source.output) or (None, None))[1]
    return Filled(source.output.tensor.dtype, (channels,), 0) if isinstance(channels, int) else None


def replace_behind(graph: Graph, source: Node, last: Node, inputs: list[Value | None]) -> None:
    """Puts ``source`` with other operands in the place of ``last``, which was computed from it alone."""
    y = insert(graph, source.op, *inputs, before=source, out=last.output.name, **source.attrs)
    graph.replace_node(last, [y])
    if y.producer is not None:
        y.producer.name = source.name  # a profile shows the layer, not what was folded into it
    graph.remove(source)


def _summed_axes(source: Node, shape: tuple[int, ...]) -> list[int]:
    """The axes of the weights that one output channel sums up; in a ConvTranspose of several groups, part of them."""
    if source.op == "Conv":
        return list(range(1, len(shape)))
    return [*([0] if source.attrs.get("group", 1) == 1 else []), *range(2, len(shape))]


def _over_kernels(source: Node, shape: tuple[int, ...], numbers: Constant) -> Constant:
    """The numbers per output channel in the shape in which they broadcast onto the weights."""
    ones = (1,) * (len(shape) - 2)
    if numbers.size == 1 or source.op == "Conv":
        return reshape_constant(numbers, (numbers.size, 1, *ones))
    # ConvTranspose has weights [C, K/group, ...]: all input channels of a group share the group's output channels.
    group = source.attrs.get("group", 1)
    if group == 1:
        return reshape_constant(numbers, (1, numbers.size, *ones))
    return constant(np.repeat(numbers.array().reshape(group, shape[1], *ones), shape[0] // group, axis=0))
