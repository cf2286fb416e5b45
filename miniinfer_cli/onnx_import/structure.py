"""The names of an ONNX graph: what a sub-graph reads from outside, and an order in which every name is made before use."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx

from miniinfer_cli.errors import ModelError
from miniinfer_cli.onnx_import.attributes import is_graph
from miniinfer_cli.onnx_import.faults import Faults


def subgraphs_of(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The sub-graphs of a node with the attributes that hold them."""
    for attribute in node.attribute:
        if is_graph(attribute):
            if attribute.graphs:
                raise ModelError(f"attribute {attribute.name!r} is a list of graphs, which no known operation has")
            yield attribute.name, attribute.g


def nodes_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of their sub-graphs at any depth."""
    pending = [iter(nodes)]
    while pending:
        node = next(pending[-1], None)
        if node is None:
            pending.pop()
            continue
        yield node
        pending += [iter(g.node) for a in node.attribute if is_graph(a) for g in (a.g, *a.graphs)]


def outer_names(graph: onnx.GraphProto) -> list[str]:
    """The names that ``graph`` reads and does not make itself, in order of first use; those of its sub-graphs included."""
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    own.update(name for node in graph.node for name in node.output)
    read = [name for node in graph.node for name in names_read(node)] + [v.name for v in graph.output]
    return [name for name in dict.fromkeys(read) if name and name not in own]


def names_read(node: onnx.NodeProto) -> list[str]:
    """The names that a node reads, for itself and for its sub-graphs; "" where it leaves an input out."""
    names = list(node.input)
    for attribute in node.attribute:
        if is_graph(attribute):
            names += [name for graph in (attribute.g, *attribute.graphs) for name in outer_names(graph)]
    return names


def in_order(
    nodes: Sequence[onnx.NodeProto], is_given: Callable[[str], bool], place: Callable[[onnx.NodeProto], str], faults: Faults
) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """The nodes in an order in which producers stand before readers, and those that cannot stand anywhere.

    ``is_given`` tells the names that exist before the first node. Notes as faults a name that is made twice and a cycle;
    a name that nothing makes is left for the reader to find.
    """
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if not name:
                continue
            if name in makers:
                faults.add(place(node), ModelError(f"makes {name!r}, which {place(nodes[makers[name]])} makes already"))
            elif is_given(name):
                faults.add(place(node), ModelError(f"makes {name!r}, which is an input or an initializer"))
            else:
                makers[name] = index
    waits = [{makers[name] for name in names_read(node) if name in makers} for node in nodes]
    if all(not w or max(w) < index for index, w in enumerate(waits)):
        return list(nodes), []
    stuck = _stuck(waits)
    order = list(_sorted(waits, stuck))
    if stuck:
        cycle = _cycle(min(stuck), waits, stuck)
        path = " -> ".join(repr(nodes[i].name or nodes[i].output[0]) for i in _shown((*cycle, cycle[0])))
        faults.add(place(nodes[cycle[0]]), ModelError(f"is part of a cycle: {path}"))
    return [nodes[i] for i in order], [nodes[i] for i in sorted(stuck)]


def _stuck(waits: Sequence[set[int]]) -> set[int]:
    """Indices of a cycle, or of what waits for one."""
    readers: list[list[int]] = [[] for _ in waits]
    missing = [len(w) for w in waits]
    for index, wanted in enumerate(waits):
        for producer in wanted:
            readers[producer].append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    for index in ready:  # grows
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    return set(range(len(waits))).difference(ready)


def _sorted(waits: Sequence[set[int]], stuck: set[int]) -> Iterator[int]:
    """Indices in an order that respects ``waits``, as near to the given one as that allows; without those that are stuck."""
    done = set(stuck)
    for root in range(len(waits)):
        stack = [root]
        while stack:
            index = stack[-1]
            if index in done:
                stack.pop()
                continue
            missing = sorted(waits[index] - done, reverse=True)
            if missing:
                stack += missing
                continue
            stack.pop()
            done.add(index)
            yield index


def _cycle(start: int, waits: Sequence[set[int]], stuck: set[int]) -> list[int]:
    """Indices around a cycle that ``start`` waits for, each before the one that reads it."""
    path = [start]
    place = {start: 0}
    while True:
        following = min(waits[path[-1]] & stuck)
        if following in place:
            around = path[place[following] :][::-1]
            first = around.index(min(around))
            return around[first:] + around[:first]
        place[following] = len(path)
        path.append(following)


_SHOWN = 12  # nodes of a cycle that its fault names


def _shown(cycle: Sequence[int]) -> Sequence[int]:
    """Of a long cycle the last nodes, which end where they began."""
    return cycle if len(cycle) <= _SHOWN else cycle[-_SHOWN:]
