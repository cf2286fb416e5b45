"""One node through its lowering on the CPU, beside its numpy reference; and that it was the lowering that did the work."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops.inference import annotate
from miniinfer_cli.ops.interpreter import interpret
from tests.backends.nodes import assert_close, make_graph


def check_op(
    op: str,
    *inputs: Any,
    tactic: str,
    domain: str = "",
    constants: Sequence[int] = (),
    tolerance: float | None = None,
    **attrs: Any,
) -> None:
    """The node's output as its reference gives it, by ``tactic``, on one thread and on three; no input is changed.

    ``constants`` are numbers of inputs that are weights. ``tactic`` is ``reference`` where the lowering is to refuse.
    """
    graph = make_graph(op, inputs, domain=domain, n_outputs=1, constants=constants, body=None, attrs=attrs)
    check_graph(graph, [a for i, a in enumerate(inputs) if a is not None and i not in constants], tactic, tolerance)


def check_graph(graph: Graph, inputs: Sequence[Any], tactic: str, tolerance: float | None = None) -> None:
    """The same of a graph of one node."""
    annotate(graph)
    with np.errstate(all="ignore"):
        (want,) = interpret(graph, inputs)
    for threads in (1, 3):
        model = CpuModel(graph, threads)
        try:
            program = model.make_program([v.type for v in graph.inputs])
            assert [s.tactic for s in program.steps] == [tactic]
            kept = [a.copy() for a in inputs]
            with np.errstate(all="ignore"):
                (got,) = model.make_context().execute(program, kept)
            assert_close(got, want, tolerance)
            assert all(a.tobytes() == k.tobytes() for a, k in zip(inputs, kept, strict=True)), "an input was changed"
        finally:
            model.close()
