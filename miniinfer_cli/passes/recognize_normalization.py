"""Decomposed normalizations -> LayerNormalization, RMSNormalization, GroupNormalization.

d = x - mean(x);  d / sqrt(mean(d^2) + epsilon) [* scale] [+ bias]      LayerNormalization
x / sqrt(mean(x^2) + epsilon) [* scale]                                 RMSNormalization
InstanceNormalization of x reshaped to [n, groups, -1], and back        GroupNormalization
"""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import concrete, dims, known_ints, same_type, scalar, sole_user


def recognize_normalization(graph: Graph) -> int:
    """Replaces every decomposed normalization by its ONNX node."""
    fired = 0
    for node in graph.nodes:
        if node not in graph:
            continue
        if node.is_op("Sqrt"):
            fired += _layer_or_rms(graph, node)
        elif node.is_op("InstanceNormalization"):
            fired += _group(graph, node)
    return fired


@dataclass(frozen=True, slots=True)
class _Statistic:
    """``sqrt(mean(d^2) + epsilon)`` over the last axes from ``axis`` (negative) on."""

    d: Value
    axis: int
    epsilon: float


def _layer_or_rms(graph: Graph, root: Node) -> bool:
    statistic = _statistic(root)
    normal = _normalized(graph, root.output, statistic) if statistic is not None else None
    if statistic is None or normal is None:
        return False
    x, d = _centred(statistic), statistic.d
    count = -statistic.axis
    source = x if x is not None else d
    if not isinstance(source.type, TensorType) or source.type.rank is None or not same_type(normal, source):
        return False
    shape = dims(source)
    assert shape is not None
    end, scale = _factor(graph, normal, shape[-count:])
    bias = None
    if x is not None and scale is not None:
        end, bias = _summand(graph, end, shape[-count:])
    node = end.producer
    assert node is not None
    if scale is None:
        ones = _ones(shape[-count:], source.type.dtype)
        if ones is None:
            return False
        scale = graph.add_constant(ones, f"{normal.name}_scale")
    op = "LayerNormalization" if x is not None else "RMSNormalization"
    operands = [source, scale] if bias is None else [source, scale, bias]
    fused = insert(graph, op, *operands, before=node, out=end.name, axis=statistic.axis, epsilon=statistic.epsilon)
    graph.replace_uses(end, fused)
    return True


def _statistic(root: Node) -> _Statistic | None:
    shifted = _producer(root.inputs[0], "Add")
    if shifted is None:
        return None
    a, b = shifted.inputs
    mean, epsilon = (a, scalar(b)) if scalar(b) is not None else (b, scalar(a))
    reduce = _producer(mean, "ReduceMean")
    if epsilon is None or reduce is None or not reduce.attrs.get("keepdims", 1):
        return None
    axis = _last_axes(reduce)
    square = reduce.inputs[0]
    d = _squared(square)
    return None if axis is None or d is None else _Statistic(d, axis, float(epsilon))


def _squared(value: Value | None) -> Value | None:
    """``d`` when ``value`` is its square, however that is written."""
    node = value.producer if value is not None else None
    if node is None or not node.is_op("Mul", "Pow"):
        return None
    base, other = node.inputs
    is_square = scalar(other) == 2 if node.op == "Pow" else base is other
    return base if is_square else None


def _centred(statistic: _Statistic) -> Value | None:
    """``x`` when the statistic's operand is x - mean(x) over the same axes; None otherwise (a root mean square)."""
    node = _producer(statistic.d, "Sub")
    mean = _producer(node.inputs[1], "ReduceMean") if node is not None else None
    if node is None or mean is None or not mean.attrs.get("keepdims", 1):
        return None
    same = mean.inputs[0] is node.inputs[0] and _last_axes(mean) == statistic.axis
    return node.inputs[0] if same else None


def _normalized(graph: Graph, root: Value, statistic: _Statistic | None) -> Value | None:
    """``d / root``, or ``d * (1 / root)``: the value that is normalized but neither scaled nor shifted."""
    if statistic is None:
        return None
    reader = sole_user(graph, root)
    if reader is None:
        return None
    if reader.is_op("Div") and reader.inputs[1] is root:
        if reader.inputs[0] is statistic.d:
            return reader.output
        if scalar(reader.inputs[0]) != 1:
            return None
    elif not reader.is_op("Reciprocal"):
        return None
    product = sole_user(graph, reader.output)
    if product is None or not product.is_op("Mul"):
        return None
    return product.output if statistic.d in product.inputs else None


def _factor(graph: Graph, value: Value, shape: tuple[object, ...]) -> tuple[Value, Value | None]:
    """The product that alone reads ``value`` and its other factor, when that is a constant of the normalized axes."""
    return _constant_operand(graph, value, "Mul", shape)


def _summand(graph: Graph, value: Value, shape: tuple[object, ...]) -> tuple[Value, Value | None]:
    return _constant_operand(graph, value, "Add", shape)


def _constant_operand(graph: Graph, value: Value, op: str, shape: tuple[object, ...]) -> tuple[Value, Value | None]:
    reader = sole_user(graph, value)
    if reader is None or not reader.is_op(op):
        return value, None
    a, b = reader.inputs
    other = b if a is value else a
    if other is None or other.constant is None or dims(other) != shape or not same_type(reader.output, value):
        return value, None
    return reader.output, other


def _group(graph: Graph, node: Node) -> bool:
    """InstanceNormalization over groups of channels, with a Reshape on each side and scale 1, bias 0 inside."""
    merged, scale, bias = node.inputs
    apart = _producer(merged, "Reshape")
    reader = sole_user(graph, node.output)
    if apart is None or reader is None or not reader.is_op("Reshape"):
        return False
    x = apart.inputs[0]
    before, inside = dims(x), dims(merged)
    if x is None or before is None or inside is None or len(before) < 3 or len(inside) != 3 or dims(reader.output) != before:
        return False
    groups, channels = inside[1], before[1]
    if not isinstance(groups, int) or not isinstance(channels, int) or inside[0] != before[0] or channels % groups:
        return False
    if not (_is_all(scale, 1.0) and _is_all(bias, 0.0)):
        return False
    end, factor = _per_channel(graph, reader.output, "Mul", channels, len(before))
    end, summand = _per_channel(graph, end, "Add", channels, len(before)) if factor is not None else (end, None)
    kind = x.tensor.dtype
    # An affine part that is left out is the neutral one; the scale's is read by every element anyway.
    weight = (
        _flat(graph, factor, channels)
        if factor is not None
        else graph.add_constant(np.ones(channels, numpy_dtype(kind)), "scale")
    )
    shift = (
        _flat(graph, summand, channels)
        if summand is not None
        else graph.add_constant(np.zeros(channels, numpy_dtype(kind)), "bias")
    )
    last = end.producer
    assert last is not None
    for value in (weight, shift):
        if value.producer is not None:
            graph.move_before(value.producer, last)
    epsilon = node.attrs.get("epsilon", 1e-5)
    fused = insert(
        graph, "GroupNormalization", x, weight, shift, before=last, out=end.name, num_groups=groups, epsilon=epsilon,
        stash_type=1,
    )  # fmt: skip
    graph.replace_uses(end, fused)
    return True


def _per_channel(graph: Graph, value: Value, op: str, channels: int, rank: int) -> tuple[Value, Value | None]:
    """Like ``_constant_operand``, for an operand of one number per channel that broadcasts over the trailing axes."""
    reader = sole_user(graph, value)
    if reader is None or not reader.is_op(op):
        return value, None
    a, b = reader.inputs
    other = b if a is value else a
    shape = dims(other)
    if other is None or other.constant is None or shape is None or not same_type(reader.output, value):
        return value, None
    padded = (1,) * (rank - len(shape)) + shape
    return (reader.output, other) if padded == (1, channels, *(1,) * (rank - 2)) else (value, None)


def _flat(graph: Graph, value: Value, channels: int) -> Value:
    target = graph.add_constant(np.array([channels], np.int64), "channels")
    return insert(graph, "Reshape", value, target, out=f"{value.name}_flat")


def _is_all(value: Value | None, number: float) -> bool:
    array = concrete(value)
    return array is not None and bool(np.all(array == number))


def _producer(value: Value | None, op: str) -> Node | None:
    node = value.producer if value is not None else None
    return node if node is not None and node.is_op(op) else None


def _last_axes(reduce: Node) -> int | None:
    """The first of the axes that ``reduce`` goes over, counted from the end, when they are the last ones; else None."""
    axes = known_ints(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
    shape = dims(reduce.inputs[0])
    if axes is None or not axes or shape is None:
        return None
    ordered = sorted(a - len(shape) if a >= 0 else a for a in axes)
    return ordered[0] if ordered == list(range(-len(ordered), 0)) else None


def _ones(shape: tuple[object, ...], dtype: DType) -> np.ndarray | None:
    if not all(isinstance(d, int) for d in shape):
        return None
    return np.ones(shape, numpy_dtype(dtype))  # type: ignore[arg-type]
