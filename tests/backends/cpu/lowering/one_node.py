"""One node through its lowering on the CPU, beside its numpy reference; and that it was the lowering that did the work."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.cpu.program import CpuProgram
from miniinfer_cli.backends.cpu.routine import shape_of
from miniinfer_cli.ir import Graph, numpy_dtype
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
    n_outputs: int = 1,
    **attrs: Any,
) -> None:
    """The node's outputs as its reference gives them, by ``tactic``, on one thread and on three; no input is changed.

    ``constants`` are numbers of inputs that are weights. ``tactic`` is ``reference`` where the lowering is to refuse.
    """
    graph = make_graph(op, inputs, domain=domain, n_outputs=n_outputs, constants=constants, body=None, attrs=attrs)
    check_graph(graph, [a for i, a in enumerate(inputs) if a is not None and i not in constants], tactic, tolerance)


def check_graph(graph: Graph, inputs: Sequence[Any], tactic: str, tolerance: float | None = None) -> None:
    """The same of a graph of one node."""
    annotate(graph)
    with np.errstate(all="ignore"):
        wanted = interpret(graph, inputs)
    for threads in (1, 3):
        model = CpuModel(graph, threads)
        try:
            program = model.make_program([v.type for v in graph.inputs])
            assert [s.tactic for s in program.steps] == [tactic]
            kept = [a.copy() for a in inputs]
            context = model.make_context()
            for _ in range(2):  # what is made ready once serves again
                with np.errstate(all="ignore"):
                    results = context.execute(program, kept)
                for got, want in zip(results, wanted, strict=True):
                    assert_close(got, want, tolerance)
            assert all(a.tobytes() == k.tobytes() for a, k in zip(inputs, kept, strict=True)), "an input was changed"
            for got, want in zip(_made_ready_on_zeros(program, inputs), wanted, strict=True):
                assert_close(got, want, tolerance)
        finally:
            model.close()


def _made_ready_on_zeros(program: CpuProgram, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a step that was made ready before its inputs held what they hold: as in the arena of a context."""
    (step,) = program.steps
    if step.routine is None:
        return list(interpret(program.graph, inputs))
    there = [np.zeros_like(a, order="C") for a in inputs]
    slots = {**program.preset, **dict(zip(program.input_slots, there, strict=True))}
    outputs = [np.empty(shape_of(t), numpy_dtype(t.dtype)) for t in step.types if t is not None]
    scratch = np.full(step.routine.scratch_nbytes, 0x7F, np.uint8)
    with np.errstate(all="ignore"):
        call = step.routine.prepare([None if s is None else slots[s] for s in step.inputs], outputs, scratch)
        call()
        for array, value in zip(there, inputs, strict=True):
            np.copyto(array, value)
        scratch.fill(0x7F)
        call()
    return [outputs[step.outputs.index(s)] if s in step.outputs else slots[s] for s in program.output_slots]
