"""Which nodes of the model each node of a graph came from, kept through edits. For Graph alone."""

from collections.abc import Iterable

from miniinfer_cli.ir.node import Node


class Lineage:
    """The origins of a graph's nodes: what takes a node's place has them, and those of what only that node read.

    No origin is lost while anything takes its place, and none is handed on that another node still has: what passes put between
    nodes and take away again (Transposes, say) leaves nothing behind.
    """

    def __init__(self) -> None:
        self._holders: dict[str, int] = {}  # how many nodes have an origin
        self._without: dict[Node, None] = {}  # nodes that were made with no origins

    def enter(self, node: Node, origins: Iterable[str]) -> None:
        """A node was added."""
        self.hold(node, origins)
        if not node._origins:
            self._without[node] = None

    def hold(self, node: Node, origins: Iterable[str]) -> None:
        """Adds to the origins of a node."""
        for name in origins:
            if name not in node._origins:
                node._origins[name] = None
                self._holders[name] = self._holders.get(name, 0) + 1

    def replace(self, old: Node, new: Node) -> None:
        """What read ``old`` reads ``new``. What was made on the way to that, and has no origins, has those of ``old`` now."""
        old._heir = new
        pending = [new] if old._origins else []
        while pending:
            node = pending.pop()
            if node is not old and not node._origins and node in self._without:
                self.hold(node, old._origins)
                pending += [v.producer for v in node.inputs if v is not None and v.producer is not None]

    def leave(self, node: Node) -> None:
        """A node is about to go. Of its origins, those that no other node has pass on to what took its place.

        So will those of nodes whose results only it read, when they go, too. Where what takes its place computes nothing (a
        constant, an input), they are lost.
        """
        heir = _heir_of(node)
        if heir is not None:
            self.hold(heir, [name for name in node._origins if self._holders[name] == 1])
            for producer in {v.producer for v in node.inputs if v is not None}:
                if producer is not None and producer is not heir and _is_read_by_none_but(node, producer):
                    producer._heir = heir
        self.forget(node)

    def forget(self, node: Node) -> None:
        """A node goes, with its origins: it is computed ahead."""
        self._without.pop(node, None)
        for name in node._origins:
            self._holders[name] -= 1

    def settle(self) -> None:
        """Gives nodes that were made with no origins those of the nodes that read them, else of those that they read."""
        waiting = [n for n in self._without if not n._origins]
        for node in reversed(waiting):
            self.hold(node, [o for v in node.outputs for reader in v._uses for o in reader._origins])
        for node in waiting:
            if not node._origins:
                read = [v.producer for v in node.inputs if v is not None and v.producer is not None]
                self.hold(node, [o for producer in read for o in producer._origins])
        self._without = {n: None for n in waiting if not n._origins}


def _heir_of(node: Node) -> Node | None:
    """What stands in the node's place, and is still in its graph; None without such a node."""
    heir, seen = node._heir, {node}
    while heir is not None and heir.graph is not node.graph and heir not in seen:
        seen.add(heir)
        heir = heir._heir
    return heir if heir is not None and heir not in seen else None


def _is_read_by_none_but(node: Node, producer: Node) -> bool:
    return all(not v._uses or (len(v._uses) == 1 and node in v._uses) for v in producer.outputs)
