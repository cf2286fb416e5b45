"""BatchNormalization with constant statistics -> into the Conv or ConvTranspose before it, else Mul + Add per channel.

The weights are rounded once, from factors that are not. Where there is no convolution, ``fold_affine`` may take the two into
the MatMul before them; where there is none, they are elementwise and fuse with what is around them. The node stays where either
would be less exact than it is: factors that its type cannot hold, and half floats whose mean is large beside their spread.
"""

from dataclasses import dataclass

import numpy as np

from miniinfer_cli.ir import Array, Graph, Node, constant, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.convolution_weights import bias_handle, replace_behind, scaled_weights
from miniinfer_cli.passes.exact_scaling import is_finite, keeps_digits, stored_type, wide
from miniinfer_cli.passes.operands import constant_handle, dims, same_type, sole_user
from miniinfer_cli.passes.recipes import map_constants

_CANCELS = 16  # a shift this many times the results takes four bits of what the type can say


def fold_batch_norm(graph: Graph) -> int:
    """Gives the number of BatchNormalizations replaced."""
    count = 0
    for node in graph.nodes:
        if not node.is_op("BatchNormalization") or node.attrs.get("training_mode", 0) or len(node.outputs) != 1:
            continue
        shape = dims(node.inputs[0])
        factors = _read_factors(node)
        if shape is None or factors is None:
            continue
        count += _into_convolution(graph, node, factors) or _as_arithmetic(graph, node, len(shape), factors)
    return count


@dataclass(frozen=True, slots=True)
class _Factors:
    """y = x * scale + shift per channel, in f32 or the wider type of the input; most of y lies within +-``spread``."""

    scale: Array
    shift: Array
    spread: Array


def _into_convolution(graph: Graph, node: Node, by: _Factors) -> bool:
    y = node.inputs[0]
    source = None if y is None else y.producer
    if y is None or source is None or not source.is_op("Conv", "ConvTranspose"):
        return False
    old = bias_handle(source)
    if old is None or sole_user(graph, y) is not node or not same_type(y, node.output):
        return False
    factors = [old, constant(by.scale), constant(by.shift)]
    new = map_constants(wide(lambda b, s, t: b * s + t), factors, old.dtype, old.shape, "BatchNormalization")
    if not is_finite(new, stored_type(graph, new.dtype)):
        return False
    weight = scaled_weights(graph, source, constant(by.scale), np.multiply, "BatchNormalization", new)
    if weight is None:
        return False
    bias = source.inputs[2] if len(source.inputs) > 2 else None
    name = f"{y.name}_bias" if bias is None else bias.name
    replace_behind(graph, source, node, [source.inputs[0], weight, graph.add_constant(new, name)])
    return True


def _as_arithmetic(graph: Graph, node: Node, rank: int, by: _Factors) -> bool:
    dtype, stored = numpy_dtype(node.output.tensor.dtype), stored_type(graph, node.output.tensor.dtype)
    with np.errstate(over="ignore"):
        scale, shift = (f.astype(dtype).reshape(-1, *[1] * (rank - 2)) for f in (by.scale, by.shift))
    if not keeps_digits(by.scale, stored) or not np.isfinite(shift.astype(numpy_dtype(stored))).all():
        return False
    if stored.is_half and np.any(np.abs(by.shift) > _CANCELS * by.spread):
        return False  # the reference subtracts the mean in f32
    x, name = node.inputs[0], node.output.name
    y = insert(graph, "Mul", x, graph.add_constant(scale, f"{name}_scale"), before=node, out=f"{name}_scaled")
    y = insert(graph, "Add", y, graph.add_constant(shift, f"{name}_shift"), before=node, out=name)
    graph.replace_node(node, [y])
    return True


def _read_factors(node: Node) -> _Factors | None:
    """None when a statistic is not constant."""
    arrays: list[Array] = []
    for value in node.inputs[1:5]:
        handle = constant_handle(value)
        if handle is None:
            return None
        arrays.append(handle.array().astype(np.float64))
    gamma, beta, mean, variance = arrays
    dtype = np.promote_types(np.float32, numpy_dtype(node.output.tensor.dtype))
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        found = (scale, beta - mean * scale, np.abs(gamma) + np.abs(beta))
        return _Factors(*(a.astype(dtype) for a in found))
