"""Graphs given as text on the emulated device, beside the references; and what their programs consist of."""

from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.program import CudaProgram, is_whole
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import Array, Graph, numpy_dtype
from miniinfer_cli.ops.interpreter import interpret
from tests.backends.cuda.live_memory import check_memory
from tests.backends.cuda.performing import perform_program
from tests.backends.nodes import assert_close
from tests.graph_text import typed_graph


def some(graph: Graph) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(v.tensor.shape).astype(numpy_dtype(v.tensor.dtype)) for v in graph.inputs]  # type: ignore[arg-type]


def run(text: str, target: Target | None = None, tolerance: float | None = None) -> CudaProgram:
    """The program of a graph on the emulated device, whose results are those of the references."""
    graph, target = typed_graph(text), target or Target(tf32=False)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    check_memory(program)
    given = some(graph)
    for got, want in zip(perform_program(program, given, target), interpret(graph, given), strict=True):
        assert_close(got, want, tolerance)
    return program


def kinds(program: CudaProgram) -> list[str]:
    return [s.kind for s in program.steps]


def views(program: CudaProgram) -> list[tuple[int, Any]]:
    """Offset and strides of the slots that are not whole buffers."""
    return [(s.offset, s.strides) for i, s in enumerate(program.slots) if not is_whole(program.slots, i)]
