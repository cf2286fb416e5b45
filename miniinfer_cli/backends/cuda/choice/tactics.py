"""The tactics of a node, listed: ``deciding`` takes one of them.

``tactics(site)`` opens no library and touches no device. Most operations have one way: their lowering gives it finished, and it
is the list. A family with several gives them in the order in which its heuristic would take them.
"""

from miniinfer_cli.backends.cuda.contract.estimating import default_estimate
from miniinfer_cli.backends.cuda.contract.site import Site, find_lowering
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Rewrite
from miniinfer_cli.backends.cuda.contract.tactic import REWRITTEN, Tactic
from miniinfer_cli.ir import Node


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
        return (Tactic(answer.tactic, lambda work: work.take(answer), answer.estimate or default_estimate(site)),)
    if isinstance(answer, Rewrite):
        return (Tactic(REWRITTEN, lambda work: work.replace_by(answer.graph), default_estimate(site)),)
    return answer


def has_tactics(node: Node) -> bool:
    """True when there is a lowering for the node's operation, whatever it says to the node."""
    return find_lowering(node) is not None
