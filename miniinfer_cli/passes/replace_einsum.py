"""Einsum of two operands that is one product of matrices, batched over the same leading axes -> MatMul.

Attention is written as two of these (``bhid,bhjd->bhij``), and layers as one whose second is a matrix (``...k,nk->...n``).
What is below is then found as everywhere else. An operand that lies the other way is seen through a Transpose of its last two
axes, which products take in.
"""

from collections.abc import Sequence

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops import insert
from miniinfer_cli.ops.einsum_equation import parse_equation
from miniinfer_cli.passes.operands import dims


def replace_einsum(graph: Graph) -> int:
    """Gives the number of Einsums replaced."""
    return sum(_rewrite(graph, node) for node in graph.nodes if node.is_op("Einsum") and len(node.inputs) == 2)


def _rewrite(graph: Graph, node: Node) -> bool:
    first, second = node.inputs
    shapes = dims(first), dims(second)
    if first is None or second is None or shapes[0] is None or shapes[1] is None:
        return False
    *terms, out = parse_equation(node.attrs["equation"]).spread((len(shapes[0]), len(shapes[1])))
    if any(len(set(term)) < len(term) for term in terms):
        return False  # a diagonal
    size = dict(zip(terms[0], shapes[0], strict=True))
    if any(size.get(label, n) != n for label, n in zip(terms[1], shapes[1], strict=True)):
        return False  # an axis of one is repeated, or sizes are not known to be the same
    for (a, left), (b, right) in (zip((first, second), terms, strict=True), zip((second, first), reversed(terms), strict=True)):
        turned = _turned(left, right, out)
        if turned is not None:
            factors = [_swapped(graph, v, node) if turn else v for v, turn in zip((a, b), turned, strict=True)]
            graph.replace_node(node, [insert(graph, "MatMul", *factors, before=node, out=node.output.name)])
            return True
    return False


def _turned(left: Sequence[str], right: Sequence[str], out: Sequence[str]) -> tuple[bool, bool] | None:
    """Whether MatMul takes the operands with their last two axes swapped; None where they are no matrices that it multiplies."""
    summed = [label for label in left if label in right and label not in out]
    if len(summed) != 1 or len(left) < 2 or len(right) < 2 or not out:
        return None
    k, n = summed[0], out[-1]
    columns = {(k, n): False, (n, k): True}.get((right[-2], right[-1]))
    if columns is None or n in left:
        return None
    if len(right) == 2:  # one matrix for all rows
        return (False, columns) if list(left) == [*out[:-1], k] and len(out) > 1 else None
    batch = list(right[:-2])
    m = next((label for label in left[-2:] if label != k), None)
    rows = {(m, k): False, (k, m): True}.get((left[-2], left[-1]))
    if rows is None or list(left[:-2]) != batch or list(out) != [*batch, m, n]:
        return None
    return rows, columns


def _swapped(graph: Graph, value: Value, before: Node) -> Value:
    rank = len(dims(value) or ())
    perm = [*range(rank - 2), rank - 1, rank - 2]
    return insert(graph, "Transpose", value, before=before, out=f"{value.name}_swapped", perm=perm)
