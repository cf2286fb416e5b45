"""Transpose -> Reshape to rows -> MatMul with constant weights: the weights take the permutation, and the Transpose goes.

The classifier of a convolutional net that flattens its last feature map is the usual case: its weights count the
features channels-first while the map is channels-last.
"""

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ir.dims import is_static
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import constant_handle, dims, sole_user
from miniinfer_cli.passes.recipes import reshape_constant, transpose_constant
from miniinfer_cli.passes.reshape_targets import insert_reshape


def absorb_transposes(graph: Graph) -> int:
    """Gives the number of Transposes that weights took in."""
    return sum(_absorb(graph, node) for node in graph.nodes if node.is_op("Transpose"))


def _absorb(graph: Graph, transpose: Node) -> bool:
    view = sole_user(graph, transpose.output)
    product = sole_user(graph, view.output) if view is not None and view.is_op(*VIEWS) else None
    x, perm, shape = transpose.inputs[0], permutation(transpose), dims(transpose.output)
    if view is None or product is None or not product.is_op("MatMul") or x is None or perm is None or shape is None:
        return False
    weight, rows = product.inputs[1], dims(view.output)
    handle = constant_handle(weight)
    if handle is None or weight is None or len(handle.shape) != 2 or product.inputs[0] is not view.output or rows is None:
        return False
    # Axes from ``first`` on become the row; the ones before stay what they are.
    first = len(rows) - 1
    features = shape[first:]
    if rows[:first] != shape[:first] or perm[:first] != list(range(first)) or not is_static(features):
        return False
    flat = insert_reshape(graph, x, rows, before=view, out=view.output.name)
    if flat is None:
        return False
    back = [perm[first:].index(axis) for axis in range(first, len(perm))]
    sizes = [n for n in features if isinstance(n, int)]
    columns = handle.shape[1]
    unfolded = transpose_constant(reshape_constant(handle, (*sizes, columns)), [*back, len(back)])
    moved = graph.add_constant(reshape_constant(unfolded, handle.shape), weight.name)
    y = insert(graph, "MatMul", flat, moved, before=product, out=product.output.name)
    graph.replace_node(product, [y])
    graph.replace_node(view, [flat])
    graph.remove(transpose)
    return True
