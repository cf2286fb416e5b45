"""BatchNormalization with constant statistics -> Mul + Add by constants per channel.

``fold_affine`` then takes the two into the weights of the Conv, ConvTranspose or MatMul before them; where there is none,
they are elementwise and fuse with what is around them.
"""

import numpy as np

from miniinfer_cli.ir import Array, Graph, Node, numpy_dtype
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.operands import constant_handle, dims


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
        scale, shift = (f.reshape(-1, *[1] * (len(shape) - 2)) for f in factors)
        x, name = node.inputs[0], node.output.name
        y = insert(graph, "Mul", x, graph.add_constant(scale, f"{name}_scale"), before=node, out=f"{name}_scaled")
        y = insert(graph, "Add", y, graph.add_constant(shift, f"{name}_shift"), before=node, out=name)
        graph.replace_node(node, [y])
        count += 1
    return count


def _factors(node: Node) -> tuple[Array, Array] | None:
    """Scale and shift per channel, in the element type of the input; None when a statistic is not constant."""
    arrays: list[Array] = []
    for value in node.inputs[1:5]:
        handle = constant_handle(value)
        if handle is None:
            return None
        arrays.append(handle.array().astype(np.float64))
    gamma, beta, mean, variance = arrays
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    dtype = numpy_dtype(node.output.tensor.dtype)
    return scale.astype(dtype), (beta - mean * scale).astype(dtype)
