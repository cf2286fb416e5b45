"""Epilogues: the elementwise operations that a convolution or a matrix product can do on its way out."""

from collections.abc import Collection, Mapping

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.regions import make_region

LONGEST = 24  # operations; what comes after is another region's


def fuse_epilogues(graph: Graph, label: str, anchors: Collection[tuple[str, str]]) -> int:
    """Makes a region ``label`` of each node of ``anchors`` (domain, op) and its epilogue; gives the number of regions.

    The last anchor comes first, so that an Add of two products is the epilogue of the one that is computed later.
    """
    nodes = graph.nodes
    position = {node: i for i, node in enumerate(nodes)}
    count = 0
    for node in reversed(nodes):
        if (node.domain, node.op) in anchors and len(node.outputs) == 1:
            members = [node, *epilogue_of(graph, node, position)]
            if len(members) > 1:
                end = position[members[-1]]
                position[make_region(graph, label, members)] = end
                count += 1
    return count


def epilogue_of(graph: Graph, anchor: Node, position: Mapping[Node, int], barred: Collection[Node] = ()) -> list[Node]:
    """The longest run of elementwise operations behind ``anchor``, in graph order, whose last alone is read outside.

    So Relu(y) belongs to it, and x * Sigmoid(x) as a whole, but not Add(y, GlobalAveragePool(y)). Since no inner value is
    read outside, nothing that the operations read from outside can depend on them. None of ``barred`` is in it.
    """
    shape = dims(anchor.output)
    run: list[Node] = [anchor]
    closed = 1
    while shape is not None and len(run) <= LONGEST:
        inside = set(run)
        if any(graph.is_output(n.output) for n in run):
            break
        readers = {u for n in run for u in n.output.users if u not in inside}
        # The first reader in graph order has no other reader among its producers, so taking it keeps the order.
        node = min(readers, key=position.__getitem__, default=None)
        if node is None or node in barred or not is_pointwise(node) or len(node.outputs) != 1 or dims(node.output) != shape:
            break
        run.append(node)
        inside.add(node)
        if all(u in inside for n in run[:-1] for u in n.output.users):
            closed = len(run)
    return run[1:closed]
