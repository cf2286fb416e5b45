"""The cheapest way to divide things into two sides, where each group of things costs its weight when it is divided.

Sides, groups and weights make a hypergraph; the cheapest division is its minimum cut, found by maximum flow (Dinic).
Source: Lawler, Cutsets and partitions of hypergraphs, 1973.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence

_UNBOUNDED = 1 << 62


def divide(
    groups: Iterable[tuple[int, Sequence[Hashable]]], first: Iterable[Hashable], last: Iterable[Hashable]
) -> set[Hashable]:
    """The things to put on the side of ``first``; everything else is on the side of ``last``.

    ``groups`` are (weight, members). The sum of the weights of the groups with members on both sides is the least
    possible; among equally cheap divisions the one with the fewest things on the first side is taken.
    """
    network = _Network()
    source, sink = network.node(("source",)), network.node(("sink",))
    for number, (weight, members) in enumerate(groups):
        entry, exit = network.node(("in", number)), network.node(("out", number))
        network.edge(entry, exit, weight)
        for member in set(members):
            node = network.node(("thing", member))
            network.edge(node, entry, _UNBOUNDED)
            network.edge(exit, node, _UNBOUNDED)
    for thing in first:
        network.edge(source, network.node(("thing", thing)), _UNBOUNDED)
    for thing in last:
        network.edge(network.node(("thing", thing)), sink, _UNBOUNDED)
    levels = network.saturate(source, sink)
    return {key[1] for key, node in network.numbers.items() if key[0] == "thing" and levels[node] >= 0}


class _Network:
    """A flow network; an edge and its reverse stand next to each other (e and e ^ 1)."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[Hashable, ...], int] = {}
        self.edges: list[list[int]] = []  # by node
        self.target: list[int] = []  # by edge
        self.capacity: list[int] = []

    def node(self, key: tuple[Hashable, ...]) -> int:
        if key not in self.numbers:
            self.numbers[key] = len(self.edges)
            self.edges.append([])
        return self.numbers[key]

    def edge(self, start: int, end: int, capacity: int) -> None:
        for a, b, c in ((start, end, capacity), (end, start, 0)):
            self.edges[a].append(len(self.target))
            self.target.append(b)
            self.capacity.append(c)

    def saturate(self, source: int, sink: int) -> list[int]:
        """Sends all the flow that fits; gives the distance of each node from the source over what is left, -1 for none."""
        while True:
            levels = self._levels(source)
            if levels[sink] < 0:
                return levels
            upcoming = [0] * len(self.edges)
            while self._push(source, sink, levels, upcoming):
                pass

    def _levels(self, source: int) -> list[int]:
        levels = [-1] * len(self.edges)
        levels[source] = 0
        queue = deque([source])
        while queue:
            node = queue.popleft()
            for edge in self.edges[node]:
                if self.capacity[edge] and levels[self.target[edge]] < 0:
                    levels[self.target[edge]] = levels[node] + 1
                    queue.append(self.target[edge])
        return levels

    def _push(self, source: int, sink: int, levels: list[int], upcoming: list[int]) -> bool:
        """Sends flow along one shortest path, without recursion: a path may be as long as the model is deep."""
        path: list[int] = []
        node = source
        while node != sink:
            edge = self._next_edge(node, levels, upcoming)
            if edge is not None:
                path.append(edge)
                node = self.target[edge]
            elif path:
                node = self.target[path.pop() ^ 1]
                upcoming[node] += 1
            else:
                return False
        amount = min(self.capacity[e] for e in path)
        for edge in path:
            self.capacity[edge] -= amount
            self.capacity[edge ^ 1] += amount
        return True

    def _next_edge(self, node: int, levels: list[int], upcoming: list[int]) -> int | None:
        edges = self.edges[node]
        while upcoming[node] < len(edges):
            edge = edges[upcoming[node]]
            if self.capacity[edge] and levels[self.target[edge]] == levels[node] + 1:
                return edge
            upcoming[node] += 1
        return None
