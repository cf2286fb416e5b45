"""How passes are tested: graph text in, graph text out, a second run that finds nothing, and the same numbers."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from miniinfer_cli.ir import Graph
from miniinfer_cli.ir.dims import names_in
from miniinfer_cli.ir.text import print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops import annotate
from tests.graph_text import typed_graph
from tests.passes.graphs import SIZES, read_graph, run_graph


def _assert_same_numbers(before: Sequence[np.ndarray], graph: Graph, rtol: float) -> None:
    for expected, actual, name in zip(before, run_graph(graph), graph.output_names, strict=True):
        assert actual.dtype == expected.dtype, name
        assert actual.shape == expected.shape, name
        if rtol:
            scale = np.max(np.abs(expected.astype(np.float64)), initial=1e-30)
            np.testing.assert_allclose(actual.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=rtol * scale)
        else:
            np.testing.assert_array_equal(actual, expected, err_msg=name)


@pytest.fixture
def rewrites():
    """``rewrites(pass_, before, after, fired=1, rtol=0)``: the pass turns the one text into the other and computes the same.

    Types may be left out of both texts, and constants and nodes that nobody reads are left in. ``improves_types``: more is
    known of what comes behind than before, which the driver's next inference finds.
    """

    def check(
        pass_: Callable[[Graph], int], before: str, after: str, *, fired: int = 1, rtol: float = 0.0, improves_types: bool = False
    ) -> Graph:
        graph = read_graph(before)
        outputs = run_graph(graph)
        assert all(names_in(d) <= SIZES.keys() for v in graph.inputs for d in v.tensor.shape or ())
        count = pass_(graph)
        verify(graph)
        _assert_same_numbers(outputs, graph, rtol)
        if improves_types:
            annotate(graph)
        expected = typed_graph(after)
        assert print_graph(graph) == print_graph(expected)
        assert count == fired
        text = print_graph(graph)
        annotate(graph)
        assert print_graph(graph) == text, "the pass left types that are not what the shape rules say"
        assert pass_(graph) == 0
        assert print_graph(graph) == text
        return graph

    return check


@pytest.fixture
def leaves():
    """``leaves(pass_, text)``: the pass finds nothing to do."""

    def check(pass_: Callable[[Graph], int], text: str) -> None:
        graph = read_graph(text)
        before = print_graph(graph)
        assert pass_(graph) == 0
        assert print_graph(graph) == before

    return check


@pytest.fixture
def graph_of():
    """``graph_of(text)``: the annotated graph of a text, its large constants filled."""
    return read_graph


@pytest.fixture
def outputs_of():
    """``outputs_of(graph)``: what a graph computes on random inputs."""
    return run_graph
