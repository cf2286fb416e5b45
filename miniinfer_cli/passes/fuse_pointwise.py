"""Chains and small graphs of elementwise operations of one shape -> region FusedPointwise, with one output or several."""

from dataclasses import dataclass

from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.passes.operands import dims, is_pointwise
from miniinfer_cli.passes.regions import make_region

LABEL = "FusedPointwise"
# What one generated kernel may hold; beyond these registers and kernel arguments run out.
MOST_NODES = 64
MOST_INPUTS = 16
MOST_OUTPUTS = 6


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
    members: int  # the bits of the nodes
    reach: int  # the bits of all nodes that some member depends on, members included


class _Clusters:
    """Groups fusible nodes greedily, in graph order, without making a cycle.

    Each node has a bit. ``reach`` of a node is the set of bits it depends on; all members of a cluster share the
    cluster's, because once it is one node each of its outputs waits for all of its inputs.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.bit = {node: 1 << i for i, node in enumerate(self.nodes)}
        self.reach: dict[Node, int] = {}
        self.cluster_of: dict[Node, _Cluster] = {}
        for node in self.nodes:
            reach = self.bit[node]
            for value in node.inputs:
                if value is not None and value.producer is not None:
                    reach |= self.reach[value.producer]
            self.reach[node] = reach

    def grow(self) -> list[_Cluster]:
        """Every cluster, single nodes included."""
        clusters: dict[_Cluster, None] = {}
        for node in self.nodes:
            if not _is_fusible(node):
                continue
            own = _Cluster([node], self.bit[node], self.reach[node])
            self.cluster_of[node] = own
            clusters[own] = None
            # The latest first: the others may hang together with it only through this node.
            for other in self._read_by(node):
                if self._may_merge(other, own):
                    del clusters[other]
                    self._merge(other, own)
        return list(clusters)

    def _read_by(self, node: Node) -> list[_Cluster]:
        """The clusters whose results ``node`` reads, the latest first."""
        producers = {v.producer for v in node.inputs if v is not None and v.producer is not None}
        found = {self.cluster_of[p]: None for p in producers if p in self.cluster_of}
        return sorted(found, key=lambda c: -c.members.bit_length())

    def _may_merge(self, a: _Cluster, b: _Cluster) -> bool:
        nodes = [*a.nodes, *b.nodes]
        if len(nodes) > MOST_NODES or dims(a.nodes[0].output) != dims(b.nodes[0].output):
            return False
        inputs = _external_inputs(nodes)
        if len(inputs) > MOST_INPUTS or self._count_outputs(nodes) > MOST_OUTPUTS:
            return False
        # What comes from outside must not depend on a member: a path would leave the cluster and come back.
        members = a.members | b.members
        return not any(v.producer is not None and self.reach[v.producer] & members for v in inputs)

    def _count_outputs(self, nodes: list[Node]) -> int:
        inside = set(nodes)
        return sum(self.graph.is_output(n.output) or any(u not in inside for u in n.output.users) for n in nodes)

    def _merge(self, a: _Cluster, b: _Cluster) -> None:
        """``b`` takes over the nodes of ``a``, all of which stand before its own or are independent of them."""
        b.nodes = sorted([*a.nodes, *b.nodes], key=self.bit.__getitem__)
        b.members |= a.members
        b.reach |= a.reach
        for node in a.nodes:
            self.cluster_of[node] = b
        self._spread(b.nodes, b.reach)

    def _spread(self, nodes: list[Node], reach: int) -> None:
        """All that depends on ``nodes`` depends on ``reach`` as well."""
        stack = list(nodes)
        while stack:
            node = stack.pop()
            if self.reach[node] | reach == self.reach[node]:
                continue
            self.reach[node] |= reach
            cluster = self.cluster_of.get(node)
            if cluster is not None and cluster.reach | reach != cluster.reach:  # else its nodes are on the way already
                cluster.reach |= reach
                stack.extend(cluster.nodes)
            stack.extend(u for v in node.outputs for u in v.users)


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
