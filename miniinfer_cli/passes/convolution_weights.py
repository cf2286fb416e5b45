"""Scales and shifts per output channel, taken into the weights and the bias of a Conv or ConvTranspose.

Whatever the element type of the weights, the factors may be wider: the arithmetic is done in the widest type, f32 at least,
and the results are rounded once.
"""

from collections.abc import Callable

from miniinfer_cli.ir import Array, Constant, DType, Graph, Node, Value, numpy_dtype
from miniinfer_cli.ir.constants import Filled
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.exact_scaling import can_scale, stored_type, wide
from miniinfer_cli.passes.operands import constant_handle, dims, sole_user
from miniinfer_cli.passes.recipes import map_constants, reshape_constant
from miniinfer_cli.passes.sum_rounding import round_keeping_sums


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
    view, numbers, kept = weights_by_outputs(source, handle)
    over = reshape_constant(factors, numbers if factors.size > 1 else (1,) * len(numbers))
    shifts = None if shift is None else reshape_constant(shift, numbers if shift.size > 1 else (1,) * len(numbers)).array()
    summed = [i for i in range(len(view.shape)) if i not in kept]
    if not can_scale(view, over.array(), function, summed, shifts, stored_type(graph, view.dtype)):
        return None
    scaled = map_weights(function, [view, over], view, label, kept)
    return graph.add_constant(reshape_constant(scaled, handle.shape), weight.name)


def weights_by_outputs(source: Node, handle: Constant) -> tuple[Constant, tuple[int, ...], tuple[int, ...]]:
    """The weights with axes for groups where there are some; the shape of a number per output in it; the axes of outputs."""
    shape = handle.shape
    if source.op == "Conv":
        return handle, (shape[0], *[1] * (len(shape) - 1)), (0,)
    # ConvTranspose has [C, M/group, ...]: the C/group input channels of a group make its M/group output channels.
    group = source.attrs.get("group", 1)
    grouped = reshape_constant(handle, (group, shape[0] // group, *shape[1:]))
    return grouped, (group, 1, shape[1], *[1] * (len(shape) - 2)), (0, 2)


def map_weights(
    function: Callable[..., Array], sources: list[Constant], weights: Constant, label: str, kept: tuple[int, ...]
) -> Constant:
    """Weights of the type and shape of ``weights``: the elementwise ``function`` of ``sources``, computed wide, rounded once.

    In 16 bits the sums of the weights over all axes but ``kept``, those of the outputs, are kept; see sum_rounding.
    """
    if weights.dtype not in (DType.F16, DType.BF16):
        return map_constants(wide(function), sources, weights.dtype, weights.shape, label)
    scaled = map_constants(wide(function), sources, DType.F32, weights.shape, label)
    if isinstance(scaled, Filled):
        return Filled(weights.dtype, weights.shape, numpy_dtype(weights.dtype).type(scaled.value))
    return round_keeping_sums(scaled, weights.dtype, kept)


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
        graph.rename_node(y.producer, source.name)  # a profile shows the layer, not what was folded into it
    graph.remove(source)
