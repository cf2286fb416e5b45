"""Graphs given as text, for the tests of every package."""

from miniinfer_cli.ir import Graph
from miniinfer_cli.ir.text import parse_graph
from miniinfer_cli.ops import annotate


def typed_graph(text: str) -> Graph:
    """The graph of a text in which types may be left out: they are inferred."""
    graph = parse_graph(text.strip() + "\n")
    annotate(graph)
    return graph
