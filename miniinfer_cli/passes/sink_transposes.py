"""Moves Transposes down through elementwise operations, where that makes them fewer.

op(Transpose(a), Transpose(b)) -> Transpose(op(a, b)), and op(Transpose(a), constant) where a Transpose follows further
down, which the first then meets.
"""

from collections.abc import Sequence

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert, insert_many
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.cancel_transposes import permutation
from miniinfer_cli.passes.operands import constant_handle, dims, sole_user
from miniinfer_cli.passes.recipes import reshape_constant, transpose_constant


def sink_transposes(graph: Graph) -> int:
    """Gives the number of elementwise operations that Transposes were moved past."""
    count = 0
    for node in graph.nodes:
        perm = _shared_permutation(graph, node)
        if perm is None:
            continue
        operands = [None if v is None else _untransposed(graph, v, perm) for v in node.inputs]
        (y,) = insert_many(
            graph, node.op, *operands, n_outputs=1, before=node, out=node.output.name, domain=node.domain, **node.attrs
        )
        graph.replace_node(node, [insert(graph, "Transpose", y, before=node, out=node.output.name, perm=perm)])
        count += 1
    return count


def _shared_permutation(graph: Graph, node: Node) -> list[int] | None:
    """The permutation by which ``node`` may be transposed at the end; None when that gains nothing."""
    if not is_pointwise(node) or len(node.outputs) != 1:
        return None
    perms: list[list[int]] = []
    transposes: set[Node] = set()
    for value in node.inputs:
        if value is None or _is_free(value):
            continue
        producer = value.producer
        perm = permutation(producer) if producer is not None and producer.is_op("Transpose") else None
        if producer is None or perm is None or (perms and perm != perms[0]):
            return None
        perms.append(perm)
        if sole_user(graph, value) is node:
            transposes.add(producer)
    shape = dims(node.output)
    if not perms or shape is None or len(shape) != len(perms[0]) or any(dims(v) != shape for v in _transposed(node)):
        return None
    if any(v is not None and len(dims(v) or ()) > len(shape) for v in node.inputs):
        return None
    gains = len(transposes) > 1 or (len(transposes) == 1 and _meets_transpose(graph, node.output))
    return perms[0] if gains else None


def _transposed(node: Node) -> Sequence[Value]:
    return [v for v in node.inputs if v is not None and not _is_free(v)]


def _is_free(value: Value) -> bool:
    """A constant can be transposed while building, a single number needs not be."""
    shape = dims(value)
    return constant_handle(value) is not None or (shape is not None and all(d == 1 for d in shape))


def _untransposed(graph: Graph, value: Value, perm: Sequence[int]) -> Value:
    """What stands for ``value`` in the operation before the Transpose."""
    handle = constant_handle(value)
    if handle is None:
        producer = value.producer
        if producer is not None and producer.is_op("Transpose") and producer.inputs[0] is not None and not _is_free(value):
            return producer.inputs[0]
        return value
    if handle.size == 1:
        return value
    full = reshape_constant(handle, (1,) * (len(perm) - len(handle.shape)) + handle.shape)
    inverse = [list(perm).index(axis) for axis in range(len(perm))]
    return graph.add_constant(transpose_constant(full, inverse), value.name)


def _meets_transpose(graph: Graph, value: Value) -> bool:
    """True when ``value`` goes through elementwise operations of one reader each into a Transpose."""
    node = sole_user(graph, value)
    while node is not None and is_pointwise(node) and len(node.outputs) == 1:
        if any(v is not value and v is not None and not _is_free(v) for v in node.inputs):
            return False
        value = node.output
        node = sole_user(graph, value)
    return node is not None and node.is_op("Transpose")
