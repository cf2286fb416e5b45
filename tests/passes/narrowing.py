"""Graphs of texts, asked to be of 16 bits, and narrowed: sound, settled, and right but for rounding."""

import numpy as np

from miniinfer_cli.ir import DType, Graph, Numerics
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops import annotate
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.precision.narrow_floats import ask, narrow_floats
from tests.passes.graphs import read_graph, run_graph

TOLERANCE = {DType.F16: 1e-2, DType.BF16: 5e-2}
# What knows no type of 16 bits: it runs sub-graphs, holds sequences, or has no definition of ours.


def asked(text: str, half: DType = DType.F16, nodes: frozenset[str] = frozenset(), ops: frozenset[str] = frozenset()) -> Graph:
    """The graph of a text, asked to be of 16 bits, its large constants filled."""
    graph = read_graph(text)
    ask(graph, Numerics(half, nodes, ops))
    return graph


def narrowed(text: str, half: DType = DType.F16, nodes: frozenset[str] = frozenset(), ops: frozenset[str] = frozenset()) -> Graph:
    """The same, narrowed, sub-graphs too: sound, with the types of its shape rules, and left as it is by a second run."""
    graph = asked(text, half, nodes, ops)
    before = run_graph(graph)
    for within in list(with_subgraphs(graph)):
        narrow_floats(within)
    verify(graph)
    for expected, got in zip(before, run_graph(graph), strict=True):
        assert got.dtype == expected.dtype
        if expected.dtype == np.float32:
            assert np.array_equal(np.isfinite(got), np.isfinite(expected))
            got, expected = (np.where(np.isfinite(v), v, 0) for v in (got, expected))
            off = np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30)
            np.testing.assert_array_less(off, TOLERANCE[half])
    text = print_graph(graph)
    assert [narrow_floats(within) for within in with_subgraphs(graph)] == [0] * len(list(with_subgraphs(graph)))
    annotate(graph)
    assert print_graph(graph) == text, "the pass left types that are not what the shape rules say"
    return graph


def wide_ops(graph: Graph) -> dict[str, str]:
    """What keeps f32, by name of the node's result, with the reason."""
    assert graph.numerics is not None
    return {k.node: k.reason for k in graph.numerics.kept}
