"""Chains and small graphs of elementwise operations of one shape -> region FusedPointwise, with one output or several."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.regions import make_region

LABEL = "FusedPointwise"
# What one generated kernel may hold; beyond these registers and kernel arguments run out.
MOST_NODES = 64
MOST_INPUTS = 16
MOST_OUTPUTS = 6


# How many groups the search for cycles may visit for each node of the graph, all told; what is not found by then stays apart.
_MOST_VISITS = 256


def fuse_pointwise(graph: Graph) -> int:
    """Gives the number of regions made."""
    clusters = _Clusters(graph)
    made = [c for c in clusters.grow() if len(c.nodes) > 1]
    for cluster in made:
        make_region(graph, LABEL, cluster.nodes)
    if made:
        graph.sort()  # a reader of an early output may have stood before the last node of its region
    return len(made)


@dataclass(eq=False, slots=True)
class _Cluster:
    nodes: list[Node]  # in graph order
    rank: int  # unique; clusters with greater ranks depend on those with smaller ones, never the other way round


class _Clusters:
    """Groups fusible nodes greedily, in graph order, without making a cycle.

    Every node is in a cluster, which is one node in the end: its outputs wait for all of its inputs. The clusters are kept in
    topological order by their ranks. A merge exchanges the ranks of those alone that lie between the two and hang together with
    one of them (the method of Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic graphs", 2006).
    """

    def __init__(self, graph: Graph) -> None:
        self._nodes = graph.nodes
        self._position = {node: i for i, node in enumerate(self._nodes)}
        self._cluster_of = {node: _Cluster([node], i) for node, i in self._position.items()}
        returned = set(map(id, graph.outputs))
        # Of each node: how many nodes outside its cluster read its first result; the graph's own outputs are one more.
        self._outside = {n: len(n.outputs[0].users) + (id(n.outputs[0]) in returned) for n in self._nodes if n.outputs}
        self._visits = _MOST_VISITS * len(self._nodes)

    def grow(self) -> list[_Cluster]:
        """Every cluster of fusible nodes, single ones included."""
        clusters: dict[_Cluster, None] = {}
        for node in self._nodes:
            if not _is_fusible(node):
                continue
            own = self._cluster_of[node]
            clusters[own] = None
            if _inputs(node) > MOST_INPUTS + MOST_NODES:  # no cluster makes so many of them
                continue
            # The latest first: the others may hang together with it only through this node.
            for other in self._read_by(node, clusters):
                if self._merge(other, own):
                    del clusters[other]
        return list(clusters)

    def _read_by(self, node: Node, clusters: Collection[_Cluster]) -> list[_Cluster]:
        """The clusters of fusible nodes whose results ``node`` reads, the latest first."""
        producers = {v.producer for v in node.inputs if v is not None and v.producer is not None}
        found = {self._cluster_of[p]: None for p in producers}
        return sorted((c for c in found if c in clusters), key=lambda c: -self._position[c.nodes[-1]])

    def _merge(self, a: _Cluster, b: _Cluster) -> bool:
        """``b`` takes over the nodes of ``a``, some of which it reads, where it may."""
        nodes = [*a.nodes, *b.nodes]
        if len(nodes) > MOST_NODES or dims(a.nodes[0].output) != dims(b.nodes[0].output):
            return False
        if len(_external_inputs(nodes)) > MOST_INPUTS:
            return False
        fewer = self._readers_within(a, b)
        if sum(self._outside[n] > fewer.get(n, 0) for n in nodes) > MOST_OUTPUTS:
            return False
        ranks = self._ranks_of_one(a, b)
        if ranks is None:
            return False
        for cluster, rank in ranks.items():
            cluster.rank = rank
        b.nodes = sorted(nodes, key=self._position.__getitem__)
        for node in a.nodes:
            self._cluster_of[node] = b
        for node, count in fewer.items():
            self._outside[node] -= count
        return True

    def _readers_within(self, a: _Cluster, b: _Cluster) -> dict[Node, int]:
        """By node of either cluster, how many nodes of the other one read it."""
        found: dict[Node, int] = {}
        # A single node stands behind all of the other cluster, none of which can read it.
        for reading, read in ((b, a),) if len(b.nodes) == 1 else ((a, b), (b, a)):
            for node in reading.nodes:
                for producer in {v.producer for v in node.inputs if v is not None}:
                    if producer is not None and self._cluster_of[producer] is read:
                        found[producer] = found.get(producer, 0) + 1
        return found

    def _ranks_of_one(self, a: _Cluster, b: _Cluster) -> dict[_Cluster, int] | None:
        """The ranks that change when ``b`` stands for both. What it depends on has to be before it, what depends on ``a`` behind.

        None where a cluster between them is both, so that the one would wait for itself; and where the search goes on too long.
        """
        before, behind = _Search(b, self._read_from, a), _Search(a, self._readers_of, b)
        while not (before.is_over or behind.is_over):
            before.go_on()
            behind.go_on()
            self._visits -= 2
            if self._visits < 0:
                return None
        if before.is_over and not before.found:
            return {b: a.rank}
        if behind.is_over and not behind.found:
            return {}
        for search in (before, behind):
            while not search.is_over:
                search.go_on()
                self._visits -= 1
                if self._visits < 0:
                    return None
        if before.found & behind.found:
            return None
        first, last = sorted(before.found, key=_rank), sorted(behind.found, key=_rank)
        ranks = sorted(c.rank for c in (*first, b, *last))
        return dict(zip((*first, b, *last), ranks, strict=True))

    def _read_from(self, cluster: _Cluster) -> Iterator[_Cluster]:
        values = (v for n in cluster.nodes for v in n.inputs if v is not None)
        return (self._cluster_of[v.producer] for v in values if v.producer is not None)

    def _readers_of(self, cluster: _Cluster) -> Iterator[_Cluster]:
        return (self._cluster_of[u] for n in cluster.nodes for v in n.outputs for u in v.users)


class _Search:
    """What is reached from ``start`` and ranks between it and ``end``, looked for one edge at a time."""

    def __init__(self, start: _Cluster, following: Callable[[_Cluster], Iterator[_Cluster]], end: _Cluster) -> None:
        self.found: set[_Cluster] = set()
        self.is_over = False
        self._low, self._high = sorted((start.rank, end.rank))
        self._following = following
        self._stack = [following(start)]

    def go_on(self) -> None:
        """Looks at one edge more."""
        cluster = next(self._stack[-1], None) if self._stack else None
        if cluster is None:
            if self._stack:
                self._stack.pop()
            self.is_over = not self._stack
        elif self._low < cluster.rank < self._high and cluster not in self.found:
            self.found.add(cluster)
            self._stack.append(self._following(cluster))


def _rank(cluster: _Cluster) -> int:
    return cluster.rank


def _inputs(node: Node) -> int:
    """How many values a node reads, each once."""
    return len(set(map(id, node.inputs)))


def _is_fusible(node: Node) -> bool:
    """Elementwise on tensors of numbers; shape arithmetic is left alone, for it is done on the host and ahead of time."""
    if not is_pointwise(node) or len(node.outputs) != 1 or node.graphs:
        return False
    types = [v.type for v in (*node.inputs, *node.outputs) if v is not None]
    if not all(isinstance(t, TensorType) and t.dtype is not DType.STR for t in types):
        return False
    return dims(node.output) is not None and node.output.tensor.known is None


def _external_inputs(nodes: list[Node]) -> set[Value]:
    inside = set(nodes)
    return {v for n in nodes for v in n.inputs if v is not None and v.producer not in inside}
