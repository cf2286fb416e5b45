"""Which nodes are computed together: joins are chosen before tactics, as whole alternatives.

What the user forces comes first, then what the policy's table says of a set of nodes, then what its family expects to save time.
Of joins that share a node one is taken: of the first of these three kinds, and there of the largest gain.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from miniinfer_cli.backends.choosing import NO_TABLE, Chooser, Found, Joined
from miniinfer_cli.backends.cuda.choice.deciding import DISABLED, emitted
from miniinfer_cli.backends.cuda.choice.makers import maker_of
from miniinfer_cli.backends.cuda.choice.signature import joined_signature
from miniinfer_cli.backends.cuda.choice.tactics import tactics
from miniinfer_cli.backends.cuda.contract.join import Join, families
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.reference import settled, static_tensor
from miniinfer_cli.ir import Graph, Node, Value
from miniinfer_cli.ir.parts import leaving, reading
from miniinfer_cli.ops.inference import Types, infer_graph

APART = "apart"
"""The key of a record by which nodes are not joined."""
_NO_NODES: frozenset[Node] = frozenset()


def joins_of(graph: Graph, types: Types, target: Target, apart: Container[Node] = _NO_NODES) -> list[Join]:
    """What may be joined in a graph of these types: nodes that are not ``apart``, over tensors of known sizes.

    The work of a join is done where its last node stands, so nobody may want a result of its nodes before. What a family offers
    that gives other results than its nodes do (one is read elsewhere, or is the graph's own) is left out.
    """
    offered = [join for find in families(graph).values() for join in find(graph, types, target)]
    if not offered:
        return []
    place = {node: number for number, node in enumerate(graph)}
    return [join for join in offered if _is_sound(join, graph, types, place) and not any(n in apart for n in join.nodes)]


def _is_sound(join: Join, graph: Graph, types: Types, place: Mapping[Node, int]) -> bool:
    ends, read = leaving(graph, join.nodes), reading(join.nodes)
    if len(ends) != len(join.graph.outputs) or len(read) != len(join.graph.inputs):
        return False
    values = {*read, *(v for n in join.nodes for v in n.outputs)}
    if any(static_tensor(types.get(v, v.type)) is None for v in values):
        return False
    if any(settled([types[v] for v in n.outputs]) is not None for n in join.nodes):
        return False  # what is known already is not computed
    members, last = set(join.nodes), place[join.nodes[-1]]
    return all(place[user] > last for v in ends for user in v.users if user not in members)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A join that somebody wants: who, the time of the record that says so, and for how many of its nodes a user does."""

    join: Join
    chosen_by: Chooser
    time_us: float | None = None
    forced: int = 0

    @property
    def told(self) -> Joined:
        """What reports say of it when it is taken."""
        return Joined(self.join.key, self.chosen_by, tuple(n.name for n in self.join.nodes), self.time_us)

    @property
    def order(self) -> tuple[int, bool, float]:
        """By which it comes before others: what is forced, then what a record says, then the gain."""
        return -self.forced, self.chosen_by is Chooser.HEURISTIC, -self.join.gain_us


class Joining:
    """The joins that are taken in a graph of these types; nodes in ``apart`` belong to others.

    Raises ModelError where the graph of a join does not take the types.
    """

    def __init__(self, graph: Graph, types: Types, apart: Container[Node], target: Target) -> None:
        self._taken: dict[Node, Wanted] = {}
        self._left: dict[Node, dict[str, str]] = {}
        self._fitting: list[Join] = []
        wanted: list[Wanted] = []
        for join in joins_of(graph, types, target, apart):
            reason = objection(join, target)
            if not reason:
                self._fitting.append(join)
            one = None if reason else _wanted(join, graph, types, target)
            if one is None:
                for node in join.nodes:
                    self._left.setdefault(node, {})[join.key] = objection(join, target, but=node.name)
            else:
                wanted.append(one)
        for one in sorted(wanted, key=lambda w: w.order):
            other = next((self._taken[n].join for n in one.join.nodes if n in self._taken), None)
            if other is None:
                self._taken.update(dict.fromkeys(one.join.nodes, one))
            else:
                for node in one.join.nodes:
                    self._left.setdefault(node, {})[one.join.key] = f"{other.label} are joined"

    def of(self, node: Node) -> Wanted | None:
        """The join by which the node's work is done; None where it is done by itself."""
        return self._taken.get(node)

    def left(self, node: Node) -> Mapping[str, str]:
        """The keys of the node's joins that are not taken, and why they may not be; empty where they may."""
        return self._left.get(node, {})

    def fitting(self) -> list[tuple[Join, bool]]:
        """The joins that may be taken, each with whether it is."""
        taken = {id(one.join) for one in self._taken.values()}
        return [(join, id(join) in taken) for join in self._fitting]


def objection(join: Join, target: Target, but: str = "") -> str:
    """Why the join may not be taken on the target; empty where it may. ``but``: whatever this node is to be done by."""
    policy = target.policy
    if policy.disables(join.key):
        return DISABLED
    forced = ((n.name, policy.forced.get(n.name, join.key)) for n in join.nodes if n.name != but)
    others = (f"{name} is to be done by {key!r}" for name, key in forced if key != join.key)
    return next(others, "") or join.needs(target)


def _wanted(join: Join, graph: Graph, types: Types, target: Target) -> Wanted | None:
    """Who wants a join that may be taken; None where nobody does."""
    forced = sum(n.name in target.policy.forced for n in join.nodes)
    if forced:
        return Wanted(join, Chooser.FORCED, forced=forced)
    table = target.policy.table
    if table is not NO_TABLE:
        for found in table.find(joined_signature(graph, join.nodes, types, target.tf32)):
            reason = record_fault(found, join, target)
            if not reason:
                record = found.record
                return None if record.key == APART else Wanted(join, found.chooser, record.time_us)
            table.pass_over(found, reason)
    return Wanted(join, Chooser.HEURISTIC) if join.gain_us > 0 else None


def record_fault(found: Found, join: Join, target: Target) -> str:
    """Why a record does not tell whether the join is to be taken; empty where it does."""
    if found.record.key not in (APART, join.key):
        return "this release has no such joins there"
    maker = maker_of_join(join, target)
    return "" if found.record.maker == maker else f"they were made by {found.record.maker}, and here is {maker}"


def maker_of_join(join: Join, target: Target) -> str:
    """The makers of what the heuristic takes for the nodes of a join's graph."""
    makers = (maker_of(first, emitted(first), target) for s in _sites(join, target) for first in tactics(s)[:1])
    return "; ".join(dict.fromkeys(makers))


def _sites(join: Join, target: Target) -> Iterator[Site]:
    graph, read = join.graph, reading(join.nodes)
    types = infer_graph(graph, [v.type for v in graph.inputs])
    constants: dict[Value, Value] = dict(zip(graph.inputs, read, strict=True))
    for node in graph:
        handles = tuple(None if v is None else constants.get(v, v).constant for v in node.inputs)
        operands = tuple(None if v is None else types.get(v, v.type) for v in node.inputs)
        yield Site(node, operands, tuple(types[v] for v in node.outputs), handles, target)
