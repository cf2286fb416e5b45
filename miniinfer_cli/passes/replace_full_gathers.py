"""Gather or GatherND that takes every element in order -> Reshape.

Exporters index a padding mask by counted-up batches and positions: ``mask[arange(b)[:, None], arange(s)]`` is the mask itself.
"""

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ir.dims import product
from miniinfer_cli.passes.cancel_reshapes import VIEWS
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.positions import Affine, affine
from miniinfer_cli.passes.reshape_targets import insert_reshape


def replace_full_gathers(graph: Graph) -> int:
    """Gives the number of nodes replaced."""
    return sum(_rewrite(graph, node) for node in graph.nodes if node.is_op("Gather", "GatherND"))


def _rewrite(graph: Graph, node: Node) -> bool:
    data, indices = node.inputs
    shape, target = dims(data), dims(node.output)
    if data is None or shape is None or target is None or not shape:
        return False
    if node.op == "Gather":
        axis = node.attrs.get("axis", 0) % len(shape)
        gathered: tuple[Dim, ...] = (shape[axis],)
        index = affine(indices)
        at: tuple[Dim, ...] | None = dims(indices)
    else:
        columns = _columns(indices)
        gathered = shape[: len(columns)]
        index = _flat(columns, gathered) if columns and not node.attrs.get("batch_dims", 0) else None
        at = (dims(indices) or (0,))[:-1]
    if index is None or at is None or not _counts_through(index, at, product(gathered)):
        return False
    view = data.producer
    source = view.inputs[0] if view is not None and view.is_op(*VIEWS) and view.inputs[0] is not None else data
    value = next((v for x in (data, source) if (v := insert_reshape(graph, x, target, before=node, out=node.output.name))), None)
    if value is None:
        return False
    graph.replace_node(node, [value])
    return True


def _counts_through(index: Affine, shape: tuple[Dim, ...], count: Dim) -> bool:
    """True when ``index`` over ``shape`` is 0, 1, 2 ... up to ``count``, in row-major order."""
    step: Dim = 1
    for axis in range(-1, -len(shape) - 1, -1):
        if shape[axis] != 1:
            if index.strides.get(axis) != step:
                return False
            step = step * shape[axis]
    return index.offset == 0 and step == count


def _columns(indices: Value | None) -> list[Affine]:
    """The columns of GatherND's index tuples, each over the index tuples' axes; empty when they are not all known."""
    node = indices.producer if indices is not None else None
    if node is None or not node.is_op("Concat") or node.attrs["axis"] not in (-1, len(dims(node.output) or ()) - 1):
        return []
    columns = []
    for part in node.inputs:
        found, shape = affine(part), dims(part)
        if found is None or shape is None or shape[-1] != 1:
            return []
        columns.append(Affine(found.offset, {axis + 1: stride for axis, stride in found.strides.items()}))
    return columns


def _flat(columns: list[Affine], shape: tuple[Dim, ...]) -> Affine | None:
    """The index into the flattened leading axes ``shape`` that the index tuples amount to."""
    offset: Dim = 0
    strides: dict[int, Dim] = {}
    for axis, column in enumerate(columns):
        weight = product(shape[axis + 1 :])
        offset = offset + weight * column.offset
        for a, stride in column.strides.items():
            strides[a] = strides.get(a, 0) + weight * stride
    return Affine(offset, strides) if len(columns) == len(shape) else None
