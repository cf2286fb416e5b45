"""Channels first and channels last: the two permutations, and what our channels-last operations expand to."""

from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ops.insert import insert


def channels_first(rank: int) -> list[int]:
    """The permutation that takes [N,spatial...,C] to [N,C,spatial...]."""
    return [0, rank - 1, *range(1, rank - 1)]


def channels_last(rank: int) -> list[int]:
    """The permutation that takes [N,C,spatial...] to [N,spatial...,C]."""
    return [0, *range(2, rank), 1]


def expand_channels_last(graph: Graph, node: Node) -> tuple[Value, ...]:
    """The ONNX operation of the same name without ``NHWC`` between two Transposes, its weights transposed too.

    Raises ValueError when the rank is not known.
    """
    ranks = [v.tensor.rank for v in node.inputs[:2] if v is not None and v.tensor.rank is not None]
    if not ranks:
        raise ValueError(f"the rank of the operands of {node!r} is not known")
    rank = ranks[0]
    inputs = [
        insert(graph, "Transpose", v, before=node, perm=channels_first(rank)) if v is not None and number < 2 else v
        for number, v in enumerate(node.inputs)
    ]
    y = insert(graph, node.op.removesuffix("NHWC"), *inputs, before=node, **node.attrs)
    return (insert(graph, "Transpose", y, before=node, perm=channels_last(rank)),)
