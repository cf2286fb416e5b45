"""One node through its lowering and the emulated device, beside its numpy reference; and who did the work."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.reference import kind_of
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Type, dtype_of
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.registry import lookup
from tests.backends.cuda.performing import perform_program
from tests.backends.nodes import assert_close, make_graph, reference


def run_op(
    op: str,
    *inputs: Any,
    domain: str = "",
    n_outputs: int = 1,
    target: Target | None = None,
    constants: Sequence[int] = (),
    body: Graph | None = None,
    by: str = "",
    instead: Collection[str] | None = None,
    **attrs: Any,
) -> list[Array]:
    """The node's outputs by its own lowering, on the emulated device. Inputs are arrays, None where left out.

    ``constants`` are numbers of inputs that are weights (the lowering sees their handles). Small integer inputs of shape
    operands are known to the lowering, as they are in a program. ``by`` and ``instead`` say who does it: ``check_program``.
    """
    graph = make_graph(op, inputs, domain=domain, n_outputs=n_outputs, constants=constants, body=body, attrs=attrs)
    given = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
    target = target or Target()
    program = program_of(graph, given, target)
    check_program(program, by=by, instead=instead)
    return _perform(program, given, target)


def check_op(op: str, *inputs: Any, tolerance: float | None = None, domain: str = "", n_outputs: int = 1, **options: Any) -> None:
    """Both ways, compared: exactly for integers and bools, within ``tolerance`` (by type when left out) for floats.

    The node's own lowering must have done the work, by the tactic ``by`` where that is given; what is meant to be done by other
    nodes says ``instead`` (``check_program``).
    """
    attrs = {k: v for k, v in options.items() if k not in ("target", "constants", "body", "by", "instead")}
    got = run_op(op, *inputs, domain=domain, n_outputs=n_outputs, **options)
    want = reference(op, *inputs, domain=domain, n_outputs=n_outputs, **attrs)
    for g, w in zip(got, want, strict=True):
        assert_close(g, w, tolerance)


def check_program(program: CudaProgram, *, by: str = "", instead: Collection[str] | None = None) -> None:
    """Raises AssertionError unless the program of one node does what its test is about.

    By default a step is of the node's own kind, so its lowering did the work, and not its body, its expansion or the host. With
    ``by`` such a step has a tactic that begins so. With ``instead`` no step is of the node's kind, and some are of each of
    these; an empty ``instead`` means that there are no steps, since all is known while the program is made.
    """
    (node,) = program.graph
    own = kind_of(node)
    done = [(s.kind, s.tactic) for s in program.steps if not (isinstance(s, DeviceStep) and s.kind == "Copy")]
    if instead is not None:
        kinds = {kind for kind, _ in done}
        fits = own not in kinds and kinds >= set(instead) if instead else not kinds
        assert fits, f"{own} is done by {done}, not by {sorted(instead)}"
        return
    assert any(kind == own and tactic.startswith(by) for kind, tactic in done), (
        f"{own} is not done by its own lowering{f' as {by!r}' if by else ''}, but by {done}"
    )


def program_of(graph: Graph, inputs: Sequence[Array], target: Target) -> CudaProgram:
    """The program for these inputs; those that a node reads as a shape are known to it."""
    with np.errstate(all="ignore"):
        return make_program(graph, input_types(graph, inputs), target)


def input_types(graph: Graph, inputs: Sequence[Array]) -> list[Type | None]:
    """The types of these inputs; the contents of those that a node reads as a shape are known."""
    shape_operands = {v for n in graph for i in _shape_operands(n) if i < len(n.inputs) and (v := n.inputs[i]) is not None}
    return [
        TensorType(dtype_of(a), a.shape, a if v in shape_operands else None) for v, a in zip(graph.inputs, inputs, strict=True)
    ]


def run_graph(
    graph: Graph, inputs: Sequence[Array], target: Target, *, by: str = "", instead: Collection[str] | None = None
) -> list[Array]:
    """The outputs of a graph by its program; no step is the host's. A graph of one node: see ``check_program``."""
    program = program_of(graph, inputs, target)
    if len(graph.nodes) == 1:
        check_program(program, by=by, instead=instead)
    return _perform(program, inputs, target)


def checked_kinds(graph: Graph, inputs: Sequence[Array], target: Target, tolerance: float | None = None) -> list[str]:
    """The kinds of the steps of a graph, which give what the references give: compared as by ``check_op``."""
    program = program_of(graph, inputs, target)
    with np.errstate(all="ignore"):
        wanted = interpret(graph, inputs)
    for got, want in zip(_perform(program, inputs, target), wanted, strict=True):
        assert_close(got, want, tolerance)
    return [s.kind for s in program.steps]


def _perform(program: CudaProgram, inputs: Sequence[Array], target: Target) -> list[Array]:
    with np.errstate(all="ignore"):
        return perform_program(program, inputs, target)


def _shape_operands(node: Node) -> tuple[int, ...]:
    return () if node.body is not None else lookup(node.domain, node.op).shape_operands
