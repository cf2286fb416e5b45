"""How passes are tested: graph text in, graph text out, a second run that finds nothing, and the same numbers."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from engine_format.dtypes import DType
from miniinfer_cli.ir import Graph, TensorType, numpy_dtype
from miniinfer_cli.ir.constants import MappedConstant
from miniinfer_cli.ir.dims import evaluate, names_in
from miniinfer_cli.ir.text import NamedConstant, parse_graph, print_graph
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret

SIZES = {"batch": 2, "seq": 5, "h": 6, "w": 4}


def _random(type: TensorType, seed: int) -> np.ndarray:
    """Values that are different everywhere and small enough for every element type."""
    assert type.shape is not None
    shape = [evaluate(d, SIZES) for d in type.shape]
    rng = np.random.default_rng(seed)
    if type.dtype is DType.BOOL:
        return rng.integers(0, 2, shape).astype(bool)
    if type.dtype.is_integer:
        return rng.integers(0, 4, shape).astype(numpy_dtype(type.dtype))
    return (rng.standard_normal(shape) + 0.1).astype(numpy_dtype(type.dtype))


def read_graph(text: str) -> Graph:
    """A graph from text in which types may be left out; ``const large "mapped NAME"`` gets contents that hang on NAME."""
    graph = parse_graph(text)
    _fill(graph)
    annotate(graph)
    verify(graph)
    return graph


def _fill(graph: Graph) -> None:
    for value in list(graph.constants()):
        if isinstance(value.constant, NamedConstant):
            name = value.constant.tag.removeprefix("mapped ")
            data = _random(TensorType(value.constant.dtype, value.constant.shape), sum(name.encode()))
            graph.set_constant(value, MappedConstant(value.constant.dtype, value.constant.shape, data.tobytes(), name))
    for node in graph:
        for inner in (*node.graphs.values(), *([node.body] if node.body is not None else [])):
            _fill(inner)


def run_graph(graph: Graph) -> tuple[np.ndarray, ...]:
    """The outputs of ``graph`` on random inputs; the same inputs for every graph of the same signature."""
    with np.errstate(all="ignore"):
        return interpret(graph, [_random(v.tensor, i) for i, v in enumerate(graph.inputs)])


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

    Types may be left out of both texts, and constants and nodes that nobody reads are left in.
    """

    def check(pass_: Callable[[Graph], int], before: str, after: str, *, fired: int = 1, rtol: float = 0.0) -> Graph:
        graph = read_graph(before)
        outputs = run_graph(graph)
        assert all(names_in(d) <= SIZES.keys() for v in graph.inputs for d in v.tensor.shape or ())
        count = pass_(graph)
        verify(graph)
        expected = parse_graph(after)
        annotate(expected)
        assert print_graph(graph) == print_graph(expected)
        assert count == fired
        text = print_graph(graph)
        annotate(graph)
        assert print_graph(graph) == text, "the pass left types that are not what the shape rules say"
        _assert_same_numbers(outputs, graph, rtol)
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
