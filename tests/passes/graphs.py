"""Graphs for tests of passes: read from text with types inferred and constants filled, and run on random inputs."""

import numpy as np

from engine_format.dtypes import DType
from miniinfer_cli.ir import Graph, TensorType, numpy_dtype
from miniinfer_cli.ir.constants import MappedConstant
from miniinfer_cli.ir.dims import evaluate
from miniinfer_cli.ir.text import NamedConstant, parse_graph
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
