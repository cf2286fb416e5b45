"""The constants of a graph, of the bodies of its regions, and of its sub-graphs."""

from collections.abc import Iterator

from miniinfer_cli.ir import Constant, Graph


def constants_of(graph: Graph) -> Iterator[Constant]:
    """Every constant, once for each value that it stands behind."""
    for value in graph.values():
        if value.constant is not None:
            yield value.constant
    for node in graph:
        for inner in (*((node.body,) if node.body is not None else ()), *node.graphs.values()):
            yield from constants_of(inner)
