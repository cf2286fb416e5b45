"""The tactics of a node, listed: ``deciding`` takes one of them.

``tactics(site)`` opens no library and touches no device. Most operations have one way: their lowering gives it finished, and it
is the list. A family with several gives them in the order in which its heuristic would take them.
"""

import math

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.site import Site, find_lowering
from miniinfer_cli.backends.cuda.steps import Lowered, Rewrite
from miniinfer_cli.backends.cuda.tactic import Tactic
from miniinfer_cli.backends.cuda.types import element_nbytes
from miniinfer_cli.ir import Node, TensorType, Type

REWRITTEN = "rewritten"
"""The key of a lowering's answer that other nodes do the work."""


def tactics(site: Site) -> tuple[Tactic, ...]:
    """What can be done for a site, the heuristic's favourite first; none where its body or its expansion has to do.

    Raises OpenSize where a size depends on data, HostOnly for a type that no kernel takes, OverflowError for a number beyond
    what kernels take, and ModelError.
    """
    lower = find_lowering(site.node)
    answer = None if lower is None else lower(site)
    if answer is None:
        return ()
    if isinstance(answer, Lowered):
        return (Tactic(answer.tactic, lambda work: work.take(answer), default_estimate(site)),)
    if isinstance(answer, Rewrite):
        return (Tactic(REWRITTEN, lambda work: work.replace_by(answer.graph), default_estimate(site)),)
    return answer


def has_tactics(node: Node) -> bool:
    """True when there is a lowering for the node's operation, whatever it says to the node."""
    return find_lowering(node) is not None


def default_estimate(site: Site) -> Estimate:
    """Every operand read and every result written once, and one operation of each node for an element of the results."""
    results = sum(_elements(t) for t in site.results)
    nodes = 1 if site.node.body is None else len(site.node.body)
    return Estimate(results * nodes, sum(_nbytes(t) for t in (*site.types, *site.results)))


def _elements(type: Type | None) -> int:
    if not isinstance(type, TensorType) or type.shape is None:
        return 0
    return math.prod(n for n in type.shape if isinstance(n, int))


def _nbytes(type: Type | None) -> int:
    return _elements(type) * element_nbytes(type.dtype) if isinstance(type, TensorType) else 0
