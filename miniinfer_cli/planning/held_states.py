"""The states of a graph as values, and the nodes that may write new rows into the state itself."""

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Graph, Node, Type, Value
from miniinfer_cli.wording import Wording


def state_values(graph: Graph) -> tuple[tuple[Value, Value], ...]:
    """For each pair of the graph's states the input and the output, in order; nothing for a graph without states."""
    if graph.states is None:
        return ()
    inputs = {v.name: v for v in graph.inputs}
    outputs = dict(zip(graph.output_names, graph.outputs, strict=True))
    return tuple((inputs[p.past], outputs[p.present]) for p in graph.states.pairs)


def changed_type(past: Type | None, present: Type | None) -> ModelError:
    """The error that a state is no longer what it was: the output's type is another one than the input's."""
    same = "give inputs for which both are the same; a cache that grows wants"
    hint = Wording(f"{same} kv_cache=ROWS where the plan is built", flags=f"{same} --kv-cache ROWS where the plan is built")
    return ModelError(f"a state changes its type: the output is {present}, the state {past}", hint=hint)


def appending_nodes(graph: Graph) -> frozenset[Node]:
    """The nodes that write rows into a cache which nobody else reads as it was before, and whose result is the cache afterwards.

    Whoever runs the graph may let them write into the state: rows that count stay as they are. A node that looks at the shape of
    the cache alone does not read it.
    """
    if graph.states is None:
        return frozenset()
    found: set[Node] = set()
    for pair, (past, present) in zip(graph.states.pairs, state_values(graph), strict=True):
        node = present.producer
        readers = [n for n in past.users if not n.is_op("Shape", "Size")]
        if pair.axis is None or node is None or not node.is_op("TensorScatter") or readers != [node]:
            continue
        rank = present.tensor.rank if present.type is not None else None
        is_linear = node.attrs.get("mode", "linear") == "linear"
        own_axis = rank is not None and node.attrs.get("axis", -2) % rank == pair.axis
        if node.inputs[0] is past and past not in node.inputs[1:] and is_linear and own_axis and not graph.is_output(past):
            found.add(node)
    return frozenset(found)
