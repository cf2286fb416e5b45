"""Regions in parts: what one kernel or library call takes of a body, and the rest as a region of its own behind it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.estimating import elements, nbytes
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import copy_node, copy_value, is_literal, leaving, reading
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types

POINTWISE = "FusedPointwise"


def claiming(site: Site, prefix: Sequence[Node], types: Types, tactics: Iterable[Tactic]) -> list[Tactic]:
    """The tactics, which compute ``prefix`` of the body of the site's region, as those of the region.

    Where that is a part, it is chosen for anew as a node of its own, of the region's name; the estimates are of both parts.
    ``types``: of the body's values.
    """
    body, claims = site.node.body, len(prefix)
    assert body is not None
    if claims == len(body):
        return [replace(t, claims=claims) for t in tactics]
    rest = _rest_estimate(body, prefix, types)

    def emit(work: Work) -> None:
        work.replace_by(split_region(site.node, prefix))

    return [replace(t, claims=claims, estimate=t.estimate + rest, emit=emit) for t in tactics]


def _rest_estimate(body: Graph, prefix: Sequence[Node], types: Types) -> Estimate:
    """What follows ``prefix`` as one pass over the elements: what it reads, and what leaves the body."""
    taken = set(prefix)
    rest = [n for n in body if n not in taken]
    read = [v for v in reading(rest) if not is_literal(v)]
    moved = sum(nbytes(types.get(v, v.type)) for v in (*read, *body.outputs))
    return Estimate(sum(elements(types.get(v, v.type)) for n in rest for v in n.outputs), moved)


def split_region(region: Node, prefix: Sequence[Node]) -> Graph:
    """The region as a graph of two nodes, for ``Rewrite``: ``prefix`` of its body first, then the rest as FusedPointwise.

    ``prefix`` is some of ``region.body``'s nodes in order, closed (``is_closed``) and not all of them. One node alone stands
    in the graph as itself, several as a region of the same operation as ``region``, which is lowered anew; so the lowering
    that splits must take a body of just these nodes whole. The graph's inputs are the region's; types are the body's.
    Raises ValueError when ``prefix`` is empty, everything, or not closed.
    """
    body = region.body
    if body is None or not prefix or len(prefix) >= len(body) or not is_closed(body, prefix):
        raise ValueError(f"cannot split {region!r} behind {[n.op for n in prefix]}")
    graph = Graph(region.op)
    outer = {v: graph.add_input(v.name, v.type) for v in body.inputs}
    taken = set(prefix)
    rest = [n for n in body if n not in taken]
    if len(prefix) == 1:
        copy_node(graph, prefix[0], outer)
    else:
        add_region(graph, region.op, prefix, leaving(body, prefix), outer, prefix[0].name)
    add_region(graph, POINTWISE, rest, leaving(body, rest), outer, rest[0].name)
    graph.set_outputs([outer[v] for v in body.outputs])
    return graph


def is_closed(body: Graph, prefix: Sequence[Node]) -> bool:
    """True when nothing that ``prefix`` makes is read outside of it but the one output of its last node."""
    taken = set(prefix)
    return len(prefix[-1].outputs) == 1 and leaving(body, prefix) == [prefix[-1].output] and _reads_no_other(body, taken)


def _reads_no_other(body: Graph, taken: set[Node]) -> bool:
    return all(v is None or v.producer is None or v.producer in taken for n in body if n in taken for v in n.inputs)


def add_region(
    graph: Graph, op: str, nodes: Sequence[Node], ends: Sequence[Value], outer: dict[Value, Value], name: str = ""
) -> list[Value]:
    """Adds ``nodes`` of a body to ``graph`` as one region, and returns its outputs: ``ends``, which they make or pass through.

    ``outer`` is the body's values as ``graph`` knows them; those that the nodes make are added. Constants of one element stay
    inside the region, where a generated kernel finds them as literals.
    """
    part = Graph(op)
    inner: dict[Value, Value] = {}
    operands = []
    for value in dict.fromkeys((*reading(nodes), *(v for v in ends if v.producer is None))):
        if is_literal(value):
            inner[value] = part.add_constant(value.constant, value.name)
        else:
            inner[value] = part.add_input(value.name, value.type)
            operands.append(copy_value(graph, value, outer))
    for node in nodes:
        copy_node(part, node, inner)
    part.set_outputs([inner[v] for v in ends])
    results = [graph.new_value(v.name, v.type) for v in ends]
    graph.add_node(op, operands, results, domain=OURS, name=name, body=part)
    outer.update((v, result) for v, result in zip(ends, results, strict=True) if v.producer is not None)
    return results
