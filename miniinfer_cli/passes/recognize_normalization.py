"""Decomposed normalizations -> LayerNormalization, RMSNormalization, GroupNormalization.

d = x - mean(x);  d / sqrt(mean(d^2) + epsilon) [* scale] [+ bias]      LayerNormalization
x / sqrt(mean(x^2) + epsilon) [* scale]                                 RMSNormalization
InstanceNormalization of x reshaped to [n, groups, -1], and back        GroupNormalization
"""

from dataclasses import dataclass
from typing import Any

from miniinfer_cli.ir import Dim, DType, Graph, Node, Value
from miniinfer_cli.ir.constants import Filled
from miniinfer_cli.ir.dims import is_static
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.type_codes import code_of_dtype
from miniinfer_cli.passes.operands import dims, known_ints, same_type, scalar, sole_user
from miniinfer_cli.passes.recipes import reshape_constant
from miniinfer_cli.passes.triangles import uniform


def recognize_normalization(graph: Graph) -> int:
    """Replaces every decomposed normalization by its ONNX node."""
    fired = 0
    for node in graph.nodes:
        if node not in graph:
            continue
        if node.is_op("Sqrt", "Pow"):
            fired += _layer_or_rms(graph, node)
        elif node.is_op("InstanceNormalization"):
            fired += _group(graph, node)
    return fired


@dataclass(frozen=True, slots=True)
class _Statistic:
    """``sqrt(mean(d^2) + epsilon)``, or one over it, over the last axes from ``axis`` (negative) on."""

    d: Value
    axis: int
    epsilon: float
    is_inverse: bool


def _layer_or_rms(graph: Graph, root: Node) -> bool:
    statistic = _statistic(root)
    normal = _normalized(graph, root.output, statistic) if statistic is not None else None
    if statistic is None or normal is None:
        return False
    x = _centred(statistic)
    source = statistic.d if x is None else x
    shape = dims(source)
    if shape is None or not same_type(normal, source):
        return False
    source, normal = _without_casts(graph, source, normal, is_rms=x is None)
    features = shape[statistic.axis :]
    end, scale = _constant_operand(graph, normal, "Mul", features, features)
    bias = None
    if x is not None and scale is not None:
        end, bias = _constant_operand(graph, end, "Add", features, features)
    if scale is None:
        if not is_static(features):
            return False
        scale = graph.add_constant(Filled(normal.tensor.dtype, features, 1.0), f"{end.name}_scale")
    last = end.producer
    assert last is not None
    operands = [source, scale] if bias is None else [source, scale, bias]
    attrs: dict[str, Any] = {"axis": statistic.axis, "epsilon": statistic.epsilon} | _stash(source.tensor.dtype)
    op = "RMSNormalization" if x is None else "LayerNormalization"
    graph.replace_node(last, [insert(graph, op, *operands, before=last, out=end.name, **attrs)])
    return True


def _statistic(root: Node) -> _Statistic | None:
    power = scalar(root.inputs[1]) if root.op == "Pow" else 0.5
    shifted = _producer(root.inputs[0], "Add")
    if shifted is None or power not in (0.5, -0.5):
        return None
    a, b = shifted.inputs
    mean, epsilon = (a, scalar(b)) if scalar(b) is not None else (b, scalar(a))
    reduce = _producer(mean, "ReduceMean")
    if epsilon is None or reduce is None or not reduce.attrs.get("keepdims", 1):
        return None
    axis, d = _last_axes(reduce), _squared(reduce.inputs[0])
    return None if axis is None or d is None else _Statistic(d, axis, float(epsilon), power < 0)


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


def _normalized(graph: Graph, root: Value, statistic: _Statistic) -> Value | None:
    """``d / root``, or ``d * (1 / root)``: the value that is normalized but neither scaled nor shifted."""
    reader = sole_user(graph, root)
    if reader is None:
        return None
    inverse = root
    if not statistic.is_inverse:
        if reader.is_op("Div") and reader.inputs[0] is statistic.d and reader.inputs[1] is root:
            return reader.output
        is_one_over = reader.is_op("Div") and reader.inputs[1] is root and scalar(reader.inputs[0]) == 1
        if not is_one_over and not reader.is_op("Reciprocal"):
            return None
        inverse = reader.output
        reader = sole_user(graph, inverse)
    is_product = reader is not None and reader.is_op("Mul") and set(reader.inputs) == {statistic.d, inverse}
    return reader.output if reader is not None and is_product else None


def _without_casts(graph: Graph, source: Value, normal: Value, *, is_rms: bool) -> tuple[Value, Value]:
    """What ``source`` was widened from and what ``normal`` is narrowed to, half floats both, when the node does that itself:
    all compute in f32, and RMSNormalization gives the type of its scale."""
    widened, narrowed = _producer(source, "Cast"), sole_user(graph, normal)
    if narrowed is None or not narrowed.is_op("Cast") or source.tensor.dtype is not DType.F32:
        return source, normal
    x, y = widened.inputs[0] if widened is not None else None, narrowed.output
    if not y.tensor.dtype.is_half:
        return source, normal
    if x is not None and x.tensor.dtype is y.tensor.dtype:
        return x, y
    return (source, y) if is_rms else (source, normal)


def _constant_operand(
    graph: Graph, value: Value, op: str, shape: tuple[Dim, ...], wanted: tuple[Dim, ...]
) -> tuple[Value, Value | None]:
    """What alone reads ``value`` and its other operand, as ``wanted``, when that is a constant of ``shape``, axes of size 1
    in front apart; (``value``, None) otherwise."""
    reader = sole_user(graph, value)
    if reader is None or not reader.is_op(op):
        return value, None
    a, b = reader.inputs
    other = b if a is value else a
    found = dims(other)
    if other is None or found is None or other.constant is None or not same_type(reader.output, value):
        return value, None
    if found != (1,) * (len(found) - len(shape)) + shape:
        return value, None
    if found == wanted:
        return reader.output, other
    target = tuple(d for d in wanted if isinstance(d, int))
    return reader.output, graph.add_constant(reshape_constant(other.constant, target), other.name)


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
    if uniform(scale) != 1 or uniform(bias) != 0:
        return False
    per_channel, flat = (channels, *(1,) * (len(before) - 2)), (channels,)
    end, factor = _constant_operand(graph, reader.output, "Mul", per_channel, flat)
    summand = None
    if factor is not None:
        end, summand = _constant_operand(graph, end, "Add", per_channel, flat)
    last, dtype = end.producer, x.tensor.dtype
    assert last is not None
    # An affine part that is left out is the neutral one; the scale's is read by every element anyway.
    weight = factor or graph.add_constant(Filled(dtype, (channels,), 1.0), f"{end.name}_scale")
    shift = summand or graph.add_constant(Filled(dtype, (channels,), 0.0), f"{end.name}_bias")
    attrs: dict[str, Any] = {"num_groups": groups, "epsilon": node.attrs.get("epsilon", 1e-5)} | _stash(dtype)
    graph.replace_node(last, [insert(graph, "GroupNormalization", x, weight, shift, before=last, out=end.name, **attrs)])
    return True


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


def _stash(dtype: DType) -> dict[str, int]:
    """The attribute that has statistics computed as precisely as before."""
    return {"stash_type": code_of_dtype(dtype)} if dtype is DType.F64 else {}
