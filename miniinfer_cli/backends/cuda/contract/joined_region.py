"""The graph of a join that is one region: its nodes as a body, of one operation of ours."""

from collections.abc import Collection, Sequence

from miniinfer_cli.backends.cuda.contract.join import label_of
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.reference import static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import copy_node, leaving, reading
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types


def as_region(
    graph: Graph, nodes: Sequence[Node], types: Types, target: Target, *, key: str, op: str, held: Collection[Value]
) -> tuple[Graph, Site] | None:
    """A graph called ``key`` of one node ``op``, whose body does what ``nodes`` do, and its site; None where a size is open.

    ``held``: constants that stand in the body and are no operands of the region. Regions among the nodes are taken apart.
    """
    joined, body = Graph(key), Graph(op)
    outer, ends = reading(nodes), leaving(graph, nodes)
    read = [v for v in outer if v not in held]
    kinds, results = [types.get(v, v.type) for v in read], [types[v] for v in ends]
    if any(static_tensor(t) is None for t in (*kinds, *results)):
        return None
    inner: dict[Value, Value] = {v: body.add_input(v.name, t) for v, t in zip(read, kinds, strict=True)}
    inner |= {v: body.add_constant(v.constant, v.name) for v in outer if v in held and v.constant is not None}
    for node in nodes:
        if node.body is None:
            copy_node(body, node, inner)
        else:
            given = [None if v is None else inner[v] for v in node.inputs]
            inner.update(zip(node.outputs, body.inline(node.body, given), strict=True))
    body.set_outputs([inner[v] for v in ends])
    given_by = {v: joined.add_input(v.name, types.get(v, v.type)) for v in outer}
    made = [joined.new_value(v.name, types[v]) for v in ends]
    region = joined.add_node(op, [given_by[v] for v in read], made, domain=OURS, name=label_of(nodes), body=body)
    joined.set_outputs(made)
    return joined, Site(region, tuple(kinds), tuple(results), tuple(v.constant for v in read), target)
