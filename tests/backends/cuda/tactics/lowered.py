"""What the lowering of one node gives, unperformed, for tests of its launches and hints."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.choice.deciding import lower
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Rewrite
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Graph
from miniinfer_cli.ops.inference import infer_graph
from tests.backends.nodes import make_graph


def lower_op(
    op: str,
    *inputs: Any,
    domain: str = "",
    n_outputs: int = 1,
    constants: Sequence[int] = (),
    body: Graph | None = None,
    **attrs: Any,
) -> Lowered | Rewrite | None:
    """The work of the tactic chosen for a node of these inputs, given as arrays; it sees the contents of ``constants`` alone."""
    graph = make_graph(op, inputs, domain=domain, n_outputs=n_outputs, constants=constants, body=body, attrs=attrs)
    (node,) = graph.nodes
    types = infer_graph(graph, [v.type for v in graph.inputs])
    operands = tuple(None if v is None else types.get(v, v.type) for v in node.inputs)
    site = Site(
        node,
        operands,
        tuple(types[v] for v in node.outputs),
        tuple(None if v is None else v.constant for v in node.inputs),
        Target(),
    )
    with np.errstate(all="ignore"):
        decided = lower(site)
    return None if decided is None else decided.work
