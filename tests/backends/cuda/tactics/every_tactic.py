"""Every tactic of a node, forced one after the other: each must do the work, and do it right."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.deciding import objection
from miniinfer_cli.backends.cuda.choice.forcing import expect_forced
from miniinfer_cli.backends.cuda.choice.signature import signature
from miniinfer_cli.backends.cuda.choice.tactics import tactics
from miniinfer_cli.backends.cuda.contract.program import DeviceStep
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.tactic import REWRITTEN, Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Array, Graph
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret
from tests.backends.cuda.harness import input_types, program_of
from tests.backends.cuda.performing import perform_program
from tests.backends.nodes import assert_close, make_graph


def check_every_tactic(
    op: str,
    *inputs: Any,
    target: Target,
    tolerance: float | None = None,
    domain: str = "",
    n_outputs: int = 1,
    constants: Sequence[int] = (),
    **attrs: Any,
) -> list[str]:
    """Checks a node of one operation, and gives the keys that its site offers and the target lets it take, in their order."""
    graph = make_graph(op, inputs, domain=domain, n_outputs=n_outputs, constants=constants, body=None, attrs=attrs)
    return check_graph([a for i, a in enumerate(inputs) if a is not None and i not in constants], graph, target, tolerance)


def check_graph(inputs: Sequence[Array], graph: Graph, target: Target, tolerance: float | None = None) -> list[str]:
    """The same for a graph of one node, which may be a region."""
    (node,) = graph
    keys = list(dict.fromkeys(t.key for t in offered(graph, inputs, target)))
    assert keys, "nothing is offered"
    want = interpret(graph, list(inputs))
    for key in keys:
        forced = replace(target, policy=Policy(forced={node.name: key}))
        program = program_of(graph, inputs, forced)
        done = [s.tactic for s in program.steps if isinstance(s, DeviceStep)]
        expect_forced(program, forced.policy)
        assert key in done or (key == REWRITTEN and node.name in program.replaced), (
            f"{key!r} was forced, the work is done by {done}"
        )
        for g, w in zip(perform_program(program, inputs, forced), want, strict=True):
            try:
                assert_close(g, w, tolerance)
            except AssertionError as error:
                error.add_note(f"by {key!r}")
                raise
    return keys


def offered(graph: Graph, inputs: Sequence[Array], target: Target) -> list[Tactic]:
    """What the site of the graph's one node offers, and the target lets it take."""
    (node,) = graph
    types = infer_graph(graph, input_types(graph, inputs))
    operands = tuple(None if v is None else types.get(v, v.type) for v in node.inputs)
    handles = tuple(None if v is None else v.constant for v in node.inputs)
    site = Site(node, operands, tuple(types[v] for v in node.outputs), handles, target)
    return [t for t in tactics(site) if not objection(t, target, lambda: signature(site))]
