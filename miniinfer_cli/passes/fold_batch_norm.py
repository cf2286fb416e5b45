"""BatchNormalization with constant statistics -> into the Conv or ConvTranspose before it, else Mul + Add per channel.

The weights are rounded once, from factors that are not. Where there is no convolution, ``fold_affine`` may take the two into
the MatMul before them; where there is none, they are elementwise and fuse with what is around them.
"""

import numpy as np

from miniinfer_cli.ir import Array, Graph, Node, constant, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.convolution_weights import bias_handle, replace_behind, scaled_weights, wide
from miniinfer_cli.passes.operands import constant_handle, dims, same_type, sole_user
from miniinfer_cli.passes.recipes import map_constants


def fold_batch_norm(graph: Graph) -> int:
    """Gives the number of BatchNormalizations replaced."""
    count = 0
    for node in graph.nodes:
        if not node.is_op("BatchNormalization") or node.attrs.get("training_mode", 0) or len(node.outputs) != 1:
            continue
        shape = dims(node.inputs[0])
        factors = _factors(node)
        if shape is None or factors is None:
            continue
        if not _into_convolution(graph, node, *factors):
            _as_arithmetic(graph, node, len(shape), *factors)
        count += 1
    return count


def _into_convolution(graph: Graph, node: Node, scale: Array, shift: Array) -> bool:
    y = node.inputs[0]
    source = None if y is None else y.producer
    if y is None or source is None or not source.is_op("Conv", "ConvTranspose"):
        return False
    old = bias_handle(source)
    if old is None or sole_user(graph, y) is not node or not same_type(y, node.output):
        return False
    weight = scaled_weights(graph, source, constant(scale), np.multiply, "BatchNormalization")
    if weight is None:
        return False
    factors = [old, constant(scale), constant(shift)]
    new = map_constants(wide(lambda b, s, t: b * s + t), factors, old.dtype, old.shape, "BatchNormalization")
    bias = source.inputs[2] if len(source.inputs) > 2 else None
    name = f"{y.name}_bias" if bias is None else bias.name
    replace_behind(graph, source, node, [source.inputs[0], weight, graph.add_constant(new, name)])
    return True


def _as_arithmetic(graph: Graph, node: Node, rank: int, *factors: Array) -> None:
    dtype = numpy_dtype(node.output.tensor.dtype)
    scale, shift = (f.astype(dtype).reshape(-1, *[1] * (rank - 2)) for f in factors)
    x, name = node.inputs[0], node.output.name
    y = insert(graph, "Mul", x, graph.add_constant(scale, f"{name}_scale"), before=node, out=f"{name}_scaled")
    y = insert(graph, "Add", y, graph.add_constant(shift, f"{name}_shift"), before=node, out=name)
    graph.replace_node(node, [y])


def _factors(node: Node) -> tuple[Array, Array] | None:
    """Scale and shift per channel, in f32 or the wider type of the input; None when a statistic is not constant."""
    arrays: list[Array] = []
    for value in node.inputs[1:5]:
        handle = constant_handle(value)
        if handle is None:
            return None
        arrays.append(handle.array().astype(np.float64))
    gamma, beta, mean, variance = arrays
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    dtype = np.promote_types(np.float32, numpy_dtype(node.output.tensor.dtype))
    return scale.astype(dtype), (beta - mean * scale).astype(dtype)
